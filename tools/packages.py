"""The packages of a release that no compiler is needed for: wheel, sdist and PGXN archive.

    python tools/packages.py DIRECTORY             makes them
    python tools/packages.py --summary DIRECTORY   adds a bill of materials and SHA256SUMS

``make dist`` calls both, and puts Debian packages between. Two runs on the same files make the same
bytes: all files carry the time that tools/release prints, lie in the order of their names, belong
to root, and may be read by everybody.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[1]
MADE_HERE = {".git", ".build", ".venv", "__pycache__", ".hypothesis", "build"}
MAKE_WHEEL = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""
SEMVER = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)")
TERM = re.compile(r"[^\s/\\\x00-\x1f\x7f]{2,}")


def release(what: str) -> str:
    """What tools/release prints: ``version`` or ``epoch``."""
    return subprocess.check_output([TOP / "tools/release", what], text=True).strip()


def semver(version: str) -> str:
    """The version with three numbers, as PGXN wants it."""
    return ".".join([*version.split("."), "0", "0"][:3])


def files() -> list[Path]:
    """What belongs to the project, relative to its top.

    In a repository that is what git knows, else what was not made here.
    """
    if (TOP / ".git").exists():
        git = ["git", "-C", str(TOP), "-c", "safe.directory=*"]
        listed = subprocess.check_output([*git, "ls-files", "-z"], text=True).split("\0")
        return sorted(Path(name) for name in listed if name and (TOP / name).is_file())
    found = (path.relative_to(TOP) for path in TOP.rglob("*") if path.is_file())
    return sorted(
        path
        for path in found
        if not MADE_HERE & set(path.parent.parts)
        and not any(part.startswith(".") and part.endswith("_cache") for part in path.parts)
        and not any(part.endswith(".egg-info") for part in path.parts)
    )


def mode(path: Path) -> int:
    """Permissions of a file in a package, whatever the umask was when it was written."""
    return 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644


def copy_app(to: Path, epoch: int) -> Path:
    """A copy of the Django app's folder, with the times and permissions of packages.

    The licence lies above that folder, and has to be in a package.
    """
    for name in files():
        if name.parts[0] == "django" or name.name == "LICENSE":
            target = to / ("django" / name if name.name == "LICENSE" else name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(TOP / name, target)
            target.chmod(mode(TOP / name))
            os.utime(target, (epoch, epoch))
    return to / "django"


def repack(sdist: Path, epoch: int) -> None:
    """Writes a .tar.gz anew: sorted, with one time, without the names of who made it."""
    content = io.BytesIO()
    with (
        tarfile.open(sdist) as old,
        tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime = epoch
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            member.mode = 0o755 if member.isdir() or member.mode & stat.S_IXUSR else 0o644
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with sdist.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=epoch) as packed:
        packed.write(content.getvalue())


def python_packages(to: Path) -> Iterator[Path]:
    """Wheel and sdist of the Django app.

    Raises:
        subprocess.CalledProcessError: setuptools refuses; it has said why on stderr.
    """
    epoch = int(release("epoch"))
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch), "PYTHONDONTWRITEBYTECODE": "1"}
    for hook in ("build_wheel", "build_sdist"):
        with tempfile.TemporaryDirectory() as scratch:
            app = copy_app(Path(scratch), epoch)
            made = subprocess.run(
                [sys.executable, "-c", MAKE_WHEEL, hook, str(to)],
                cwd=app,
                env=environment,
                umask=0o022,
                text=True,
                check=True,
                capture_output=True,
            )
        package = to / made.stdout.splitlines()[-1]
        if hook == "build_sdist":
            repack(package, epoch)
        yield package


def meta(version: str) -> dict[str, Any]:
    """META.json, by version 1.0.0 of PGXN's specification."""
    extension = semver(".".join(version.split(".")[:2]))
    return {
        "name": "djactor",
        "abstract": "Actors with durable state and mailboxes, run inside PostgreSQL",
        "description": "djactor makes PostgreSQL an actor runtime, for Django and for plain SQL. An"
        " actor is a row with a jsonb state, its mailbox is a set of rows, and workers of"
        " the server run its handler, a database function, one message at a time. State, mail and"
        " what the handler writes commit together.",
        "version": semver(version),
        "release_status": "stable",
        "maintainer": "djactor contributors <maintainers@djactor.invalid>",
        "license": "postgresql",
        "prereqs": {
            "runtime": {"requires": {"PostgreSQL": "15.0.0"}, "suggests": {"plpython3u": 0}},
        },
        "provides": {
            "djactor": {
                "abstract": "Actors with durable state and mailboxes",
                "file": "sql/djactor.sql",
                "docfile": "docs/operations.md",
                "version": extension,
            },
            "djactor_python": {
                "abstract": "Actors written as plain Python classes",
                "file": "sql/djactor_python.sql",
                "docfile": "docs/django.md",
                "version": extension,
            },
            "djactor_cluster": {
                "abstract": "Actors on several servers",
                "file": "sql/djactor_cluster.sql",
                "docfile": "docs/cluster.md",
                "version": extension,
            },
        },
        "no_index": {"directory": ["bench", "examples", "src", "test", "tools"]},
        "tags": ["actor", "queue", "job queue", "background worker", "django", "durable execution"],
        "meta-spec": {"version": "1.0.0", "url": "https://pgxn.org/meta/spec.txt"},
    }


