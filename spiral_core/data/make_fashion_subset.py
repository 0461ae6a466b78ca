"""Make the embedded Fashion-MNIST subset from the four original IDX files.

Rule: the first 200 images of each class of the training set and the first 50 of each class of the test set, kept in
the order of the original files. The bytes written depend on the source files and the zlib library alone.

Run ``python -m spiral_core.data.make_fashion_subset --source DIR``.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from spiral_core.arrays import U8
from spiral_core.data.embedded import archive_bytes
from spiral_core.data.fashion import ARCHIVE
from spiral_core.errors import DataError

TRAIN_PER_CLASS: Final = 200
TEST_PER_CLASS: Final = 50
CLASSES: Final = 10

_UBYTE_CODE: Final = 0x08
"""Third byte of an IDX file that holds unsigned bytes; the fourth is the number of axes."""

_FILES: Final = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", TRAIN_PER_CLASS),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", TEST_PER_CLASS),
}


def read_idx(path: Path) -> U8:
    """Read a gzipped IDX file of unsigned bytes.

    Parameters
    ----------
    path : Path
        Four-byte magic, one big-endian uint32 per axis, then the values in C order.

    Returns
    -------
    uint8 array
        Shape as the file says.

    Raises
    ------
    DataError
        When the file is missing, no gzip, no IDX of unsigned bytes, or shorter or longer than its header says.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}: {error}; --source must hold the original .gz files") from error
    if len(content) < 4 or content[:3] != bytes([0, 0, _UBYTE_CODE]):
        raise DataError(f"{path} is no IDX file of unsigned bytes; --source must hold the original .gz files")
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    size = 1
    for length in shape:
        size *= length
    if len(content) != start + size:
        raise DataError(f"{path} holds {len(content)} bytes where its header tells of {start + size}; fetch it again")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def first_of_each_class(labels: U8, per_class: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Return the sorted positions of the first ``per_class`` members of each class 0 to 9.

    Raises
    ------
    DataError
        When a class has fewer members.
    """
    chosen = []
    for label in range(CLASSES):
        members = np.flatnonzero(labels == label)[:per_class]
        if members.size < per_class:
            raise DataError(f"class {label} has {members.size} images, {per_class} are needed; is --source complete?")
        chosen.append(members)
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def subset_archive(source: Path) -> bytes:
    """Build the .npz file as bytes.

    Parameters
    ----------
    source : Path
        Folder with the four original .gz files.

    Returns
    -------
    bytes
        Arrays ``train_images`` (2000, 28, 28), ``train_labels`` (2000,), ``test_images`` (500, 28, 28) and
        ``test_labels`` (500,), all uint8.

    Raises
    ------
    DataError
        When a file is missing, damaged or too small.
    """
    arrays = {}
    for part, (image_file, label_file, per_class) in _FILES.items():
        images, labels = read_idx(source / image_file), read_idx(source / label_file)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataError(f"{image_file} and {label_file} do not belong together; --source must hold the originals")
        chosen = first_of_each_class(labels, per_class)
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images[chosen], labels[chosen]
    return archive_bytes(arrays)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m spiral_core.data.make_fashion_subset",
        description="Make the embedded Fashion-MNIST subset: the first 200 training and 50 test images of each class.",
    )
    parser.add_argument("--source", type=Path, required=True, help="folder with the four original IDX .gz files")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name(ARCHIVE.name), help="file to write (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        content = subset_archive(options.source)
        options.out.write_bytes(content)
    except (DataError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{options.out}: {ARCHIVE.verdict(content)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
