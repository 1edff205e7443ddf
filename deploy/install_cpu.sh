#!/bin/sh
# Install a lock file with PyTorch's CPU builds, which are several gigabytes smaller than the default ones:
#
#     sh deploy/install_cpu.sh requirements.lock
#
# They are of the versions in the lock file but are other files: pip compares them with the hashes that PyTorch's index
# names. All other packages are installed with the hashes of the lock file; the packages of CUDA are left out.
set -eu

lock=$1
index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
rest=$(mktemp)
trap 'rm -f "$rest"' EXIT

torch=$(grep -oE '^(torch|torchvision)==[0-9.]+' "$lock")
# shellcheck disable=SC2086 # two words: torch and torchvision
pip install --no-deps --index-url "$index" $torch

# An entry is a line with the package and lines with its hashes.
awk '/^[a-z]/ { skip = /^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/ } !skip' "$lock" > "$rest"
pip install --no-deps --require-hashes --requirement "$rest"