def meta_errors(content: dict[str, Any], names: set[str]) -> list[str]:
    """What is wrong with META.json in an archive of these files: PGXN would refuse it."""
    errors = [
        f"{key} is missing"
        for key in ("name", "abstract", "version", "maintainer", "license", "provides", "meta-spec")
        if not content.get(key)
    ]
    if errors:
        return errors
    known = {
        "description",
        "generated_by",
        "prereqs",
        "no_index",
        "release_status",
        "resources",
        "tags",
    }
    known |= {"name", "abstract", "version", "maintainer", "license", "provides", "meta-spec"}
    errors += [
        f"{key}: no such key" for key in content if key not in known and not key.startswith("x_")
    ]
    if not TERM.fullmatch(content["name"]):
        errors.append(f"name: {content['name']!r} is no term")
    if content["meta-spec"].get("version") != "1.0.0":
        errors.append("meta-spec: not version 1.0.0")
    if content.get("release_status", "stable") not in ("stable", "testing", "unstable"):
        errors.append(f"release_status: {content['release_status']!r}")
    versions = {"version": content["version"]}
    for extension, about in content["provides"].items():
        if not TERM.fullmatch(extension):
            errors.append(f"provides: {extension!r} is no term")
        versions[f"provides.{extension}"] = about.get("version", "")
        for key in ("file", "docfile"):
            if key in about and about[key] not in names:
                errors.append(f"provides.{extension}.{key}: {about[key]} is not in the archive")
        if "file" not in about:
            errors.append(f"provides.{extension}.file is missing")
    for phase, relations in content.get("prereqs", {}).items():
        if phase not in ("configure", "build", "test", "runtime", "develop"):
            errors.append(f"prereqs: {phase!r} is no phase")
        for relation, wanted in relations.items():
            if relation not in ("requires", "recommends", "suggests", "conflicts"):
                errors.append(f"prereqs.{phase}: {relation!r} is no relation")
            versions |= {
                f"prereqs.{phase}.{name}": least for name, least in wanted.items() if least != 0
            }
    errors += [
        f"{where}: {version!r} is no semantic version"
        for where, version in versions.items()
        if not SEMVER.fullmatch(str(version))
    ]
    return errors


def pgxn(to: Path) -> Path:
    """The archive for PGXN: the whole tree with META.json.

    Raises:
        ValueError: PGXN would refuse META.json.
    """
    version = release("version")
    about = meta(version)
    names = files()
    if errors := meta_errors(about, {str(name) for name in names}):
        raise ValueError("META.json: " + "; ".join(errors))
    when = time.gmtime(int(release("epoch")))[:6]
    folder = f"djactor-{semver(version)}"
    content = {name: (TOP / name).read_bytes() for name in names}
    modes = {name: mode(TOP / name) for name in names}
    content[Path("META.json")] = (json.dumps(about, indent=2, ensure_ascii=False) + "\n").encode()
    archive = to / f"{folder}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for name in sorted(content):
            info = zipfile.ZipInfo(f"{folder}/{name}", when)
            info.create_system = 3  # Unix
            info.external_attr = (stat.S_IFREG | modes.get(name, 0o644)) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(info, content[name])
    return archive


