"""Prepared mixtures: what is read again, parts of them, new mixtures of their sources."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.tasks.speech.split import MixtureSplit, write_split

LENGTHS = (30, 50, 40)
SPEAKERS = (("a", "b"), ("b", "c"), ("c", "a"))


def waves(lengths: tuple[int, ...] = LENGTHS) -> list[np.ndarray]:
    """Every value tells its mixture, its row and its place; the first row is not the sum, so that it is told apart."""
    return [
        np.stack([(1000 * n + 100 * row + np.arange(length)) / 2**15 for row in range(3)]).astype(np.float32)
        for n, length in enumerate(lengths)
    ]


def split(tmp_path: Path, exact: bool = True, speakers=SPEAKERS, lengths=LENGTHS) -> MixtureSplit:
    write_split(tmp_path, "train", waves(lengths), lengths, 2, exact, speakers)
    return MixtureSplit(tmp_path, "train")


@pytest.mark.parametrize("exact", [True, False])
def test_every_recording_alone_is_whole(tmp_path: Path, exact: bool) -> None:
    found = split(tmp_path, exact)
    assert len(found) == 3
    assert found.one_by_one
    for n, wave in enumerate(waves()):
        batch = found.batch(torch.tensor([n]))
        np.testing.assert_array_equal(batch.inputs[0][0], wave[0])
        np.testing.assert_array_equal(batch.target[0], wave[1:])


def test_a_batch_of_different_lengths_is_as_long_as_its_shortest(tmp_path: Path) -> None:
    batch = split(tmp_path).batch(torch.tensor([2, 1]))
    assert batch.inputs[0].shape == (2, 40)
    np.testing.assert_array_equal(batch.target[1], waves()[1][1:, :40])


def test_equal_lengths_share_batches(tmp_path: Path) -> None:
    found = split(tmp_path, lengths=(20, 20, 20))
    assert not found.one_by_one
    np.testing.assert_array_equal(found.batch(torch.tensor([2, 0])).inputs[0][1], waves((20, 20, 20))[0][0])


def test_parts_are_cut_at_one_place_of_mixture_and_sources(tmp_path: Path) -> None:
    found = split(tmp_path)
    begins = set()
    for epoch in range(90):
        batch = found.parts(torch.tensor([1, 0]), 40, seed=3, epoch=epoch)
        begin = round(float(batch.inputs[0][0, 0]) * 2**15) - 1000
        begins.add(begin)
        np.testing.assert_array_equal(batch.inputs[0][0], waves()[1][0, begin : begin + 40])
        np.testing.assert_array_equal(batch.target[0], waves()[1][1:, begin : begin + 40])
        # a recording that is too short is whole, and zeros follow
        np.testing.assert_array_equal(batch.target[1, :, :30], waves()[0][1:])
        assert (batch.target[1, :, 30:] == 0).all()
    assert begins == set(range(11))
    again = found.parts(torch.tensor([0, 1]), 40, seed=3, epoch=89)
    assert torch.equal(again.target[1], batch.target[0])


def test_new_mixtures_are_sums_of_different_speakers(tmp_path: Path) -> None:
    found = split(tmp_path)
    pairs = set()
    for epoch in range(30):
        batch = found.new_mixtures(torch.arange(3), 20, seed=0, epoch=epoch)
        torch.testing.assert_close(batch.inputs[0], batch.target.sum(1))
        for sources in batch.target:
            steps = [round(float(wave[0]) * 2**15) for wave in sources]
            rows = [(step // 1000, step % 1000 // 100 - 1) for step in steps]
            names = [SPEAKERS[row][source] for row, source in rows]
            assert len(set(names)) == 2
            pairs.add(tuple(rows))
    assert len(pairs) > 15  # of the 24 that are possible
    again = found.new_mixtures(torch.tensor([2]), 20, seed=0, epoch=29)
    assert torch.equal(again.target[0], batch.target[2])
    assert not torch.equal(found.new_mixtures(torch.tensor([2]), 20, seed=1, epoch=29).target, again.target)


def test_dynamic_mixing_needs_enough_known_speakers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.dynamic_mixing needs the speakers"):
        split(tmp_path, speakers=(*SPEAKERS[:2], None)).new_mixtures(torch.arange(1), 20, 0, 1)
    with pytest.raises(UserError, match="fewer than 2 speakers"):
        split(tmp_path, speakers=(("a", "a"),) * 3).new_mixtures(torch.arange(1), 20, 0, 1)


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train\.npy is missing; run the stage prepare first"):
        MixtureSplit(tmp_path, "train")
    split(tmp_path)
    path = tmp_path / "train.npy"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"train\.npy is damaged; run the stage prepare again"):
        MixtureSplit(tmp_path, "train")
    np.save(path, np.zeros(5, np.int16))
    with pytest.raises(UserError, match="does not hold 3 mixtures"):
        MixtureSplit(tmp_path, "train")
