"""What the engine may ask of any data set, and the data sets it can ask for by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Final, Protocol

from spiral_core import choices
from spiral_core.arrays import AnyArray
from spiral_core.data.batch import Batch
from spiral_core.data.digits import DigitsDataset
from spiral_core.data.embedded import EmbeddedDataset
from spiral_core.data.endless import EndlessDataset
from spiral_core.data.fashion import FashionDataset
from spiral_core.data.needle import NeedleDataset
from spiral_core.data.sequence import MotifDataset
from spiral_core.data.steering import DataKnob
from spiral_core.errors import DataError


class Dataset(Protocol):
    """Labeled images in batches, each a function of (seed, index, batch size, what the knobs hold).

    A run that knows its seed, the `state_dict` and how many batches it has seen can go on.
    """

    KNOBS: ClassVar[tuple[DataKnob, ...]]
    """What people may change in the training stream, besides the batch size."""

    KERNELS: ClassVar[tuple[str, ...]]
    """Names of the compiled kernels that draw training batches."""

    @property
    def name(self) -> str:
        """The name that `open_dataset` knows."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels; of sequences 1, time steps, features."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """One name per class index."""

    @property
    def batch_size(self) -> int:
        """Images per training batch."""

    @property
    def largest_batch(self) -> int:
        """The largest batch size that may be asked for."""

    @property
    def batches_per_epoch(self) -> int | None:
        """Batches in one pass over the training images; None where the stream is endless and has no pass."""

    @property
    def report_batches(self) -> int:
        """Batches after which a run evaluates and reports: one epoch, or its like on an endless stream."""

    def epochs(self, count: int) -> float:
        """Return how many epochs ``count`` batches are; one that a new batch size has cut short counts as whole."""

    def resize(self, batch_size: int, index: int) -> None:
        """Let training batch ``index`` and those after it have another size, and begin a new epoch with it."""

    def setting(self, name: str) -> float | bool:
        """Return what a knob holds."""

    def set(self, name: str, value: float | bool) -> None:
        """Let a knob hold a value from the next batch on."""

    def state_dict(self) -> dict[str, AnyArray]:
        """Return everything that was changed while the run trained."""

    def load_state_dict(self, state: Mapping[str, AnyArray]) -> None:
        """Load what `state_dict` gave; all of it or nothing."""

    def train_batch(self, index: int, into: Batch | None = None) -> Batch:
        """Return training batch ``index``, the same bits at every call and in any order of calls.

        Parameters
        ----------
        index : int
            >= 0, or that of the first batch of the size in force.
        into : Batch, optional
            An earlier batch of this data set and of the same size that nobody looks at any more: its arrays are written
            over, it is what comes back, and nothing of the size of the images is allocated. Without one the batch has
            memory of its own, which no later call touches.
        """

    def test_batches(self) -> Iterator[Batch]:
        """Yield all held-out images once, always the same; the last batch may be smaller."""

    def probe(self, n: int = 8) -> Batch:
        """Return ``n`` fixed held-out images that go through the classes in turn."""


DATASETS: Final = tuple(choices.DATA)
"""Names for `open_dataset`."""

_KINDS: Final = {kind.name: kind for kind in (NeedleDataset, FashionDataset, DigitsDataset, MotifDataset)}


def _kind(name: str) -> type[EmbeddedDataset] | type[EndlessDataset]:
    if name not in _KINDS:
        raise DataError(f"unknown data set {name!r}; choose one of {', '.join(DATASETS)}")
    return _KINDS[name]


def open_dataset(name: str, *, seed: int, batch_size: int) -> Dataset:
    """Open a data set by name.

    Parameters
    ----------
    name : str
        One of `DATASETS`.
    seed : int
        Seed of the run, >= 0.
    batch_size : int
        Images per training batch, >= 1.

    Raises
    ------
    DataError
        When the name is unknown, or an embedded file is missing or damaged.
    ArgumentError
        When ``seed`` or ``batch_size`` is out of range.
    """
    return _kind(name)(seed=seed, batch_size=batch_size)


def image_shape(name: str) -> tuple[int, int, int]:
    """Return height, width and channels of a data set's images without opening it.

    Raises
    ------
    DataError
        When the name is unknown.
    """
    return _kind(name).image_shape
