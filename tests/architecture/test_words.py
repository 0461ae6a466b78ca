"""Words that must not be in the tree, and words that must be true."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# The first half of the SHA-256 of each host name: this file must not contain what it looks for.
REGISTRY_HOSTS = frozenset({"a4aa2ac280bb8d1a", "0dc11026ac75c015", "c899567ee9068517", "70bb4000cd2fab03"})
HOST = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")
MACHINE_PATH = re.compile(r"(?<![\w.}/-])/(?:work|tmp|root|home/\w+)" + r"/\w")
UNSAFE = re.compile(
    r"\bimport pickle\b|\bfrom pickle\b|\bpickle\.loads?\b|allow_pickle\s*=\s*True|\bcPickle\b|\bdill\b|\bjoblib\b"
)
COMMAND = re.compile(r"(?:^|`|\s)make ((?:[A-Z]+=\S+ )*)([a-z]+)\b")
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")


def texts(tree: list[Path]) -> list[tuple[Path, str]]:
    """Return the files of the tree that are text, with their contents."""
    found = []
    for path in tree:
        raw = path.read_bytes()
        if b"\0" not in raw:
            found.append((path, raw.decode("utf-8", errors="replace")))
    return found


def documents(tree: list[Path]) -> list[tuple[Path, str]]:
    return [(path, text) for path, text in texts(tree) if path.suffix == ".md"]


def code_in(text: str) -> str:
    """Return what a Markdown text shows as code: fenced blocks and `spans`."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return "\n".join([*fenced, *spans])


def test_no_file_names_a_package_registry(tree: list[Path], root: Path) -> None:
    found = [
        f"{path.relative_to(root)}: {host}"
        for path, text in texts(tree)
        for host in set(HOST.findall(text.lower()))
        if hashlib.sha256(host.encode()).hexdigest()[:16] in REGISTRY_HOSTS
    ]
    assert not found


def test_no_file_names_a_path_of_somebodys_machine(tree: list[Path], root: Path) -> None:
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()[:100]}"
        for path, text in texts(tree)
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert not found


def test_the_lock_file_of_the_page_does_not_say_where_packages_came_from(root: Path) -> None:
    lock = json.loads((root / "frontend" / "package-lock.json").read_text(encoding="utf-8"))
    assert lock["packages"]
    assert [name for name, entry in lock["packages"].items() if "resolved" in entry] == []


def test_nothing_that_is_shipped_can_load_a_pickle(modules: list[Path], root: Path) -> None:
    found = [
        f"{path.relative_to(root)}:{number}: {line.strip()}"
        for path in modules
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if UNSAFE.search(line)
    ]
    assert not found


def test_every_make_command_in_the_documents_exists(tree: list[Path], root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    shown = {target for _, text in documents(tree) for _, target in COMMAND.findall(code_in(text))}
    assert {"run", "test"} <= shown, "the README no longer shows how to start and how to test"
    assert shown <= targets


def test_every_target_of_the_makefile_is_phony_or_a_file(root: Path) -> None:
    text = (root / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE).group(1).split())  # type: ignore[union-attr]
    assert set(re.findall(r"^([a-z]+):", text, flags=re.MULTILINE)) == phony


def test_every_link_between_documents_leads_somewhere(tree: list[Path], root: Path) -> None:
    broken = [
        f"{path.relative_to(root)} -> {target}"
        for path, text in documents(tree)
        for target in LINK.findall(text)
        if not (path.parent / target).exists()
    ]
    assert not broken


def test_every_dependency_is_pinned_and_the_pins_are_sorted(root: Path) -> None:
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    names = [canonicalize_name(pin.name) for pin in pins]
    assert names == sorted(set(names))
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    asked = project["project"]["dependencies"] + project["build-system"]["requires"]
    for extra in project["project"]["optional-dependencies"].values():
        asked += extra
    pinned = {name: str(pin.specifier).removeprefix("==") for name, pin in zip(names, pins, strict=True)}
    for requirement in map(Requirement, asked):
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"constraints.txt does not pin {name}"
        assert requirement.specifier.contains(pinned[name]), f"{requirement} does not admit {pinned[name]}"
