"""Images stored as pixels or encoded give the same batches and the same store; what is damaged is refused."""

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.overfit.rows import RowBuilder
from ocd_core.samples import SPLITS
from ocd_core.tasks.images.sources import Pictures
from ocd_core.tasks.images.splits import ReadAhead, write_split
from ocd_core.tasks.images.task import ImageClassification
from tests.support.pictures import picture, png, write_parquet
from tests.tasks.images.test_task import image_data


def task(folder: Path, storage: str) -> ImageClassification:
    return ImageClassification(image_data(path=str(folder), storage=storage, mean=[0.4], std=[0.3]), "mlp", {})


@pytest.fixture
def prepared(tmp_path: Path) -> dict[str, ImageClassification]:
    """Both ways of storing 40 training and 7 test pictures, in `pixels/` and `encoded/`."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, rows in (("train", range(40)), ("test", range(100, 107))):
        kinds = ["PNG", "JPEG"]
        encoded = [png(picture(row, size=(4, 6)), kinds[row % 2]) for row in rows]
        write_parquet(raw / f"{name}.parquet", encoded, [row % 3 for row in rows])
    tasks = {storage: task(raw, storage) for storage in ("pixels", "encoded")}
    summaries = {name: one.prepare(tmp_path / name) for name, one in tasks.items()}
    assert summaries["pixels"] == summaries["encoded"]
    return tasks


def test_both_storages_give_the_same_batches_in_any_order(
    prepared: dict[str, ImageClassification], tmp_path: Path
) -> None:
    for name in SPLITS:
        pixels, encoded = (one.open(tmp_path / storage, name) for storage, one in prepared.items())
        assert len(pixels) == len(encoded)
        orders = [torch.arange(len(pixels)), torch.tensor([2, 0, 2]), torch.tensor([1]), torch.tensor([2]),
                  torch.tensor([], dtype=torch.int64), *torch.arange(len(pixels)).split(2)]  # fmt: skip
        for rows in orders:
            one, other = pixels.batch(rows), encoded.batch(rows)
            assert torch.equal(one.inputs[0], other.inputs[0])
            assert torch.equal(one.target, other.target)
            assert torch.equal(one.sample_id, other.sample_id)


def test_the_bar_is_full_at_the_end_also_of_images_that_were_decoded_before(tmp_path: Path, capsys) -> None:
    source = Pictures(torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64))
    data = image_data(channels=1, height=2, width=2)
    write_split(source, torch.tensor([4, 0, 2]), tmp_path, "val", data)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("decode val")
    assert "3/3" in line


def test_encoded_images_are_the_sources_own_bytes(prepared: dict[str, ImageClassification], tmp_path: Path) -> None:
    wanted = b"".join(png(picture(row), "PNG" if row % 2 == 0 else "JPEG") for row in range(100, 107))
    assert (tmp_path / "encoded" / "test.images").read_bytes() == wanted
    assert sorted(file.name for file in (tmp_path / "encoded").iterdir()) == sorted(
        f"{name}.{kind}" for name in SPLITS for kind in ("images", "safetensors")
    )


def test_both_storages_give_the_same_store(
    prepared: dict[str, ImageClassification], tmp_path: Path, mnist5k_params: Params
) -> None:
    torch.manual_seed(0)
    cut_model = CutModel(nn.Sequential(nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)), "1")
    params = mnist5k_params.overfit.model_copy(update={"memory_mb": 1, "shard_mb": 1})
    found = []
    for storage, one in prepared.items():
        builder = RowBuilder(one, cut_model, one.open(tmp_path / storage, "train"), params, 0)
        builder.batch_rows = 5
        schema = builder.schema()
        found.append({k: v.copy() for k, v in builder.fill(slice(0, builder.rows), builder.buffers(schema)).items()})
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        np.testing.assert_array_equal(found[0][name], found[1][name], err_msg=name)


def test_a_damaged_picture_leaves_no_file(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("train", "test"):
        write_parquet(raw / f"{name}.parquet", [png(picture(row)) for row in range(9)] + [b"broken"], [0, 1] * 5)
    with pytest.raises(UserError, match="row 9: the image cannot be decoded"):
        task(raw, "encoded").prepare(tmp_path / "prepared")
    assert not [file.name for file in (tmp_path / "prepared").glob("*test*")]


def test_files_that_do_not_fit_are_refused(prepared: dict[str, ImageClassification], tmp_path: Path) -> None:
    folder = tmp_path / "encoded"
    with pytest.raises(UserError, match=r"train\.safetensors does not hold 4x6 grey images.*run the stage prepare"):
        prepared["pixels"].open(folder, "train")
    with pytest.raises(UserError, match=r"does not hold encoded 4x6 grey images.*run the stage prepare again"):
        prepared["encoded"].open(tmp_path / "pixels", "train")
    images = folder / "train.images"
    whole = images.read_bytes()
    images.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"train\.images is missing or has not the images of 36 rows; run the stage"):
        prepared["encoded"].open(folder, "train")
    images.write_bytes(b"x" * len(whole))
    split = prepared["encoded"].open(folder, "train")
    with pytest.raises(UserError, match=r"train\.images, row 3: the image cannot be decoded"):
        split.batch(torch.tensor([3]))
    images.unlink()
    with pytest.raises(UserError, match=r"train\.images is missing"):
        prepared["encoded"].open(folder, "train")


# --- reading ahead ---


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 19), max_size=6), max_size=8), st.integers(1, 7))
def test_whatever_is_read_is_what_was_asked_for(orders: list[list[int]], size: int) -> None:
    values = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    ahead = ReadAhead(lambda rows: values[rows], 20)
    for rows in [*(torch.tensor(order, dtype=torch.int64) for order in orders), *torch.arange(20).split(size)]:
        assert torch.equal(ahead(rows), values[rows])


def test_consecutive_rows_are_read_before_they_are_asked_for() -> None:
    asked: list[list[int]] = []
    done = {start: threading.Event() for start in (0, 4, 8)}

    def read(rows: Tensor) -> Tensor:
        asked.append(rows.tolist())
        if int(rows[0]) in done:
            done[int(rows[0])].set()
        return rows

    ahead = ReadAhead(read, 10)
    ahead(torch.arange(4))
    assert done[4].wait(5)  # nobody has asked for them yet
    assert torch.equal(ahead(torch.arange(4, 8)), torch.arange(4, 8))
    assert done[8].wait(5)
    assert torch.equal(ahead(torch.arange(8, 10)), torch.arange(8, 10))
    assert asked == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]  # each once, and nothing after the end
    ahead(torch.tensor([7, 3]))
    assert asked[-1] == [7, 3]


def test_an_error_reaches_who_asks_for_the_rows_and_nobody_else() -> None:
    def read(rows: Tensor) -> Tensor:
        if 5 in rows:
            raise UserError("row 5 is broken")
        return rows

    ahead = ReadAhead(read, 10)
    assert torch.equal(ahead(torch.arange(4)), torch.arange(4))
    assert torch.equal(ahead(torch.tensor([8])), torch.tensor([8]))
    ahead(torch.arange(4))
    with pytest.raises(UserError, match="row 5 is broken"):
        ahead(torch.arange(4, 8))
    assert torch.equal(ahead(torch.tensor([0])), torch.tensor([0]))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_encoded_images_are_mapped_and_not_loaded(tmp_path: Path) -> None:
    """A file of 200 MB, most of it holes, of which the first and the last row are read."""
    from ocd_core.weights import save_tensors

    small = png(picture(0))
    size = 200_000_000
    with (tmp_path / "train.images").open("wb") as file:
        file.write(small)
        file.truncate(size)
        file.seek(size - len(small))
        file.write(small)
    begin = torch.tensor(
        [0, *torch.linspace(len(small), size - len(small), 1000, dtype=torch.float64).long().tolist(), size]
    )
    label = torch.zeros(len(begin) - 1, dtype=torch.int64)
    save_tensors({"begin": begin, "label": label}, tmp_path / "train.safetensors")
    status = Path("/proc/self/status")

    def in_memory() -> int:
        return next(int(x.split()[1]) for x in status.read_text().splitlines() if x.startswith("VmRSS")) * 1024

    before = in_memory()
    split = task(tmp_path, "encoded").open(tmp_path, "train")
    x, y = (split.batch(torch.tensor([row])).inputs[0] for row in (0, len(label) - 1))
    assert torch.equal(x, y)
    assert in_memory() - before < size / 4
