"""The nearest neighbour against a plain loop."""

import numpy as np
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.rows.neighbour import _BLOCK, Neighbours
from ocd_core.samples import Batch
from ocd_core.store import OverfitStore
from tests.support.arrays import Ragged
from tests.support.runs import assert_same_outputs, moved_by_hand, row_of
from tests.support.toy import ToyData, ToyTask


class Points:
    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, sample_id: torch.Tensor) -> Batch:
        return Batch((self.x[sample_id],), torch.full((len(sample_id),), torch.nan), sample_id)


class Deltas:
    """Of sample s: a matrix of s."""

    def deltas_of_samples(self, sample_id: np.ndarray) -> np.ndarray:
        return np.broadcast_to(sample_id[:, None, None], (len(sample_id), 2, 3)).astype(np.float32)


def test_it_is_the_nearest_in_raw_x_and_brings_its_delta() -> None:
    g = torch.Generator().manual_seed(0)
    train, test = torch.randn(_BLOCK + 50, 2, 3, generator=g), torch.randn(9, 2, 3, generator=g)
    test[3] = train[_BLOCK + 7]  # beyond the first block
    task = ToyTask(ToyData(noise=0.0), "unused", {})
    neighbours = Neighbours(task, Points(train), Deltas())
    batch = Points(test).batch(torch.arange(9))
    expected = [min(range(len(train)), key=lambda i, x=x: float((train[i] - x).double().square().sum())) for x in test]
    assert neighbours.nearest(batch).tolist() == expected
    assert expected[3] == _BLOCK + 7
    np.testing.assert_array_equal(neighbours.deltas(batch)[:, 0, 0], expected)
    assert neighbours.deltas(batch).shape == (9, 2, 3)


def test_of_equally_near_ones_it_is_the_first() -> None:
    train = torch.zeros(_BLOCK + 5, 1, 1)
    neighbours = Neighbours(ToyTask(ToyData(noise=0.0), "unused", {}), Points(train), Deltas())
    assert neighbours.nearest(Points(torch.ones(2, 1, 1)).batch(torch.arange(2))).tolist() == [0, 0]


class MeanFeatures(ToyTask):
    """Of points of any number."""

    def neighbour_features(self, batch: Batch) -> torch.Tensor:
        return batch.inputs[0].mean(1)


def test_samples_that_differ_in_shape_are_compared_whole() -> None:
    train = Ragged(*(torch.randn(n, 2, generator=torch.Generator().manual_seed(n)) for n in (5, 3, 9)))
    neighbours = Neighbours(MeanFeatures(ToyData(noise=0.0), "unused", {}), train, Deltas())
    torch.testing.assert_close(neighbours.features_MD, torch.stack([x.mean(0) for x in train.samples]))


def test_the_row_moves_the_layer_by_the_neighbours_delta(run: Artifacts) -> None:
    row, shared = row_of(run, "neighbour")
    train = row.context.split("train")
    x = train.batch(torch.arange(len(train))).inputs[0].flatten(1).double()
    nearest = [int((x - one.flatten().double()).square().sum(1).argmin()) for one in shared.batch.inputs[0]]
    deltas = torch.from_numpy(OverfitStore(run.overfit("train")).deltas_of_samples(np.array(nearest)))
    assert_same_outputs(row.outputs(shared), moved_by_hand(shared.predictor, shared.batch, deltas))
