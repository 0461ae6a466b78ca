"""Nothing that can run code when it is read: no pickle, in any of its clothes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FORBIDDEN = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}


def offences(source: str) -> list[str]:
    """Tell what a module does that it should not."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"line {node.lineno}: imports {name}" for name in names if name.split(".")[0] in FORBIDDEN]
        elif isinstance(node, ast.Call):
            found += _of_call(node)
    return found


def _of_call(call: ast.Call) -> list[str]:
    name = ast.unparse(call.func)
    if name in ("np.load", "numpy.load"):
        allowed = [word.value for word in call.keywords if word.arg == "allow_pickle"]
        if not (len(allowed) == 1 and isinstance(allowed[0], ast.Constant) and allowed[0].value is False):
            return [f"line {call.lineno}: np.load without allow_pickle=False"]
    if name in ("__import__", "importlib.import_module") and call.args and isinstance(call.args[0], ast.Constant):
        module = str(call.args[0].value).split(".")[0]
        return [f"line {call.lineno}: imports {module}"] if module in FORBIDDEN else []
    return []


def test_nothing_that_is_shipped_reads_what_could_run_code(root: Path) -> None:
    modules = [*(root / "spiral_core").rglob("*.py"), *(root / "spiral_server").rglob("*.py")]
    assert len(modules) > 150
    found = {
        str(module.relative_to(root)): told
        for module in modules
        if (told := offences(module.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, marshal",
        "from shelve import open",
        "import joblib.memory as m",
        "__import__('pickle')",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
    ],
)
def test_each_of_these_would_be_found(source: str) -> None:
    assert len(offences(source)) == 1
