"""Data that is given in Python, and the files that it is kept in."""

import os
import signal

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, get_worker_info

from ocd_core.calls.data import Parts, Source, StoredSplit, refuse_nan, restored, write_split
from ocd_core.errors import UserError


class Augmented(Dataset):
    """Rows that differ each time."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, i: int):
        return torch.rand(3), i


def test_tensors_keep_their_form() -> None:
    one, two = torch.zeros(2, 3), np.ones((2, 1))
    for value in (one, (one, two), {"a": one, "b": two}):
        parts = Parts.of(value, "x")
        assert all(t.dtype == torch.float32 for t in parts.tensors)
        again = parts.restored(parts.tensors)
        assert type(again) is type(value)
    assert list(restored((one, one), ("a", "b"), False)) == ["a", "b"]
    with pytest.raises(UserError, match="x: a str is not a tensor"):
        Parts.of("text", "x")


@pytest.mark.parametrize("size", [1, 4, 300])
def test_what_is_written_is_read_again_in_any_order(tmp_path, size, monkeypatch) -> None:
    monkeypatch.setattr("ocd_core.calls.data._BATCH", size)
    x, y = torch.randn(9, 2, 3), (torch.arange(9), torch.rand(9, 1))
    source = Source.of(((x, x[:, 0]), y), "train")
    write_split(source, tmp_path / "train")
    split = StoredSplit(tmp_path / "train")
    ids = torch.tensor([8, 0, 0, 3])
    batch = split.batch(ids)
    assert len(split) == 9
    assert torch.equal(batch.inputs[0], x[ids])
    assert torch.equal(batch.inputs[1], x[ids, 0])
    assert torch.equal(batch.target[0], y[0][ids])
    assert torch.equal(batch.target[1], y[1][ids])


class Killed(Augmented):
    """Its reader ends as if memory had run out."""

    def __getitem__(self, row: int):
        if get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(row)


def test_a_worker_of_a_loader_that_is_killed_is_one_line() -> None:
    source = Source.of(DataLoader(Killed(), num_workers=1), "train")
    with pytest.raises(
        UserError, match=r"^train: a worker process of the DataLoader ended .*--shm-size.*fewer workers"
    ) as refused:
        list(source.batches())
    assert "\n" not in str(refused.value)


def test_random_rows_are_kept_as_they_were_first_read_and_are_no_other_data_next_time(tmp_path) -> None:
    source = Source.of(Augmented(), "train")
    write_split(source, tmp_path / "train")
    split = StoredSplit(tmp_path / "train")
    ids = torch.arange(5)
    assert torch.equal(split.batch(ids).inputs[0], split.batch(ids).inputs[0])
    assert source.digest() == Source.of(Augmented(), "train").digest()
    steady = [Source.of([(torch.full((2,), float(v)), 0) for v in values], "train") for values in ((1, 2), (1, 3))]
    assert steady[0].digest() != steady[1].digest()


def test_numbers_that_are_none_are_named_by_their_row(tmp_path) -> None:
    x = torch.zeros(300, 2)
    x[299, 1] = torch.inf
    with pytest.raises(UserError, match="val: row 299 holds NaN or infinite numbers"):
        write_split(Source.of((x, torch.zeros(300)), "val"), tmp_path / "val")
    refuse_nan(np.array([1, 2]), "val", range(2))


def test_labels_that_are_no_classes_are_named_by_their_row(tmp_path) -> None:
    y = torch.arange(300) % 10
    write_split(Source.of((torch.zeros(300, 2), y), "val"), tmp_path / "any")
    write_split(Source.of((torch.zeros(300, 2), y), "val"), tmp_path / "val", 10)
    for bad in (10, -100):
        y[290] = bad
        with pytest.raises(UserError, match=f"val: row 290 has the label {bad}, .* labels are 0 to 9; number them"):
            write_split(Source.of((torch.zeros(300, 2), y), "val"), tmp_path / f"bad {bad}", 10)


def only_even(items):
    return torch.utils.data.default_collate([item for item in items if item[1] % 2 == 0])


def test_few_rows_of_tensors_and_of_a_dataset_are_the_same() -> None:
    x, y = torch.randn(9, 2), torch.arange(9)
    rows = torch.tensor([7, 0, 3])
    for source in (Source.of((x, y), "train"), Source.of(TensorDataset(x, y), "train")):
        inputs, target = source.rows(rows)
        assert torch.equal(inputs.tensors[0], x[rows])
        assert target.tensors[0].tolist() == [7, 0, 3]


def test_a_collate_fn_that_drops_rows_is_refused(tmp_path) -> None:
    rows = [(torch.zeros(2), i) for i in range(10)]
    source = Source.of(DataLoader(rows, collate_fn=only_even), "train")
    with pytest.raises(UserError, match="train: the collate_fn made 5 samples of the 10 rows from 0 on"):
        write_split(source, tmp_path / "train")
    with pytest.raises(UserError, match="made 2 samples of the 4 rows from 0 on"):
        next(source.batches(4))


class Late(Dataset):
    """Row 256, the first of the second batch, is another item than the others."""

    def __init__(self, usual, late) -> None:
        self.usual, self.late = usual, late

    def __len__(self) -> int:
        return 257

    def __getitem__(self, i: int):
        return self.late if i == 256 else self.usual


X = torch.zeros(2)


@pytest.mark.parametrize(
    ("usual", "late", "words"),
    [
        ((X, 1), (X, 0.5), "from row 256 on are float32, which int64, the dtype of earlier ones, cannot hold"),
        ((X, torch.tensor(1, dtype=torch.int8)), (X, 300), "from row 256 on are int64, which int8"),
        ((X, 0.5), (X, 2**24 + 1), "from row 256 on are int64, which float32"),
        ((X, 1), (X, X, 1), "batch from row 256 on has other tensors"),
        ({"a": X, "b": X, "label": 1}, {"b": X, "a": X, "label": 1}, "other tensors, or other names"),
    ],
)
def test_a_batch_unlike_those_before_it_is_refused(tmp_path, usual, late, words) -> None:
    with pytest.raises(UserError, match=f"train: .*{words}"):
        write_split(Source.of(Late(usual, late), "train"), tmp_path / "train")


def test_another_dtype_that_changes_nothing_is_taken(tmp_path) -> None:
    late = (X, torch.tensor(3, dtype=torch.int32))
    write_split(Source.of(Late((X, 1), late), "train"), tmp_path / "train")
    assert StoredSplit(tmp_path / "train").batch(torch.tensor([0, 256])).target.tolist() == [1, 3]
