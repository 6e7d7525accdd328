"""Where the rivals come from: npm, PyPI, the Go module proxy, Debian; each by its own client.

Everything but Debian's packages goes below .build/rivals, which git ignores and
``make clean`` removes.  What is there with the pinned versions is not asked for again.
Whatever cannot be had raises Skip with the last line that the client said.

Debian's packages bring services that start themselves, at once and with the machine.
They are kept from both: policy-rc.d refuses the start while apt-get runs, and
the units of what was installed here are disabled.  Services that were there before are not touched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rivals.protocol import Skip

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
CACHE = TOP / ".build" / "rivals"
_POLICY = Path("/usr/sbin/policy-rc.d")


def output(
    command: Sequence[str | Path],
    what: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """What a command prints; Skip if it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except OSError as error:
        raise Skip(f"{what}: {error}") from None
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Skip(f"{what}: {said[-1].strip() if said else 'failed'}")
    return done.stdout


def _need(program: str, what: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise Skip(f"{what} needs {program}, which this machine does not have")
    return path


def _copied(folder: str) -> tuple[Path, bool]:
    """The folder's copy in the cache, and whether what it pins was installed there already."""
    source, target = HERE / folder, CACHE / folder
    target.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    for file in sorted(source.iterdir()):
        if file.is_file():
            shutil.copyfile(file, target / file.name)
            if file.suffix in (".json", ".txt", ".mod", ".sum", ".go"):
                digest.update(file.read_bytes())
    stamp = target / "stamp"
    if stamp.exists() and stamp.read_text() == digest.hexdigest():
        return target, True
    stamp.unlink(missing_ok=True)
    (target / "stamp.new").write_text(digest.hexdigest())
    return target, False


def _installed(target: Path) -> None:
    (target / "stamp.new").rename(target / "stamp")


def npm(folder: str) -> tuple[Path, Path]:
    """Install a folder's package.json; returns its copy and the node binary that it pins."""
    what = f"npm, for {folder}"
    target, done = _copied(folder)
    if not done:
        install = [_need("npm", what), "install", "--no-audit", "--no-fund", "--no-package-lock"]
        output(install, what, cwd=target)
        _installed(target)
    node = target / "node_modules" / "node" / "bin" / "node"
    output([node, "--version"], f"the Node of {folder} does not run")
    return target, node


def npm_version(target: Path, package: str) -> str:
    """Which version of a package is installed."""
    described = (target / "node_modules" / package / "package.json").read_text()
    return str(json.loads(described)["version"])


def python() -> tuple[Path, Path]:
    """The virtual environment of the rivals in Python; returns the folder and its interpreter."""
    what = "pip"
    target, done = _copied("python")
    interpreter = target / "venv" / "bin" / "python"
    if not done:
        base = getattr(sys, "_base_executable", sys.executable)
        shutil.rmtree(target / "venv", ignore_errors=True)
        output([base, "-m", "venv", target / "venv"], what)
        pip: list[str | Path] = [
            interpreter,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "-q",
        ]
        output([*pip, "-r", "requirements.txt"], what, cwd=target)
        _installed(target)
    return target, interpreter


def python_version(interpreter: Path, package: str) -> str:
    """Which version of a package is installed."""
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    return output([interpreter, "-c", code, package], package).strip()


def go(folder: str) -> Path:
    """Build a folder's Go program; returns the binary."""
    what = f"go, for {folder}"
    target, done = _copied(folder)
    if not done:
        output([_need("go", what), "build", "-o", "program", "."], what, cwd=target)
        _installed(target)
    return target / "program"


def go_version(folder: str, module: str) -> str:
    """Which version of a module the folder's go.mod pins."""
    for line in (HERE / folder / "go.mod").read_text().splitlines():
        words = line.replace("require", "").split()
        if words[:1] == [module]:
            return words[1].removeprefix("v")
    return "unknown"


def debian(packages: Mapping[str, Path | str]) -> None:
    """Install Debian packages unless what each is for (a file, or a program) is there."""
    missing = [
        package
        for package, test in packages.items()
        if not (test.exists() if isinstance(test, Path) else shutil.which(test))
    ]
    if not missing:
        return
    names = " ".join(missing)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Skip(f"missing: {names}; please install them (as Debian names them), or be root")
    apt = ["apt-get", "-qq"]
    env = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    output([*apt, "update"], "apt-get update", env=env)
    for package in missing:
        output(["apt-cache", "show", package], f"Debian has no {package} here")
    units = _units()
    with _nothing_starts():
        install = [*apt, "-y", "--no-install-recommends", "install", *missing]
        output(install, f"apt-get could not install {names}", env=env)
    for unit in sorted(_units() - units):
        subprocess.run(["systemctl", "disable", unit], capture_output=True, check=False)


def _units() -> set[str]:
    directories = (Path("/lib/systemd/system"), Path("/usr/lib/systemd/system"))
    return {unit.name for directory in directories for unit in directory.glob("*.service")}


@contextlib.contextmanager
def _nothing_starts() -> Iterator[None]:
    """No package starts a service meanwhile; an existing policy is left as it is."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
