"""Size budgets: a module fits in the head, a function fits on a page."""

from __future__ import annotations

import ast
from pathlib import Path

MODULE_LINES = 400
FUNCTION_LINES = 60

# Path below the root, or path::function -> (the budget it has instead, the reason). Empty is the goal.
ALLOWED: dict[str, tuple[int, str]] = {}


def budget(name: str, usual: int) -> int:
    return ALLOWED.get(name, (usual, ""))[0]


def functions(path: Path) -> list[tuple[str, int]]:
    """Return the name and the length, decorators and docstring not counted, of each function in `path`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            said = node.body[0] if ast.get_docstring(node) is not None else None
            documented = (said.end_lineno or 0) - said.lineno + 1 if said is not None else 0
            lines = (node.end_lineno or 0) - node.lineno + 1 - documented
            found.append((node.name, lines if body else 0))
    return found


def test_no_module_is_longer_than_its_budget(root: Path, modules: list[Path]) -> None:
    over = []
    for path in modules:
        name = path.relative_to(root).as_posix()
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > budget(name, MODULE_LINES):
            over.append(f"{name}: {lines} lines, budget {budget(name, MODULE_LINES)}")
    assert not over, "split these modules:\n" + "\n".join(over)


def test_no_function_is_longer_than_its_budget(root: Path, modules: list[Path]) -> None:
    over = []
    for path in modules:
        for function, lines in functions(path):
            name = f"{path.relative_to(root).as_posix()}::{function}"
            if lines > budget(name, FUNCTION_LINES):
                over.append(f"{name}: {lines} lines, budget {budget(name, FUNCTION_LINES)}")
    assert not over, "split these functions:\n" + "\n".join(over)


def test_every_exception_to_a_budget_exists_and_says_why(root: Path) -> None:
    for name, (lines, reason) in ALLOWED.items():
        path, _, function = name.partition("::")
        assert (root / path).is_file(), f"{path} is gone: delete its exception"
        assert not function or function in dict(functions(root / path)), f"{name} is gone: delete its exception"
        assert lines > (FUNCTION_LINES if function else MODULE_LINES), f"{name} needs no exception"
        assert len(reason.split()) >= 5, f"{name}: say why in a sentence"
