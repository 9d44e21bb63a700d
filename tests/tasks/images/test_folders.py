"""Images in folders by class: labels from the sorted names, the order of rows, and what is refused."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ocd_core.artifacts import read_json, write_json
from ocd_core.errors import UserError
from ocd_core.tasks.images.folders import read_folders
from ocd_core.tasks.images.sources import Pictures, Shape
from tests.support.pictures import decoded, picture, png

SHAPE = Shape(1, 4, 6)
PARTS = {"train": ["train"], "test": ["test"]}


def add(root: Path, name: str, row: int, kind: str = "PNG") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(picture(row), kind))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, whose names sort differently from their files' order of creation; hidden files beside them."""
    for row, name in enumerate(("train/zebra/b.png", "train/ape/x.png", "train/zebra/a.png", "train/ape/a.bmp")):
        add(tmp_path, name, row, name[-3:].upper())
    add(tmp_path, "test/zebra/q.png", 9)
    (tmp_path / "train" / ".DS_Store").write_text("x")
    (tmp_path / "train" / "ape" / ".hidden").write_text("x")
    return tmp_path


def read(folder: Path, parts: Mapping[str, Sequence[str]] = PARTS, classes: int = 2) -> dict[str, Pictures]:
    return decoded(read_folders(folder, parts, SHAPE, classes)[0])


def refusal(folder: Path, parts: Mapping[str, Sequence[str]] = PARTS, classes: int = 2) -> str:
    with pytest.raises(UserError) as error:
        read(folder, parts, classes)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_sorted_names_are_the_labels_and_rows_are_sorted_by_class_and_path(folder: Path) -> None:
    parts, names = read(folder), read_folders(folder, PARTS, SHAPE, 2)[1]
    assert names == ["ape", "zebra"]
    assert parts["train"].label_N.tolist() == [0, 0, 1, 1]
    assert parts["train"].label_N.dtype == torch.int64
    wanted = [picture(row) for row in (3, 1, 2, 0)]
    np.testing.assert_array_equal(parts["train"].image_NCHW.numpy()[:, 0], wanted)
    assert parts["test"].label_N.tolist() == [1]  # a part may lack a class of train
    np.testing.assert_array_equal(parts["test"].image_NCHW.numpy()[0, 0], picture(9))


def test_several_folders_are_one_part(folder: Path) -> None:
    add(folder, "more/ape/z.png", 20)
    parts = read(folder, {"train": ["train", "more"], "test": ["test"]})
    assert parts["train"].label_N.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(parts["train"].image_NCHW.numpy()[2, 0], picture(20))


LONGEST = 255  # bytes, on most file systems


@pytest.mark.parametrize(
    "name",
    ["ü" * 127 + "x", "好" * 85, "<b>&\"'`| *", "line\nbreak\x1b[31m", "\u202eevil", os.fsdecode(b"caf\xe9")],
    ids=["two bytes each", "three bytes each", "signs", "control", "right to left", "no UTF-8"],
)
def test_names_as_people_have_them(folder: Path, name: str) -> None:
    """Of classes and of images: the labels follow the names' order, which a file keeps."""
    add(folder, f"train/{name}/{'ß' * 125 + '1.png'}", 20)
    parts, names = read_folders(folder, PARTS, SHAPE, 3)
    assert max(len(os.fsencode(part)) for path in folder.rglob("*") for part in path.parts) <= LONGEST
    assert names == sorted(["ape", "zebra", name])
    row = decoded(parts)["train"].label_N.tolist().index(names.index(name))
    np.testing.assert_array_equal(decoded(parts)["train"].image_NCHW.numpy()[row, 0], picture(20))
    write_json(folder / "classes.json", names)
    assert read_json(folder / "classes.json") == names


def test_an_unreadable_image_is_named(folder: Path) -> None:
    (folder / "test" / "zebra" / "q.png").write_bytes(b"not an image")
    assert refusal(folder) == f"{folder}/test/zebra/q.png: the image cannot be decoded: UnidentifiedImageError"
    (folder / "test" / "zebra" / "q.png").write_bytes(png(picture(1, size=(5, 6))))
    assert f"{folder}/test/zebra/q.png: an image of 5x6 pixels, but data.height" in refusal(folder)


def test_an_empty_class_is_named(folder: Path) -> None:
    (folder / "train" / "cow").mkdir()
    (folder / "train" / "cow" / ".keep").write_text("")
    assert f"{folder}/train/cow holds no images; add some, or remove the folder" in refusal(folder)


def test_a_class_that_train_has_not_is_named(folder: Path) -> None:
    add(folder, "test/cow/c.png", 30)
    assert "the test part has the class 'cow', which the train part has not" in refusal(folder)


def test_another_number_of_classes(folder: Path) -> None:
    assert "the train part has 2 classes (ape, zebra); set data.classes to that number" in refusal(folder, classes=3)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": ["nope"]}, "data.train_files: {folder}/nope does not exist or is not a folder"),
        ({"train": ["../x"]}, "data.train_files: '../x' must be the name of a folder inside data.path"),
        ({"train": ["empty"]}, "data.train_files (empty): no folders of classes in {folder}"),
        ({"train": ["train"], "test": ["train"]}, "both name train/ape/a.bmp"),
    ],
)
def test_folders_that_are_no_parts(folder: Path, parts: dict[str, list[str]], message: str) -> None:
    (folder / "empty").mkdir()
    assert message.format(folder=folder) in refusal(folder, parts)


def test_a_link_to_a_training_image_is_not_a_test_image(folder: Path) -> None:
    os.link(folder / "train" / "ape" / "x.png", folder / "test" / "zebra" / "r.png")
    assert "train/ape/x.png and test/zebra/r.png, one file" in refusal(folder)


def test_what_is_not_in_a_class_is_not_left_out_silently(folder: Path) -> None:
    stray = add(folder, "train/stray.png", 40)
    assert refusal(folder) == f"{stray} is not in the folder of a class; move it or remove it"
    stray.unlink()
    add(folder, "train/ape/nested/deep.png", 41)
    assert refusal(folder) == f"{folder}/train/ape/nested does not exist or is not a file"
