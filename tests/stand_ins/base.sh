#!/bin/sh
# Make a stand-in for the Python image of deploy/Dockerfile where no registry is in reach:
#
#     sh base.sh TAG
#
# If this script has made the image already, it stays. It is a minimal Debian of the same release, with Debian's Python in
# place of the image's own. As there, programs are in /usr/local/bin and packages in /usr/local/lib. It has the
# certificates of this machine, for pip. Needs root.
set -eu

version=$(sha256sum "$0" | cut -c 1-64)
made=$(docker image inspect --format '{{index .Config.Labels "version"}}' "$1" 2> /dev/null || true)
if [ "$made" = "$version" ]; then exit; fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates trixie "$root"
chroot "$root" python3 -m venv /usr/local
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
# The image has no documentation, and apt keeps no files that it downloaded.
cd "$root"
rm -rf var/cache/apt/* var/lib/apt/lists/* usr/share/doc/* usr/share/man/* usr/share/locale/*
cat > etc/apt/apt.conf.d/docker-clean <<'END'
APT::Keep-Downloaded-Packages "false";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
END
tar --create . | docker import \
    --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'CMD ["python3"]' \
    --change "LABEL version=$version" \
    --change 'LABEL org.opencontainers.image.title="stand-in: Debian with its own Python"' \
    - "$1"
