"""Packages and modules say what they are for: by a name that means something, and in a docstring."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from spiral_core import __version__

MEANINGLESS = ("util", "utils", "helper", "helpers", "common", "misc", "manager", "managers")


def test_every_package_folder_has_an_init_with_a_docstring(modules: list[Path]) -> None:
    silent = []
    for folder in sorted({path.parent for path in modules}):
        init = folder / "__init__.py"
        if not init.is_file() or not ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))):
            silent.append(str(folder))
    assert not silent, f"packages without a docstring in __init__.py: {silent}"


def test_every_module_has_a_docstring(modules: list[Path]) -> None:
    silent = [str(path) for path in modules if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not silent


def test_no_module_has_a_name_that_says_nothing(modules: list[Path], root: Path) -> None:
    empty = [
        path.relative_to(root).as_posix()
        for path in modules
        if set(MEANINGLESS).intersection(path.stem.strip("_").split("_")) or path.parent.name in MEANINGLESS
    ]
    assert not empty, f"name these modules after what they do: {empty}"


@pytest.mark.parametrize("package", ["spiral_core", "spiral_server"])
def test_both_packages_say_that_they_are_typed(package: str, root: Path) -> None:
    assert (root / package / "py.typed").is_file()


def test_the_version_is_the_same_everywhere(root: Path) -> None:
    assert f'\nversion = "{__version__}"\n' in (root / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"version": "{__version__}"' in (root / "frontend" / "package.json").read_text(encoding="utf-8")
