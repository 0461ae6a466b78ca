"""Make the embedded digits from the test set of "Optical Recognition of Handwritten Digits".

Rule: the last 30 images of each class are the test set, the others the training set, both in the order of the original
file. The bytes written depend on the source file and the zlib library alone.

Run ``python -m spiral_core.data.make_digits --source FILE``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from spiral_core.arrays import AnyArray
from spiral_core.data.digits import ARCHIVE, DigitsDataset
from spiral_core.data.embedded import archive_bytes
from spiral_core.errors import DataError

IMAGES: Final = 1797
SIDE: Final = 8
TEST_PER_CLASS: Final = 30


def read_digits(path: Path) -> AnyArray:
    """Read the original file, ``optdigits.tes``, plain or gzipped (then its name ends in .gz).

    Returns
    -------
    (1797, 65) int64
        64 pixels from 0 to 16, then the digit.

    Raises
    ------
    DataError
        When the file is missing or is not that.
    """
    try:
        rows = np.loadtxt(path, delimiter=",", dtype=np.int64, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}; --source must be optdigits.tes, as it is or as .gz") from error
    sound = rows.shape == (IMAGES, SIDE * SIDE + 1) and rows.min() >= 0
    if not (sound and rows[:, :-1].max() <= DigitsDataset.white and rows[:, -1].max() <= 9):
        raise DataError(f"{path} is not optdigits.tes: 1,797 lines of 64 pixels from 0 to 16 and a digit are expected")
    return rows


def digits_archive(source: Path) -> bytes:
    """Build the .npz file as bytes.

    Parameters
    ----------
    source : Path
        The original file.

    Returns
    -------
    bytes
        Arrays ``train_images`` (1497, 8, 8), ``train_labels`` (1497,), ``test_images`` (300, 8, 8) and ``test_labels``
        (300,), all uint8.

    Raises
    ------
    DataError
        When the file is missing or is not that.
    """
    rows = read_digits(source)
    labels = rows[:, -1]
    held_out = np.concatenate([np.flatnonzero(labels == digit)[-TEST_PER_CLASS:] for digit in range(10)])
    is_test = np.zeros(len(rows), dtype=bool)
    is_test[held_out] = True
    arrays = {}
    for part, chosen in (("train", ~is_test), ("test", is_test)):
        arrays[f"{part}_images"] = rows[chosen, :-1].reshape(-1, SIDE, SIDE).astype(np.uint8)
        arrays[f"{part}_labels"] = labels[chosen].astype(np.uint8)
    return archive_bytes(arrays)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m spiral_core.data.make_digits",
        description="Make the embedded digits: 1,497 training images and the last 30 of each class as test images.",
    )
    parser.add_argument("--source", type=Path, required=True, help="the original optdigits.tes, or it gzipped")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).with_name(ARCHIVE.name), help="file to write (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        content = digits_archive(options.source)
        options.out.write_bytes(content)
    except (DataError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{options.out}: {ARCHIVE.verdict(content)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
