"""Arrays that other programs have computed: who reproduces which, which are left out and why, and a record of it.

`tests/golden/README_golden.md` says what the arrays are. Every array of the two files belongs to exactly one test, or
is left out with a reason; `tests/laws/test_golden_arrays.py` sees to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from spiral_core.arrays import AnyArray

TESTS = Path(__file__).parents[1]
SPIRALTORCH, SPEC_ONLY = "golden_spiraltorch.npz", "golden_spec_only.npz"
ARRAYS = {SPIRALTORCH: 543, SPEC_ONLY: 62}
"""The files, and how many arrays each has."""

TOLERANCE = 1e-5
PROPERTY = "golden arrays"
"""Under this name a test reports what it has reproduced."""


@dataclass(frozen=True)
class Share:
    """The arrays of one file that one test answers for.

    Parameters
    ----------
    test : str               path below the folder of the tests
    file : str
    names : tuple of str     patterns of the names
    data : tuple of str      those among them that are fed in; every other array is a result to reproduce
    """

    test: str
    file: str
    names: tuple[str, ...]
    data: tuple[str, ...] = ()


SHARES = (
    Share(
        "core/nn/test_golden_numerics.py",
        SPIRALTORCH,
        ("linear.*", "conv.*", "pool.?.*", "zbn.k*", "zbn.saturated.*", "zbn.pm1_bound.*", "zbn.batch1.*"),
        (
            *(f"linear.{name}" for name in ("x", "w", "b", "go")),
            *(f"conv.?.{name}" for name in ("x", "w", "b", "go", "cfg")),
            *(f"pool.?.{name}" for name in ("x", "go", "cfg")),
            "zbn.saturated.x",
        ),
    ),
    Share(
        "core/nn/test_golden_norms.py",
        SPIRALTORCH,
        ("bn.*", "ln.*", "zln.*", "zbn.adapt.*"),
        ("bn.x?", "bn.gamma", "bn.beta", "bn.go", "ln.x", "ln.gamma", "ln.beta", "ln.go"),
    ),
    Share("core/nn/test_golden_norms.py", SPEC_ONLY, ("bound.*",)),
    Share(
        "core/nn/test_recurrent.py",
        SPEC_ONLY,
        ("lstm.*",),
        tuple(f"lstm.{name}" for name in ("x", "Wi", "Wh", "bi", "bh", "h0", "c0", "go")),
    ),
    Share(
        "core/optim/test_golden_optim.py",
        SPIRALTORCH,
        ("opt.*", "tape.*"),
        tuple(f"tape.{name}" for name in ("g1", "g2", "w", "pred", "target", "hyper.compression_in")),
    ),
    Share("core/optim/test_golden_optim.py", SPEC_ONLY, ("schedule.*",), ("schedule.*.args",)),
    Share(
        "core/optim/test_golden_training.py",
        SPIRALTORCH,
        ("train.*",),
        tuple(f"train.{name}" for name in ("X", "Y", "W1", "b1", "W2", "b2")),
    ),
    Share("core/amp/test_scaler.py", SPEC_ONLY, ("scaler*",), ("scaler.found_inf", "scaler_hypergrad_bias.S")),
    Share(
        "core/xai/test_gradcam.py",
        SPEC_ONLY,
        ("gradcam.*",),
        ("gradcam.unit.act", "gradcam.unit.grad", "gradcam.act", "gradcam.grad"),
    ),
)

EXCLUDED = {
    "meta.*": "words about the file: the version of the program, and the names of the entries of a summary",
    "tape.hyper.*.summary": "statistics of a tape that no step reads and that nothing here shows",
    "opt.both_*": "two kinds of tape acting at once; here a change of the mode detaches the other tape",
    "pool.overpadded_max.y": "windows that are all padding, a sentinel there; here such a padding is refused",
    "ig.*": "integrated gradients, which are not among the systems here",
}
"""Patterns of arrays that are not reproduced, and why."""


def matching(name: str, patterns: Iterable[str]) -> bool:
    """Tell whether one of the patterns takes a name in."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def names_in(file: str) -> list[str]:
    """Return the names of the arrays of a file."""
    with np.load(TESTS / "golden" / file, allow_pickle=False) as arrays:
        return list(arrays.files)


class Golden:
    """The arrays, and the names of those that one test has reproduced.

    Parameters
    ----------
    test : str    the file of the test, `__file__`
    """

    def __init__(self, test: str) -> None:
        own = Path(test).resolve().relative_to(TESTS).as_posix()
        self.shares = [share for share in SHARES if share.test == own]
        assert self.shares, f"{own} answers for no array"
        self.arrays: dict[str, AnyArray] = {}
        for file in ARRAYS:
            with np.load(TESTS / "golden" / file, allow_pickle=False) as arrays:
                self.arrays.update(arrays)
        self.read: set[str] = set()
        self.reproduced: set[str] = set()

    def __getitem__(self, name: str) -> AnyArray:
        self.read.add(name)
        return self.arrays[name]

    def same(self, name: str, ours: object, tolerance: float = TOLERANCE, relative: float = 0.0) -> None:
        """Fail unless ours is the array within an absolute and a relative tolerance, added up."""
        expected = self.arrays[name]
        value = np.asarray(ours)
        assert value.size == expected.size, name
        np.testing.assert_allclose(value.reshape(expected.shape), expected, rtol=relative, atol=tolerance, err_msg=name)
        self.reproduced.add(name)

    def settle(self, record_property: Callable[[str, object], None]) -> None:
        """Fail unless every array that the test answers for was reproduced, or fed in; report how many there were."""
        for share in self.shares:
            names = {n for n in names_in(share.file) if matching(n, share.names) and not matching(n, EXCLUDED)}
            data = {name for name in names if matching(name, share.data)}
            assert sorted(names - data - self.reproduced) == [], "results that were not reproduced"
            assert sorted(data - self.read) == [], "data that were not fed in"
            counts = {"file": share.file, "results": len(names - data), "data": len(data)}
            record_property(PROPERTY, json.dumps(counts))
