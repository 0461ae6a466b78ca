from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

import spiral_core.data
from spiral_core.data.digits import ARCHIVE, DigitsDataset
from spiral_core.data.make_digits import digits_archive, main
from spiral_core.errors import ArgumentError, DataError

FOLDER = Path(spiral_core.data.__file__).parent


def original() -> str:
    """Give the lines of the original file again, from the embedded one: the test images of a class come last."""
    arrays = ARCHIVE.load()
    images = np.concatenate([arrays.train_images, arrays.test_images]).reshape(-1, 64)
    labels = np.concatenate([arrays.train_labels, arrays.test_labels])
    rows = [[*map(int, image), int(label)] for image, label in zip(images, labels, strict=True)]
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def test_the_embedded_digits_are_small_and_hold_out_thirty_of_each() -> None:
    arrays = ARCHIVE.load()
    assert arrays.train_images.shape == (1497, 8, 8)
    assert np.bincount(arrays.test_labels).tolist() == [30] * 10
    assert arrays.train_images.max() == 16
    assert (FOLDER / ARCHIVE.name).stat().st_size < 50_000
    train = {image.tobytes() for image in arrays.train_images}
    assert not any(image.tobytes() in train for image in arrays.test_images)


def test_the_stored_constants_standardize_the_training_images() -> None:
    images = DigitsDataset.standardize(ARCHIVE.load().train_images)
    assert images.shape == (1497, 8, 8, 1)
    assert abs(float(images.mean(dtype=np.float64))) < 1e-3
    assert abs(float(images.std(dtype=np.float64)) - 1.0) < 1e-3


def test_the_notice_names_the_source_the_terms_and_the_changes() -> None:
    notice = (FOLDER / "NOTICE-digits").read_text()
    for words in ("Alpaydin", "10.24432/C50P49", "Creative Commons Attribution 4.0", "Changes:"):
        assert words in notice


def test_a_batch_larger_than_the_set_is_refused() -> None:
    with pytest.raises(ArgumentError, match="at most 1497"):
        DigitsDataset(seed=0, batch_size=1498)


@pytest.mark.parametrize("packed", [False, True])
def test_the_script_makes_the_embedded_images_from_the_original_file(tmp_path: Path, packed: bool) -> None:
    text = original().encode()
    source = tmp_path / ("optdigits.tes.gz" if packed else "optdigits.tes")
    source.write_bytes(gzip.compress(text) if packed else text)
    content = digits_archive(source)
    # Its rows are those of the embedded file in their order, so the result is the embedded file itself.
    assert content == (FOLDER / ARCHIVE.name).read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        assert sorted(stored) == ["test_images", "test_labels", "train_images", "train_labels"]


def test_the_command_says_whether_the_file_is_the_one_that_was_released(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "optdigits.tes", tmp_path / "out.npz"
    source.write_text(original())
    assert main(["--source", str(source), "--out", str(target)]) == 0
    assert "(as embedded)" in capsys.readouterr().out
    assert target.read_bytes() == (FOLDER / ARCHIVE.name).read_bytes()


@pytest.mark.parametrize("spoil", [lambda text: text[:4000], lambda text: "99" + text[1:], lambda text: "x" + text])
def test_another_file_is_refused_in_one_line(tmp_path: Path, spoil: object, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "optdigits.tes"
    source.write_text(spoil(original()))  # type: ignore[operator]
    with pytest.raises(DataError, match=r"optdigits\.tes"):
        digits_archive(source)
    assert main(["--source", str(source), "--out", str(tmp_path / "x")]) == 1
    assert "optdigits.tes" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
