"""The import contracts of pyproject.toml, kept inside the tests so that nobody can forget them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# In a process of its own, because import-linter changes sys.path and the logging configuration of its caller.
LINT = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_logo=True, no_cache=True))"


def test_every_import_follows_the_arrows_of_the_architecture(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LINT], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"import contracts are broken (see docs/architecture.md):\n{done.stdout}{done.stderr}"
