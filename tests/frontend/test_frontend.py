"""The page's own checks, its generated files, and the bytes that cross between Python and TypeScript."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from frontend import golden_wire
from spiral_core.wire import codec, limits, schema
from spiral_core.wire.messages import AnyMessage, CommandRequest, Ping, Pong, Steer, ViewHello, Visibility, Watch
from spiral_core.wire.parts import Setting
from spiral_core.wire.training import training_options

ROOT = Path(__file__).parents[2]
FRONTEND = ROOT / "frontend"


def load_hook() -> ModuleType:
    """Load the build hook, which is a script beside the page and not a module of a package."""
    spec = importlib.util.spec_from_file_location("hatch_build", FRONTEND / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    return load_hook()


@pytest.fixture(scope="module")
def spoken(hook: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the page's tests; give the folder where they left what TypeScript has encoded."""
    hook.install()
    folder = tmp_path_factory.mktemp("spoken")
    done = tool(hook, "vitest/vitest.mjs", "run", env={"SPIRAL_SPOKEN": str(folder)})
    assert done.returncode == 0, done.stdout[-6000:]
    return folder


def tool(
    hook: ModuleType, script: str, *words: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a tool of ``node_modules`` with the Node that the build uses."""
    return subprocess.run(
        [str(hook.node()), str(FRONTEND / "node_modules" / script), *words],
        cwd=FRONTEND,
        env={**os.environ, "NO_COLOR": "1", **(env or {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def test_the_page_has_no_type_errors(hook: ModuleType) -> None:
    hook.install()
    done = tool(hook, "typescript/bin/tsc", "--noEmit")
    assert done.returncode == 0, done.stdout[-6000:]


def test_the_tests_of_the_page_pass(spoken: Path) -> None:
    assert spoken.is_dir()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hello", [ViewHello(protocol=limits.PROTOCOL)]),
        ("watch", [Watch(run="needle-針", width=1600)]),
        ("resume", [Watch(run="", width=900, epoch="e1", since=70_000), Visibility(visible=False)]),
        (
            "steer",
            [
                Steer(
                    run="needle-針",
                    request=CommandRequest(
                        id="c1",
                        verb="set",
                        sets=[Setting(knob="zspace.gain", value=0.25)],
                        expected_rev=7,
                        source="ui",
                    ),
                ),
                Steer(run="r-1", request=CommandRequest(id="c2", verb="step", steps=10, supersede=True)),
            ],
        ),
        ("heartbeat", [Ping(time=12.5), Pong(time=3.0)]),
    ],
)
def test_what_the_page_says_is_what_python_hears(spoken: Path, name: str, expected: list[AnyMessage]) -> None:
    assert codec.decode_packet((spoken / f"{name}.bin").read_bytes()) == expected


def test_the_generated_types_are_up_to_date() -> None:
    assert schema.TYPESCRIPT_FILE.read_text(encoding="utf-8") == schema.typescript(), "run `make generate`"


def test_the_generated_protocol_page_is_up_to_date() -> None:
    assert schema.MARKDOWN_FILE.read_text(encoding="utf-8") == schema.markdown(), "run `make generate`"


def test_the_protocol_page_names_every_message_and_every_field() -> None:
    text = schema.markdown()
    for kind in AnyMessage.__args__:  # type: ignore[attr-defined]
        section = text.split(f"### {kind.__name__} (", 1)[1].split("\n### ")[0]
        assert f"`{kind.__struct_config__.tag}`" in section
        own = set(kind.__annotations__)
        assert [field for field in own if f"| `{field}` |" not in section] == []


def test_the_golden_packets_are_up_to_date() -> None:
    files = golden_wire.files()
    stale = [name for name, data in files.items() if (golden_wire.FOLDER / name).read_bytes() != data]
    assert stale == [], "run `python tests/frontend/golden_wire.py`"
    assert {path.name for path in golden_wire.FOLDER.iterdir()} == set(files)


def test_the_lock_file_names_no_download_address_and_every_version_is_exact() -> None:
    assert '"resolved"' not in (FRONTEND / "package-lock.json").read_text(encoding="utf-8")
    package = codec.from_json((FRONTEND / "package.json").read_bytes(), dict)
    versions = {**package["dependencies"], **package["devDependencies"]}
    assert [name for name, version in versions.items() if not version[0].isdigit()] == []


@pytest.fixture
def copied(tmp_path: Path) -> ModuleType:
    """The build hook in a tree of its own, with sources but without Node's packages."""
    shutil.copytree(FRONTEND, tmp_path / "frontend", ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
    (tmp_path / "spiral_server").mkdir()
    spec = importlib.util.spec_from_file_location("copied_hook", tmp_path / "frontend" / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pretend_page(hook: ModuleType) -> None:
    """Lay a page where the build would leave it."""
    (hook.PAGE / "assets").mkdir(parents=True)
    (hook.PAGE / "index.html").write_text("page")
    (hook.PAGE / "assets" / "index.js").write_text("// page")


def test_a_page_that_is_as_new_as_its_sources_is_not_built_again(
    copied: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr(copied, "npm", lambda *words: called.append(words))
    monkeypatch.setattr(copied, "install", lambda: called.append(("install",)))
    pretend_page(copied)
    assert copied.build() is True
    assert copied.build() is False
    assert called == [("install",), ("run", "build")]
    (copied.FRONTEND / "src" / "main.tsx").write_text("changed")
    assert copied.build() is True


def test_an_archive_with_the_page_but_without_its_sources_needs_no_node(copied: ModuleType) -> None:
    pretend_page(copied)
    shutil.rmtree(copied.FRONTEND / "src")
    assert copied.build() is False


def test_without_page_and_sources_the_build_says_what_is_missing(copied: ModuleType) -> None:
    shutil.rmtree(copied.FRONTEND / "src")
    with pytest.raises(copied.PageError, match="neither built"):
        copied.build()


def test_a_build_that_fails_says_what_npm_said(copied: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copied, "install", lambda: None)
    (copied.FRONTEND / "package.json").write_text("{}")
    with pytest.raises(copied.PageError, match="run build"):
        copied.build()


def test_every_field_of_a_new_run_has_a_word_on_the_page() -> None:
    words = (FRONTEND / "src/i18n/runStrings.ts").read_text(encoding="utf-8")
    missing = [option.name for option in training_options() if f'"field.{option.name}": [' not in words]
    assert missing == []
