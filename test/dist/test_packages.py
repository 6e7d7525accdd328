"""What `make dist` makes without a compiler: the same bytes twice, of one version, all valid.

Debian packages take minutes: `make dist-check` compares those.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import packages
from djactor import __version__

TOP = Path(__file__).resolve().parents[2]
EPOCH = 1_780_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two releases: of this tree, and of a copy that somebody with another umask has made later."""
    results = []
    for name, umask in (("one", 0o022), ("two", 0o077)):
        base = tmp_path_factory.mktemp(name)
        tree = base / f"tree-{name}"
        ignored = shutil.ignore_patterns(".git", ".build", ".venv", "__pycache__")
        shutil.copytree(TOP, tree, ignore=ignored, copy_function=shutil.copy)
        (tree / "README.md").chmod(0o666 & ~umask)
        (tree / "django/README.md").chmod(0o666 & ~umask)
        (tree / "django/djactor/__pycache__").mkdir()
        (tree / "django/djactor/__pycache__/left.pyc").write_bytes(b"left")
        for arguments in ([], ["--summary"]):
            subprocess.run(
                [sys.executable, tree / "tools/packages.py", *arguments, base / "dist"],
                check=True,
                umask=umask,
                env=os.environ | {"SOURCE_DATE_EPOCH": str(EPOCH)},
            )
        results.append(base / "dist")
    return results[0], results[1]


def test_two_builds_are_the_same_bytes(made: tuple[Path, Path]) -> None:
    one, two = ({path.name: path.read_bytes() for path in dist.iterdir()} for dist in made)
    assert len(one) == 5
    assert list(one) and set(one) == set(two)
    assert [name for name in one if one[name] != two[name]] == []


def test_all_have_the_one_version(made: tuple[Path, Path]) -> None:
    assert {path.name for path in made[0].iterdir()} == {
        "SHA256SUMS",
        f"djactor-{__version__}-py3-none-any.whl",
        f"djactor-{packages.semver(__version__)}.zip",
        f"djactor-{__version__}.cdx.json",
        f"djactor-{__version__}.tar.gz",
    }


def test_the_version_stands_in_one_place() -> None:
    """Neither files of packaging nor sources repeat it."""
    files = [
        *TOP.glob("*.control"),
        TOP / "django/pyproject.toml",
        TOP / "Makefile",
        *TOP.glob("debian/*"),
        *TOP.glob("src/*/*.[ch]"),
    ]
    pattern = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.]|-or-later)")
    found = [
        f"{path.relative_to(TOP)}: {line}"
        for path in files
        if path.is_file()
        for line in path.read_text().splitlines()
        if pattern.search(line)
        and "djactor" in line
        and not line.startswith(("#", " *", "Format:"))
    ]
    assert found == []


def test_pypi_takes_wheel_and_sdist_and_renders_their_page(made: tuple[Path, Path]) -> None:
    given = [*made[0].glob("*.whl"), *made[0].glob("*.tar.gz")]
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *given], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("PASSED") == 2


def test_the_wheel_has_the_app_its_licence_and_its_extras(made: tuple[Path, Path]) -> None:
    (path,) = made[0].glob("*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        header = wheel.read(f"djactor-{__version__}.dist-info/METADATA").decode()
    app = TOP / "django"
    for file in app.glob("djactor/**/*"):
        if file.is_file() and "__pycache__" not in file.parts:
            assert str(file.relative_to(app)) in names
    assert not [name for name in names if name.endswith(".pyc")]
    assert f"djactor-{__version__}.dist-info/licenses/LICENSE" in names
    assert set(re.findall(r"^Provides-Extra: (.*)$", header, re.MULTILINE)) == {
        "otel",
        "prometheus",
        "psycopg",
        "tasks",
        "uvloop",
    }
    with tarfile.open(next(made[0].glob("*.tar.gz"))) as sdist:
        assert {member.uid for member in sdist} == {0}
        assert {member.mtime for member in sdist} == {EPOCH}


def test_pgxn_takes_the_archive(made: tuple[Path, Path]) -> None:
    folder = f"djactor-{packages.semver(__version__)}/"
    with zipfile.ZipFile(made[0] / f"{folder[:-1]}.zip") as archive:
        names = set(archive.namelist())
        content = json.loads(archive.read(folder + "META.json"))
        inside = archive.getinfo(folder + "sql/djactor.sql")
    assert all(name.startswith(folder) for name in names)
    assert {
        folder + name
        for name in ("Makefile", "README.md", "LICENSE", "tools/build", "sql/djactor.sql")
    } <= names
    assert not [name for name in names if "__pycache__" in name]
    files = {name.removeprefix(folder) for name in names}
    assert packages.meta_errors(content, files) == []
    assert inside.external_attr >> 16 == 0o100644


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"version": "1.0"}, "semantic version"),
        ({"name": "d"}, "no term"),
        ({"license": None}, "license is missing"),
        ({"release_status": "final"}, "release_status"),
        ({"prereqs": {"running": {"requires": {"PostgreSQL": "15.0.0"}}}}, "no phase"),
        ({"prereqs": {"runtime": {"wants": {"PostgreSQL": "15.0.0"}}}}, "no relation"),
        ({"prereqs": {"runtime": {"requires": {"PostgreSQL": "15"}}}}, "semantic version"),
        ({"provides": {"djactor": {"file": "no.sql", "version": "1.0.0"}}}, "not in the archive"),
        ({"provides": {"djactor": {"version": "1.0.0"}}}, "file is missing"),
        ({"colour": "blue"}, "no such key"),
        ({"meta-spec": {"version": "2.0.0"}}, "meta-spec"),
    ],
)
def test_what_pgxn_would_refuse_is_found(change: dict[str, object], wrong: str) -> None:
    files = {str(name) for name in packages.files()}
    errors = packages.meta_errors(packages.meta("1.0") | change, files)
    assert any(wrong in error for error in errors), errors


def test_the_bill_of_materials_is_valid_and_names_each_package(made: tuple[Path, Path]) -> None:
    (path,) = made[0].glob("*.cdx.json")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text()) is None
    content = json.loads(path.read_text())
    components = {part["name"]: part for part in content["components"]}
    sums = dict(
        reversed(line.split("  ")) for line in (made[0] / "SHA256SUMS").read_text().splitlines()
    )
    assert set(sums) == {file.name for file in made[0].iterdir()} - {"SHA256SUMS"}
    for name, value in sums.items():
        assert packages.digest(made[0] / name) == value
        if name != path.name:
            assert components[name]["hashes"] == [{"alg": "SHA-256", "content": value}]
    assert components["django"]["scope"] == components["psycopg"]["scope"] == "required"
    assert components["django-tasks"]["scope"] == "optional"
