"""Kernels are compiled before anything is killed: a first start would take a minute, and meet no fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from faults.plan import CNN, COMMON, DIGITS


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder: Path = tmp_path_factory.mktemp("compiled")
    for options in (DIGITS, CNN):
        words = ["-m", "spiral_core.cli", "train", "--quiet", *options, *COMMON, "--steps", "3", "--threads", "1"]
        subprocess.run([sys.executable, *words, "--logdir", str(folder)], check=True)
