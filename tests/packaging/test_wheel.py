"""What is shipped: the contents of the wheel and the sdist, and that the wheel works where no Node is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import HeaderParser
from html.parser import HTMLParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PAGE = "spiral_server/page/"
NEVER_SHIPPED = re.compile(r"(^|/)(tests?|node_modules|__pycache__|runs|docker)/")
# Addresses in the page: of attributes in the HTML, and of url(...) in the style sheets.
ADDRESS_ATTRIBUTES = ("src", "href", "action", "data", "poster")


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel once, with the tools of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    # `make` pins what isolated builds install; pip refuses to be told that of one that is not isolated.
    env = {name: value for name, value in os.environ.items() if name != "PIP_BUILD_CONSTRAINT"}
    run(*pip, "--wheel-dir", str(folder), str(ROOT), cwd=ROOT, env=env)
    return next(folder.glob("spiral-*.whl"))


@pytest.fixture(scope="session")
def names(wheel: Path) -> list[str]:
    """Return the names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="session")
def sdist_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the names of the files in the sdist, below its top folder."""
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder), cwd=ROOT)
    with tarfile.open(next(folder.glob("spiral-*.tar.gz"))) as archive:
        return [name.partition("/")[2] for name in archive.getnames()]


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel in an empty environment and return its folder of programs."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, str(wheel), cwd=folder)
    return folder / "bin"


def bare_environment(bare: Path) -> dict[str, str]:
    """Return an environment that offers the dependencies of this one, but neither the checkout nor Node."""
    # An editable install is named in a .pth file, which PYTHONPATH does not read: only third-party packages are seen.
    return {"PATH": str(bare), "PYTHONPATH": sysconfig.get_path("purelib"), "HOME": os.environ.get("HOME", "/")}


def addresses(html: str) -> list[str]:
    found: list[str] = []

    class Collector(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - the base names it
            found.extend(value for name, value in attrs if name in ADDRESS_ATTRIBUTES and value)

    Collector().feed(html)
    return found


def missing_from(names: list[str]) -> list[str]:
    """Return what every archive must hold and this one does not."""
    wanted = [
        path.relative_to(ROOT).as_posix() for package in ("spiral_core", "spiral_server") for path in shipped(package)
    ]
    return [name for name in [*wanted, f"{PAGE}index.html"] if name not in names]


def shipped(package: str) -> list[Path]:
    kinds = ("*.py", "py.typed", "*.npz", "NOTICE*")
    return [path for kind in kinds for path in (ROOT / package).rglob(kind) if "__pycache__" not in path.parts]


def test_the_wheel_holds_every_module_the_types_marker_the_data_and_its_notice(names: list[str]) -> None:
    assert missing_from(names) == []
    assert "spiral_core/py.typed" in names
    assert "spiral_server/py.typed" in names
    assert any(name.startswith("spiral_core/data/") and name.endswith(".npz") for name in names)
    assert {"spiral_core/data/NOTICE-fashion-mnist", "spiral_core/data/NOTICE-digits"} <= set(names)


def test_the_wheel_carries_its_licence_and_the_notice_of_the_data(names: list[str]) -> None:
    licences = [name.partition(".dist-info/licenses/")[2] for name in names]
    assert "LICENSE" in licences
    assert {"spiral_core/data/NOTICE-fashion-mnist", "spiral_core/data/NOTICE-digits"} <= set(licences)


def requirements(wheel: Path) -> list[Requirement]:
    """Return what the metadata of the wheel ask for, extras included."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    return [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]


def test_who_installs_the_wheel_gets_what_it_runs_with_and_neither_pytorch_nor_a_test_tool(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {True: set(), False: set()}
    for requirement in requirements(wheel):
        user = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        asked[user].add(canonicalize_name(requirement.name))
    assert asked[True] == {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    assert asked[True].isdisjoint({"torch", "pytest", "hypothesis", "ruff"})
    assert {"torch", "pytest"} <= asked[False]


def test_the_demo_is_installed_without_the_tools_of_the_tests() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = dict(re.findall(r"^(\$\(\w+_STAMP\)): [^\n]*\n((?:\t[^\n]*\n)+)", makefile, flags=re.MULTILINE))
    assert re.findall(r"PIP_INSTALL\) (.*)", rules["$(RUN_STAMP)"]) == ["-e ."]
    assert re.findall(r"PIP_INSTALL\) (.*)", rules["$(DEV_STAMP)"]) == ["-e '.[dev]'"]
    assert re.search(r"^run: \$\(RUN_STAMP\) page ", makefile, flags=re.MULTILINE)


def test_the_wheel_holds_nothing_but_the_two_packages(names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"spiral_core", "spiral_server"}
    assert [name for name in names if NEVER_SHIPPED.search(name)] == []


def test_the_sdist_holds_the_packages_the_built_page_and_its_sources(sdist_names: list[str]) -> None:
    assert missing_from(sdist_names) == []
    wanted = {"pyproject.toml", "README.md", "LICENSE", "frontend/hatch_build.py", "frontend/package-lock.json"}
    assert wanted <= set(sdist_names)
    assert [name for name in sdist_names if NEVER_SHIPPED.search(name)] == []


def test_the_page_in_the_wheel_uses_relative_addresses_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        pages = {
            name: archive.read(name).decode()
            for name in archive.namelist()
            if name.startswith(PAGE)
            if name.endswith((".html", ".css"))
        }
    linked = [address for name, text in pages.items() if name.endswith(".html") for address in addresses(text)]
    linked += [address for text in pages.values() for address in re.findall(r"url\(\s*['\"]?([^'\")]+)", text)]
    assert linked, "the page loads nothing: it was not built"
    outside = [
        address for address in linked if re.match(r"/|[a-z][a-z0-9+.-]*:", address) and not address.startswith("data:")
    ]
    assert outside == []


def test_every_file_that_the_page_names_is_in_the_wheel(wheel: Path, names: list[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        linked = addresses(archive.read(f"{PAGE}index.html").decode())
    local = [
        address.removeprefix("./").partition("?")[0] for address in linked if not address.startswith(("data:", "#"))
    ]
    assert [address for address in local if PAGE + address not in names] == []


def test_the_wheel_alone_offers_the_command_and_the_page_where_no_node_is(bare: Path) -> None:
    environment = bare_environment(bare)
    assert "demo" in run(str(bare / "spiral"), "--help", cwd=bare, env=environment)
    code = "import spiral_server.app as a, pathlib; print(pathlib.Path(a.__file__).with_name('page') / 'index.html')"
    page = Path(run(str(bare / "python"), "-c", code, cwd=bare, env=environment).strip())
    assert page.is_file()
    assert bare.parent in page.parents, "the checkout was imported, not the wheel"
