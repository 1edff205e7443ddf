"""The images of deploy/, built and run by Docker with the commands of the documents.

Where no registry is in reach, stand-ins from tests/stand_ins take the place of the images that would be pulled. Where
PyTorch's index of CPU builds is not in reach, PyTorch comes from PyPI: a CUDA build, which needs CUDA's libraries to be
imported. They are mounted from the environment of the tests, so that the image is no larger than with a CPU build.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.pipelines import build_once
from support.scripts import ROOT, Result
from support.stack import read_services

DOCKERFILE = ROOT / "deploy" / "Dockerfile"
STAND_INS = ROOT / "tests" / "stand_ins"
STAND_IN_NAME = "pytorch-demo-stand-in"
PYPI = "https://pypi.org/simple"
# Stands before the real docker on PATH, and adds to its commands what this machine lacks.
WRAPPER = """\
#!/bin/sh
command=$1
[ $# = 0 ] || shift
case $command in
build) exec {docker} build {build_options} "$@" ;;
run) exec {docker} run {run_options} "$@" ;;
*) exec {docker} "$command" "$@" ;;
esac
"""


@dataclass(frozen=True)
class Docker:
    """How commands with docker in them run on this machine.

    Attributes
    ----------
    env
        What is added to the environment.
    stand_ins
        The images that have stand-ins here, and what these are.
    """

    env: dict[str, str]
    stand_ins: dict[str, str]

    def run(self, command: str, folder: Path, stdin: str = "", **env: str) -> Result:
        """Run a command of the shell in ``folder``."""
        shell = ["bash", "-c", command]
        everything = os.environ | self.env | env
        done = subprocess.run(shell, cwd=folder, env=everything, input=stdin, capture_output=True, text=True)
        return Result(done.returncode, done.stdout, done.stderr)

    def check(self, command: str, folder: Path, stdin: str = "", **env: str) -> str:
        """Run a command that must succeed; return what it printed."""
        result = self.run(command, folder, stdin, **env)
        assert result.code == 0, f"{command}: {result.code}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def describe_image(self, name: str) -> str:
        """Return name, size and base of an image, for people."""
        base = read_base_image()
        return f"{name}: {self.read_size(name) / 1e9:.2f} GB; {base}: {self.stand_ins.get(base, 'as it is')}"

    def read_size(self, name: str) -> int:
        """Return the size of an image in bytes."""
        return int(self.check("docker image inspect --format '{{.Size}}' " + name, ROOT))


def prepare_docker(factory: pytest.TempPathFactory) -> Docker:
    """Return Docker with all images that the project does not build itself, or skip."""
    program = shutil.which("docker")
    if program is None or subprocess.run([program, "info"], capture_output=True).returncode:
        pytest.skip("no Docker engine answers: install Docker, or start it")
    if subprocess.run([program, "compose", "version"], capture_output=True).returncode:
        pytest.skip("Docker has no Compose: install its plug-in docker-compose")
    _, docker = build_once(factory, "docker", _prepare)
    assert isinstance(docker, Docker)
    return docker


def read_base_image() -> str:
    """Return the image on which deploy/Dockerfile builds."""
    match = re.search(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


def _prepare(folder: Path) -> Docker:
    docker = shutil.which("docker") or "docker"
    base, services = read_base_image(), read_services()
    images = {f"{name.upper()}_IMAGE": _read_default(services[name]["image"]) for name in ("database", "store")}
    env, stand_ins = {}, {}
    if not _is_available(docker, base):
        env["BASE_IMAGE"], stand_ins[base] = _make_base_stand_in(), "on a stand-in for it (Debian's Python)"
    for variable, image in images.items():
        if not _is_available(docker, image):
            target = variable.removesuffix("_IMAGE").lower()
            env[variable] = _build_stand_in(docker, target, env.get("BASE_IMAGE", base))
            stand_ins[image] = "a stand-in for it"
    build_options = [f"--build-arg BASE_IMAGE={env['BASE_IMAGE']}"] if "BASE_IMAGE" in env else []
    run_options = ["--env OMP_NUM_THREADS=1"]  # as for all tests
    if not _has_cpu_builds():
        build_options.append(f"--build-arg TORCH_INDEX={PYPI}")
        packages = _find_packages(docker, env.get("BASE_IMAGE", base))
        run_options.append(f"--volume {_find_cuda()}:{packages}/nvidia:ro")
    wrapper = folder / "docker"
    wrapper.write_text(
        WRAPPER.format(docker=docker, build_options=" ".join(build_options), run_options=" ".join(run_options))
    )
    wrapper.chmod(0o755)
    return Docker(env | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}, stand_ins)


def _run(*command: object) -> str:
    """Run a command that must succeed; return what it printed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def _read_default(text: str) -> str:
    """Return the default in ``${NAME:-default}``."""
    return text.partition(":-")[2].removesuffix("}")


def _is_available(docker: str, image: str) -> bool:
    """Return whether the image is here, or could be pulled."""
    commands = ([docker, "image", "inspect", image], [docker, "pull", "--quiet", image])
    return any(subprocess.run(command, capture_output=True).returncode == 0 for command in commands)


def _make_base_stand_in() -> str:
    """Make the stand-in for the base image; return its name."""
    if os.getuid() or shutil.which("debootstrap") is None:
        pytest.skip("no registry is in reach, and a stand-in needs root and debootstrap")
    tag = f"{STAND_IN_NAME}:base"
    _run("sh", STAND_INS / "base.sh", tag)
    return tag


def _build_stand_in(docker: str, target: str, base: str) -> str:
    """Build the stand-in for the image of a service; return its name."""
    tag = f"{STAND_IN_NAME}:{target}"
    moto = re.search(r"^moto\S+", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    assert moto is not None
    arguments = ["--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"MOTO={moto[0]}"]
    _run(docker, "build", "--target", target, *arguments, "--tag", tag, STAND_INS)
    return tag


def _has_cpu_builds() -> bool:
    """Return whether the index of CPU builds, which deploy/Dockerfile names, is in reach."""
    match = re.search(r"^ARG TORCH_INDEX=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert match is not None
    try:
        with urllib.request.urlopen(f"{match[1]}/torch/", timeout=20):
            return True
    except OSError:
        return False


def _find_cuda() -> Path:
    """Return where this environment has CUDA's libraries."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    folder = Path(torch.origin).parent.parent / "nvidia"
    if not folder.exists():
        pytest.skip("neither PyTorch's index of CPU builds nor CUDA's libraries are in reach")
    return folder


def _find_packages(docker: str, image: str) -> str:
    """Return where Python's packages are in an image."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return _run(docker, "run", "--rm", image, "python", "-c", code)
