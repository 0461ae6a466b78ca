"""What the embedded data sets share: a checked file inside the package, and batches of its images."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import ClassVar, Final

import numpy as np

from spiral_core.arrays import F32, I64, U8
from spiral_core.data.batch import Batch
from spiral_core.data.steering import SteeredDataset
from spiral_core.data.streams import Purpose, derived_generator
from spiral_core.errors import ArgumentError, DataError

_ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip entry can hold; a fixed one keeps the bytes the same from day to day."""


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedArrays:
    """Embedded images as stored; every array is read-only.

    Parameters
    ----------
    train_images, test_images : (N, H, W) and (M, H, W) uint8
        0 is background.
    train_labels, test_labels : (N,) and (M,) int64
        Class indices.
    """

    train_images: U8
    train_labels: I64
    test_images: U8
    test_labels: I64


@dataclass(frozen=True, slots=True)
class Archive:
    """An embedded file: its name beside this module, the digest of what was released, and the module that makes it."""

    name: str
    sha256: str
    maker: str

    def parse(self, content: bytes) -> EmbeddedArrays:
        """Check the bytes of the file against the digest and unpack them.

        Raises
        ------
        DataError
            When a single bit differs from the file that was released.
        """
        # The digest comes first, so that no parser ever sees bytes that we did not write.
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise DataError(
                f"the embedded data file {self.name} is damaged (its SHA-256 digest differs); reinstall the package, "
                f"or make the file again with `python -m {self.maker}`"
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = EmbeddedArrays(
                train_images=stored["train_images"],
                train_labels=stored["train_labels"].astype(np.int64),
                test_images=stored["test_images"],
                test_labels=stored["test_labels"].astype(np.int64),
            )
        for values in (arrays.train_images, arrays.train_labels, arrays.test_images, arrays.test_labels):
            values.setflags(write=False)
        return arrays

    def load(self) -> EmbeddedArrays:
        """Read the file, once per process.

        Raises
        ------
        DataError
            When it is missing or damaged.
        """
        return _load(self)

    def verdict(self, content: bytes) -> str:
        """Tell whoever has made the file anew whether it is the one that was released."""
        digest = hashlib.sha256(content).hexdigest()
        known = "as embedded" if digest == self.sha256 else "NOT as embedded: set the digest of the archive to it"
        return f"{len(content)} bytes, SHA-256 {digest} ({known})"


@cache
def _load(archive: Archive) -> EmbeddedArrays:
    try:
        content = resources.files("spiral_core.data").joinpath(archive.name).read_bytes()
    except OSError as error:
        raise DataError(f"the embedded data file {archive.name} is missing; reinstall the package") from error
    return archive.parse(content)


def archive_bytes(arrays: Mapping[str, U8]) -> bytes:
    """Pack arrays as an .npz file whose bytes depend on them and the zlib library alone."""
    # numpy.savez stamps no usable date but leaves platform flags open; writing the zip here fixes every byte.
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, values in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            content = io.BytesIO()
            np.lib.format.write_array(content, values, version=(1, 0), allow_pickle=False)
            archive.writestr(entry, content.getvalue())
    return target.getvalue()


class EmbeddedDataset(SteeredDataset):
    """The images of an embedded file as a data set for training; a subclass names the file.

    Parameters
    ----------
    seed : int
        Seed of the run, >= 0; decides the order of the images.
    batch_size : int
        Images per batch, from 1 to the number of training images.

    Raises
    ------
    ArgumentError
        When an argument is out of its range.
    DataError
        When the embedded file is missing or damaged.

    Notes
    -----
    Each epoch is a fresh permutation of the training images; the last partial batch is dropped. Batch k belongs to
    epoch ``k // batches_per_epoch`` until the batch size is changed, and needs no batch before it.
    """

    name: ClassVar[str]
    image_shape: ClassVar[tuple[int, int, int]]
    class_names: ClassVar[tuple[str, ...]]
    archive: ClassVar[Archive]
    white: ClassVar[float]
    """Stored value of a full pixel."""
    mean: ClassVar[float]
    std: ClassVar[float]
    """Mean and standard deviation of the training images after division by ``white``; test images use the same two."""

    def __init__(self, *, seed: int, batch_size: int) -> None:
        self._arrays = self.archive.load()
        self.largest_batch = len(self._arrays.train_labels)
        self._epoch = -1
        self._in_order: I64 = np.arange(self.largest_batch, dtype=np.int64)
        self._order: I64 = self._in_order.copy()
        super().__init__(seed=seed, batch_size=batch_size)

    @property
    def batches_per_epoch(self) -> int | None:
        """Batches in one pass over the training images."""
        return self.report_batches

    def _checked_size(self, batch_size: int) -> int:
        size = super()._checked_size(batch_size)
        if size > self.largest_batch:
            raise ArgumentError(f"batch_size must be at most {self.largest_batch}, the number of images, got {size}")
        return size

    def _fit(self, batch_size: int) -> int:
        self._taken: U8 = np.empty((batch_size, *self._arrays.train_images.shape[1:]), np.uint8)
        return self.largest_batch // batch_size

    @classmethod
    def standardize(cls, images: U8, out: F32 | None = None) -> F32:
        """Turn (N, H, W) bytes into (N, H, W, 1) float32 of mean 0 and standard deviation 1 over the training set."""
        scaled = np.empty((*images.shape, 1), np.float32) if out is None else out
        scaled[...] = images[..., None]
        scaled *= np.float32(1.0 / (cls.white * cls.std))
        scaled -= np.float32(cls.mean / cls.std)
        return scaled

    def _vary(self, images: U8, index: int) -> U8:
        """Change the images of training batch ``index`` at random, where a subclass wants that."""
        del index
        return images

    def train_batch(self, index: int, into: Batch | None = None) -> Batch:
        """Return training batch ``index``; the same index gives the same bits, in any order of calls."""
        epoch, place = self.place(index)
        if epoch != self._epoch:
            generator = derived_generator(self.seed, Purpose.BATCHES, epoch)
            np.copyto(self._order, self._in_order)
            generator.shuffle(self._order)
            self._epoch = epoch
        chosen = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        # Every index is in range; told to raise for others, NumPy would take the images into a buffer of its own first.
        images = np.take(self._arrays.train_images, chosen, axis=0, out=self._taken, mode="clip")
        images = self._vary(images, index)
        if into is None:
            return Batch(self.standardize(images), self._arrays.train_labels[chosen])
        self.standardize(images, into.images)
        into.labels[...] = self._arrays.train_labels[chosen]
        return into

    def test_batches(self) -> Iterator[Batch]:
        """Yield all held-out images in batches of ``batch_size``, the last one possibly smaller."""
        return self._held_out_images().split(self.batch_size)

    def probe(self, n: int = 8) -> Batch:
        """Return ``n`` fixed held-out images, at most all of them, going through the classes in turn."""
        return self._held_out_images().one_per_class(n)

    def _held_out_images(self) -> Batch:
        return Batch(self.standardize(self._arrays.test_images), self._arrays.test_labels)
