"""django/pyproject.toml names all that belongs into the wheel."""

from pathlib import Path

import tomllib

DJANGO = Path(__file__).resolve().parents[2] / "django"
SETUP = tomllib.loads((DJANGO / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_each_folder_with_modules_is_a_package_of_the_wheel():
    folders = {file.parent.relative_to(DJANGO) for file in (DJANGO / "djactor").rglob("*.py")}
    assert sorted(SETUP["packages"]) == sorted(".".join(folder.parts) for folder in folders)


def test_each_other_file_is_data_of_the_wheel():
    app = DJANGO / "djactor"
    data = {file for pattern in SETUP["package-data"]["djactor"] for file in app.glob(pattern)}
    others = {file for file in app.rglob("*") if file.is_file() and file.suffix != ".py"}
    others = {file for file in others if "__pycache__" not in file.parts}
    assert others <= data, others - data
