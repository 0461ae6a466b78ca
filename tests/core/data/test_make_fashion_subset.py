from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from spiral_core.arrays import U8
from spiral_core.data.make_fashion_subset import first_of_each_class, main, read_idx, subset_archive
from spiral_core.errors import DataError


def idx_bytes(values: U8) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return gzip.compress(header + values.tobytes(), mtime=0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for prefix, count in (("train", 2100), ("t10k", 520)):
        labels = np.repeat(np.arange(10, dtype=np.uint8), count // 10)
        generator.shuffle(labels)
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        images[:, 0, 0] = labels
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx_bytes(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx_bytes(labels))
    return tmp_path


def test_the_subset_takes_the_first_of_each_class_and_keeps_images_with_labels(source: Path) -> None:
    with np.load(io.BytesIO(subset_archive(source)), allow_pickle=False) as stored:
        for part, per_class in (("train", 200), ("test", 50)):
            images, labels = stored[f"{part}_images"], stored[f"{part}_labels"]
            assert np.bincount(labels).tolist() == [per_class] * 10
            assert (images[:, 0, 0] == labels).all()
    whole = read_idx(source / "train-labels-idx1-ubyte.gz")
    assert (first_of_each_class(whole, 3)[:1] == 0).all()


def test_the_same_source_gives_the_same_bytes(source: Path) -> None:
    assert subset_archive(source) == subset_archive(source)


def test_the_command_writes_the_file_and_says_its_digest(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.npz"
    assert main(["--source", str(source), "--out", str(target)]) == 0
    assert target.read_bytes() == subset_archive(source)
    assert "NOT as embedded" in capsys.readouterr().out


def test_a_missing_source_is_reported_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--source", str(tmp_path / "none"), "--out", str(tmp_path / "x")]) == 1
    assert "must hold the original .gz files" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    [
        b"no gzip",
        *(gzip.compress(held, mtime=0) for held in (b"\0\0", b"\0\0\x09\1\0\0\0\0", b"\0\0\x08\1\0\0\0\5abc")),
    ],
    ids=["no gzip", "no header", "another type", "too short"],
)
def test_a_file_that_is_no_byte_idx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.gz"):
        read_idx(path)


def test_too_few_images_of_a_class_are_refused() -> None:
    with pytest.raises(DataError, match="class 0 has 1 images, 2 are needed"):
        first_of_each_class(np.zeros(1, dtype=np.uint8), 2)
