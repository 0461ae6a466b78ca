from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spiral_core import kernels
from spiral_core.errors import ArgumentError
from spiral_core.kernels import accelerate, pool

SOURCES = Path(accelerate.__file__).parent

USE_ONE_KERNEL = """
import numpy as np
from spiral_core import kernels
print(kernels.cache_directory())
print(kernels.cold_count(["rectify"], "float32"))
kernels.warm(["rectify"], "float32")
print(kernels.cold_count(["rectify"], "float32"))
out = np.empty(2, np.float32)
kernels.rectify(0, 1, 0, np.array([-1, 2], np.float32), out)
assert out.tolist() == [0, 2]
print(sum(kernels.rectify.stats.cache_hits.values()))
"""


def use_one_kernel(**environment: str) -> list[str]:
    finished = subprocess.run(
        [sys.executable, "-c", USE_ONE_KERNEL],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return finished.stdout.split()


def test_warming_reports_each_kernel_before_it_and_the_end() -> None:
    calls = []
    names = ["rectify", "fold_lanes", "rectify"]
    kernels.warm(names, np.float32, lambda *call: calls.append(call))
    assert calls == [(0, 2, "rectify"), (1, 2, "fold_lanes"), (2, 2, "")]
    assert kernels.cold_count(names, np.float32) == 0


def test_the_plan_names_each_kernel_once_with_its_signature() -> None:
    plan = kernels.compile_plan(["rectify", "rectify"], np.float64)
    assert plan == [("rectify", "void(int64, int64, int64, float64[::1], float64[::1])")]


@pytest.mark.usefixtures("threads")
def test_what_several_threads_need_is_warmed_too() -> None:
    way = pool.way_of(kernels.squash)
    way.forms.clear()
    kernels.set_num_threads(1)
    kernels.warm(["squash"], np.float32)
    assert not way.forms
    kernels.set_num_threads(2)
    kernels.warm(["squash", "fold_lanes"], np.float32)
    assert list(way.forms) == ["f"]
    assert kernels.cold_count(["squash", "fold_lanes"], np.float32) == 0


@pytest.mark.parametrize("of", [kernels.warm, kernels.compile_plan, kernels.cold_count])
def test_an_unknown_kernel_or_dtype_is_refused_by_name(of: object) -> None:
    assert callable(of)
    with pytest.raises(ArgumentError, match="rectfy"):
        of(["rectify", "rectfy"], np.float32)
    with pytest.raises(ArgumentError, match="float16"):
        of(["rectify"], np.float16)


def test_two_kernels_of_one_name_are_refused() -> None:
    def rectify(x: float) -> None: ...

    with pytest.raises(ArgumentError, match="rectify"):
        kernels.kernel("void({f})")(rectify)


def test_no_kernel_may_assume_that_numbers_are_finite() -> None:
    assert {"contract", "reassoc"} == accelerate.FASTMATH


def test_kernels_are_compiled_once_into_the_folder_that_the_environment_names(tmp_path: Path) -> None:
    folder, cold, cold_after, hits = use_one_kernel(SPIRAL_CACHE_DIR=str(tmp_path))
    assert Path(folder).is_relative_to(tmp_path)
    assert (cold, cold_after, hits) == ("1", "0", "0")
    assert list(Path(folder).rglob("*rectify*.nbc"))
    assert use_one_kernel(SPIRAL_CACHE_DIR=str(tmp_path)) == [folder, "0", "0", "1"]


GRADIENTS = """
import hashlib, sys
import numpy as np
from spiral_core import kernels, nn

kernels.set_num_threads(2)
if sys.argv[1:]:
    kernels.warm(sys.argv[1:], np.float32)
    sys.exit()
draws = np.random.default_rng(0)
layer = nn.Conv2d("c", 16, 33, generator=draws)
x = draws.standard_normal((3, 7, 10, 16)).astype(np.float32)
grad = draws.standard_normal((3, 7, 10, 33)).astype(np.float32)
grad_x = layer.backward(x, grad) if layer.forward(x) is not None else None
print(hashlib.sha256(grad_x.tobytes() + layer.weight.grad.tobytes()).hexdigest())
"""


def test_kernels_that_different_processes_have_compiled_work_together(tmp_path: Path) -> None:
    """Compiled code finds what it calls by name, so no two functions may ever get the same."""

    def run(cache: Path, *names: str) -> str:
        words = [sys.executable, "-c", GRADIENTS, *names]
        environment = {**os.environ, "SPIRAL_CACHE_DIR": str(cache)}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout

    for name in ("pad_image", "convolve_backward", "product", "convolve"):
        run(tmp_path / "apart", name)
    assert run(tmp_path / "apart") == run(tmp_path / "together") != ""


def test_a_cache_folder_that_cannot_be_written_does_not_fail_and_nothing_is_written_elsewhere(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    before = set(SOURCES.rglob("*.nb?"))
    _, cold, cold_after, hits = use_one_kernel(SPIRAL_CACHE_DIR=str(file), HOME=str(file))
    assert (cold, cold_after, hits) == ("1", "1", "0")
    assert set(SOURCES.rglob("*.nb?")) == before


def test_the_cache_folder_changes_its_name_with_any_kernel_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "kernels"
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(accelerate, "__file__", str(copy / "accelerate.py"))
    digests = {accelerate._source_digest()}
    assert digests == {accelerate._DIGEST}
    sources = sorted(copy.glob("*.py"))
    for path in sources:
        path.write_text(path.read_text() + "\n")
        digests.add(accelerate._source_digest())
    assert len(digests) == len(sources) + 1
