"""Operations counted by hand."""

import torch
from torch import Tensor, nn

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.costs import base_epoch_flops, covariance_flops, overfit_flops
from ocd_core.network.cut import CutModel
from ocd_core.samples import Batch, Condition
from ocd_core.training.flops import flops
from tests.support.params import refine_params
from tests.support.runs import params_of
from tests.support.toy import PointSet, ToyData, ToyTask

EMBED, HEAD = 2 * 3 * 4 * 6, 2 * 6 * 2  # of one sample's forward pass: 3 positions, 4 -> 6 -> 2


class Points:
    def __len__(self) -> int:
        return 10

    def batch(self, sample_id: Tensor) -> Batch:
        g = torch.Generator().manual_seed(0)
        return Batch((torch.randn(10, 3, 4, generator=g)[sample_id],), torch.zeros(len(sample_id), 2), sample_id)


class Frozen(PointSet):
    """A frozen encoder, and a layer that the forward pass does not use."""

    def __init__(self, width: int = 6) -> None:
        super().__init__(width)
        self.embed.requires_grad_(False)
        self.unused = nn.Linear(5, 5)


class AllFrozen(PointSet):
    def __init__(self, width: int = 6) -> None:
        super().__init__(width)
        self.requires_grad_(False)


def task_of(network: type[nn.Module]) -> ToyTask:
    return ToyTask(ToyData(noise=0.0), f"{network.__module__}:{network.__name__}", {})


def test_operations_counted_by_hand() -> None:
    """An (m, k) by (k, n) product costs 2 m k n."""
    assert flops(lambda: torch.randn(5, 7) @ torch.randn(7, 3)) == 2 * 5 * 7 * 3
    # forward; backward to the weights of both layers and to the input of the second
    assert base_epoch_flops(task_of(PointSet), Points(), 0) == 10 * (2 * EMBED + 3 * HEAD)


def test_what_is_frozen_costs_no_backward_pass() -> None:
    assert base_epoch_flops(task_of(Frozen), Points(), 0) == 10 * (EMBED + 2 * HEAD)
    assert base_epoch_flops(task_of(AllFrozen), Points(), 0) == 10 * (EMBED + HEAD)


def test_overfitting_costs_more_with_more_steps_and_rows(run: Artifacts) -> None:
    params = params_of(run)
    model = CutModel(PointSet(), "embed")
    costs = [
        overfit_flops(
            task_of(PointSet), model, Points(), params.overfit.model_copy(update={"steps": s, "replicas": r}), 0
        )
        for s, r in ((1, 1), (2, 1), (3, 1), (1, 2))
    ]
    assert costs[1] - costs[0] == costs[2] - costs[1] > 0
    assert costs[3] == 2 * costs[0] > 0


class SomePoints(Points):
    """Samples of more and more points: two, three, and so on, from the `first` one on."""

    one_by_one = True

    def __init__(self, count: int, first: int = 0) -> None:
        self.count, self.first = count, first

    def __len__(self) -> int:
        return self.count

    def batch(self, sample_id: Tensor) -> Batch:
        points = int(sample_id.min()) + self.first + 2
        return Batch((torch.ones(len(sample_id), points, 4),), torch.zeros(len(sample_id), 2), sample_id)


class Pooled(ToyTask):
    """I(x) has the mean over points."""

    def condition(
        self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Tensor, model: nn.Module | None = None
    ) -> Condition:
        mean = [x.mean(1) if x.dim() == 3 else x for x in (layer_input, activation, output)]
        return Condition(*mean)


def test_samples_that_differ_in_shape_are_all_counted(run: Artifacts) -> None:
    params = params_of(run).overfit.model_copy(update={"replicas": 2})

    def cost(split: SomePoints) -> int:
        task = Pooled(ToyData(noise=0.0), "", {})
        return overfit_flops(task, CutModel(PointSet(), "embed"), split, params, 0)

    alone = [cost(SomePoints(1, first)) for first in range(4)]
    assert alone == sorted(set(alone))
    first_of_their_shapes = EMBED // 3 * (3 + 4 + 5)  # the layer runs once more for them
    assert cost(SomePoints(4)) == sum(alone) + first_of_their_shapes


def test_covariances_cost_a_pass_a_gradient_and_two_products() -> None:
    """The layer and what follows it forward, what follows it backward, and x xᵀ and u uᵀ at each of 3 positions."""
    found = covariance_flops(task_of(PointSet), CutModel(PointSet(), "embed"), Points(), 0)
    assert found == 10 * (EMBED + 2 * HEAD + 3 * 2 * (4 * 4 + 6 * 6))


def test_refining_and_the_samples_that_give_its_coordinates_count(run: Artifacts) -> None:
    params, model = params_of(run), CutModel(PointSet(), "embed")

    def cost(steps: int, samples: int) -> int:
        refine = refine_params(steps=steps, samples=samples)
        changed = params.overfit.model_copy(update={"replicas": 1, "refine": refine})
        return overfit_flops(task_of(PointSet), model, Points(), changed, 0)

    once = cost(0, 4)
    assert once == cost(0, 10)
    assert cost(1, 10) - cost(1, 4) == once * 6 // 10
    assert cost(1, 4) > 2 * once
