"""A comparison with PyTorch is made or the run fails; it is never skipped. And what else the hooks of a run promise."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
BODIES = {
    "a missing library": 'import pytest\npytest.importorskip("no_such_library")\ndef test_it(): pass\n',
    "a marked test": "import pytest\n@pytest.mark.skip\ndef test_it(): pass\n",
    "a test that gives up": 'import pytest\ndef test_it(): pytest.skip("later")\n',
}


def comparisons() -> list[Path]:
    return sorted(TESTS.rglob("test_parity_*.py"))


def run(folder: Path, name: str, body: str, workers: int) -> subprocess.CompletedProcess[str]:
    """Run one test file below the hooks of our own tests."""
    shutil.copy(TESTS / "conftest.py", folder / "conftest.py")
    (folder / name).write_text(body, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    command += ["-n", str(workers), name]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("reason", "workers"), [*((reason, 1) for reason in BODIES), ("a marked test", 0)])
def test_a_comparison_that_is_skipped_fails_the_run(tmp_path: Path, reason: str, workers: int) -> None:
    done = run(tmp_path, "test_parity_of_nothing.py", BODIES[reason], workers)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "comparisons with PyTorch that were skipped" in done.stdout
    # Any other test may be skipped, for instance one of a file that only Linux has.
    (tmp_path / "test_parity_of_nothing.py").unlink()
    done = run(tmp_path, "test_something.py", f"{BODIES[reason]}\ndef test_more(): pass\n", workers)
    assert done.returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED), done.stdout + done.stderr


def test_every_comparison_imports_pytorch_plainly_at_its_top() -> None:
    assert len(comparisons()) >= 6, "the comparisons have moved"
    for path in comparisons():
        top = ast.parse(path.read_text(encoding="utf-8")).body
        plain = [alias.name for node in top if isinstance(node, ast.Import) for alias in node.names]
        assert "torch" in plain, path


def test_no_test_makes_pytorch_optional() -> None:
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Try) and any(imports_pytorch(inner) for inner in ast.walk(node)):
                found.append(f"{path}:{node.lineno}: an import inside try")
            if isinstance(node, ast.Attribute) and node.attr == "importorskip":
                found.append(f"{path}:{node.lineno}: importorskip")
    assert found == []


def imports_pytorch(node: ast.AST) -> bool:
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    return any(name.partition(".")[0] == "torch" for name in names)


def test_the_files_that_are_begun_first_exist() -> None:
    lines = ast.parse((TESTS / "conftest.py").read_text(encoding="utf-8")).body
    named = [
        ast.literal_eval(line.value)
        for line in lines
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "LONGEST"
    ]
    assert len(named) == 1
    assert [name for name in named[0] if not (TESTS / name).is_file()] == []