def needs(wheel: Path) -> list[dict[str, Any]]:
    """What the wheel depends on, as components of the bill of materials."""
    with zipfile.ZipFile(wheel) as content:
        (name,) = (name for name in content.namelist() if name.endswith(".dist-info/METADATA"))
        header = HeaderParser().parsestr(content.read(name).decode())
    components: dict[str, dict[str, Any]] = {}
    for line in header.get_all("Requires-Dist", []):
        requirement, _, marker = line.partition(";")
        found = re.match(r"([\w.-]+)\s*(\[[\w,-]+\])?\s*(.*)", requirement.strip())
        assert found is not None, line
        package = found[1].lower().replace("_", "-").replace(".", "-")
        components.setdefault(
            package,
            {
                "type": "library",
                "bom-ref": f"pypi:{package}",
                "name": package,
                "scope": "optional" if "extra ==" in marker else "required",
                "purl": f"pkg:pypi/{package}",
                "properties": [],
            },
        )["properties"].append({"name": "djactor:requirement", "value": line})
        if "extra ==" not in marker:
            components[package]["scope"] = "required"
    return [components[name] for name in sorted(components)]


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def bill(packages: list[Path]) -> dict[str, Any]:
    """A CycloneDX document: the packages with their hashes, and what they need.

    Versions of what is needed are ranges, given as properties: whoever installs djactor chooses.
    """
    version = release("version")
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(release("epoch"))))
    license_of_ours = [{"license": {"id": "PostgreSQL"}}]
    (wheel,) = (path for path in packages if path.suffix == ".whl")
    libraries = needs(wheel)
    made = [
        {
            "type": "file",
            "bom-ref": f"file:{path.name}",
            "name": path.name,
            "version": version,
            "licenses": license_of_ours,
            "hashes": [{"alg": "SHA-256", "content": digest(path)}],
        }
        for path in packages
    ]
    server = {
        "type": "application",
        "bom-ref": "postgresql",
        "name": "postgresql",
        "scope": "required",
        "licenses": license_of_ours,
        "cpe": "cpe:2.3:a:postgresql:postgresql:*:*:*:*:*:*:*:*",
        "properties": [{"name": "djactor:requirement", "value": ">=15"}],
    }
    python = [
        path.name for path in packages if path.suffix == ".whl" or path.name.endswith(".tar.gz")
    ]
    required = [library["bom-ref"] for library in libraries if library["scope"] == "required"]
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": when,
            "component": {
                "type": "framework",
                "bom-ref": "djactor",
                "name": "djactor",
                "version": version,
                "licenses": license_of_ours,
                "purl": f"pkg:pypi/djactor@{version}",
            },
        },
        "components": [*made, server, *libraries],
        "dependencies": [
            {"ref": "djactor", "dependsOn": [part["bom-ref"] for part in made]},
            *(
                {
                    "ref": f"file:{path.name}",
                    "dependsOn": required if path.name in python else ["postgresql"],
                }
                for path in packages
            ),
        ],
    }
    number = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    return document | {"serialNumber": f"urn:uuid:{number}"}


def summarize(to: Path) -> None:
    """The bill of materials and the checksums of what lies in the directory."""
    document = to / f"djactor-{release('version')}.cdx.json"
    sums = to / "SHA256SUMS"
    for old in (document, sums):
        old.unlink(missing_ok=True)
    packages = sorted(path for path in to.iterdir() if path.is_file())
    document.write_text(json.dumps(bill(packages), indent=2, ensure_ascii=False) + "\n")
    lines = (f"{digest(path)}  {path.name}\n" for path in [*packages, document])
    sums.write_text("".join(sorted(lines, key=lambda line: line.split("  ")[1])))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("directory", type=Path)
    options = parser.parse_args()
    to = options.directory.resolve()
    to.mkdir(parents=True, exist_ok=True)
    if options.summary:
        summarize(to)
        return
    try:
        for package in (*python_packages(to), pgxn(to)):
            print(package)
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.stdout}{error.stderr}packages: setuptools failed")
    except ValueError as error:
        sys.exit(f"packages: {error}")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
