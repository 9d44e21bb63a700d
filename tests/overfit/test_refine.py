"""Refined Δ: exact where it can be, never worse, and the same wherever a row is computed."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.gauss_newton import quadratic
from ocd_core.overfit import rows
from ocd_core.overfit.refine import (
    Coordinates,
    Refined,
    Refinement,
    RowLosses,
    _descend,
    fit_coordinates,
    mean_curvature,
    refine,
)
from ocd_core.overfit.rows import RowBuilder
from ocd_core.overfit.steps import StepPart
from ocd_core.rng import permutation
from ocd_core.samples import Batch
from ocd_core.tasks.draws_inputs import DrawsInputs
from tests.support.arrays import MODEL, ArraySplit, ArrayTask, Noisy, Rows
from tests.support.params import overfit_params, refine_params

COUNT = 40


class Halves(DrawsInputs, ArrayTask):
    """Each step sees half of a sample's five vectors, in two parts."""

    def overfit_batch(self, split, sample_id, replica, step, seed) -> Batch:
        batch = split.batch(sample_id)
        places = (torch.arange(2)[None] + step + replica[:, None]) % 5
        rows = torch.arange(len(sample_id))[:, None]
        return Batch((batch.inputs[0][rows, places],), batch.target[rows, places], sample_id)

    def parts(self, batch):
        x, y = batch.inputs[0], batch.target
        return [(Batch((x[:, k : k + 1],), y[:, k : k + 1], batch.sample_id), 0.5) for k in (0, 1)]


class Sums(nn.Module):
    """Five vectors -> one number for each, linear in the weight of `layer`."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(6, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x))


def vectors(count: int = COUNT) -> ArraySplit:
    g = torch.Generator().manual_seed(0)
    return ArraySplit(torch.randn(count, 5, 6, generator=g), torch.randn(count, 5, 3, generator=g))


def network(kind: type[nn.Module] = Sums) -> CutModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CutModel(kind(), "layer")


def builders(task, split, model, **changes) -> tuple[RowBuilder, RowBuilder]:
    """One without and one with refining."""
    params = overfit_params(refine=refine_params(**changes), memory_mb=32, shard_mb=4)
    plain = overfit_params(memory_mb=32, shard_mb=4)
    refinement = RowBuilder(task, model, split, params, 0).fit_refinement()
    return RowBuilder(task, model, split, plain, 0), RowBuilder(task, model, split, params, 0, refinement)


def filled(builder: RowBuilder, rows: slice = slice(0, COUNT)) -> dict:
    return {name: values.copy() for name, values in builder.fill(rows, builder.buffers(builder.schema())).items()}


def test_one_step_is_the_exact_minimiser_if_the_output_is_linear_and_the_loss_squares() -> None:
    """With every coordinate there is and no damping: the least-squares solution for each sample's own outputs."""
    split, model = vectors(), network()
    _, refined = builders(ArrayTask(), split, model, components=3, damping=1e-12)
    found = filled(refined)
    coordinates = refined.refinement.coordinates
    cut = model.prefix((split.x,))
    mean = coordinates.mean_d.view(4, 6).expand(COUNT, 4, 6)
    start = model.forward(cut, mean)[1].flatten(1)
    columns = [model.forward(cut, mean + b.view(4, 6))[1].flatten(1) - start for b in coordinates.basis_kd]
    j = torch.stack(columns, 2)
    best = torch.linalg.lstsq(j, (split.y.double().flatten(1) - start)[:, :, None]).solution[:, :, 0]
    wanted = mean + (best @ coordinates.basis_kd).view(COUNT, 4, 6)
    torch.testing.assert_close(torch.from_numpy(found["delta"]).double(), wanted, rtol=1e-4, atol=1e-5)
    loss = (model.forward(cut, wanted)[1] - split.y).square().flatten(1).mean(1)
    np.testing.assert_allclose(found["loss_after"][:, -1], loss, rtol=1e-6)
    np.testing.assert_allclose(found["rho"], wanted.flatten(1).norm(dim=1), rtol=1e-6)


@pytest.mark.parametrize("task", [ArrayTask(), Halves()])
def test_more_steps_never_raise_a_loss_and_leave_the_gradient_steps_as_they_were(task) -> None:
    class Bent(Sums):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(3 * self.last(torch.tanh(self.layer(x))))

    plain, refined = builders(task, vectors(), network(Bent), steps=3, inputs=2, damping=1e-6)
    before, after = filled(plain), filled(refined)
    assert refined.schema().steps == 5
    np.testing.assert_array_equal(after["loss_after"][:, :2], before["loss_after"])
    path = after["loss_after"][:, 2:]
    assert (np.diff(path, axis=1) <= 0).all()
    assert path[:, -1].mean() < before["loss_after"][:, -1].mean()
    for name in set(before) - {"delta", "rho", "loss_after"}:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    np.testing.assert_allclose(after["rho"], np.linalg.norm(after["delta"].reshape(COUNT, -1), axis=1), rtol=1e-5)


def test_drawn_inputs_count_as_one_mean_over_all_steps() -> None:
    """Both steps of two halves together: vectors 0, 1, 1 and 2 of each sample."""
    split, model, task = vectors(), network(), Halves()
    _, drawn = builders(task, split, model, inputs=2, damping=1e-12)
    again = torch.tensor([0, 1, 1, 2])
    whole = ArraySplit(split.x[:, again], split.y[:, again])
    same = RowBuilder(ArrayTask(), model, whole, drawn.params, 0, drawn.refinement)
    np.testing.assert_allclose(filled(drawn)["delta"], filled(same)["delta"], rtol=1e-3, atol=1e-5)


def test_a_row_is_the_same_in_any_batch() -> None:
    _, refined = builders(Noisy(), Rows(COUNT), MODEL, steps=2)
    whole = filled(refined)
    assert refined.refined_rows < COUNT
    refined.batch_rows, refined.refined_rows = 5, 2
    part = filled(refined, slice(3, 11))
    for name, values in part.items():
        np.testing.assert_allclose(values, whole[name][3:11], rtol=1e-4, atol=1e-5, err_msg=name)


def test_damping_is_a_share_of_the_mean_curvature() -> None:
    split, model = vectors(), network()
    sizes = [
        RowBuilder(ArrayTask(), model, split, overfit_params(refine=refine_params(damping=d)), 0).fit_refinement()
        for d in (0.5, 1.0)
    ]
    assert sizes[1].damping == pytest.approx(2 * sizes[0].damping)
    moves = sizes[1].coordinates.moves(model)
    found = quadratic(model, model.prefix((split.x,)), split.y, ArrayTask().loss, torch.zeros(COUNT, 3).double(), moves)
    # of squares of a linear output, the curvature is the same everywhere
    traces = found.curvature_Nkk.diagonal(dim1=1, dim2=2).mean()
    assert sizes[1].damping == pytest.approx(float(traces), rel=1e-6)
    assert mean_curvature(torch.diag(torch.tensor([3.0, -1.0]))[None]) == 1.5


@pytest.mark.parametrize("beyond", [torch.inf, torch.nan, -torch.inf])
def test_a_step_to_a_loss_that_is_no_number_is_halved(beyond: float) -> None:
    """Along a half line: the loss falls up to 3, and is none from there on."""

    def losses_of(code_Nk: Tensor) -> Tensor:
        return torch.where(code_Nk[:, 0] < 3, 10 - code_Nk[:, 0], beyond)

    code, step = torch.zeros(3, 1), torch.tensor([[4.0], [2.0], [400.0]])
    reached, loss = _descend(code, step, losses_of(code), losses_of)
    assert reached[:, 0].tolist() == [2, 2, 0]
    assert loss.tolist() == [8, 8, 10]


class Cliff(ArrayTask):
    """The squares, which are no numbers for outputs above a bound that only a refining step reaches."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        found = super().loss(output, target)
        return torch.where(output.flatten(1).amax(1) > self.most, torch.inf, found)


def test_a_loss_that_is_no_number_ends_the_stage_only_where_refining_begins() -> None:
    split, model = vectors(), network()
    _, refined = builders(ArrayTask(), split, model, damping=1e-12)
    cut, moves = model.prefix((split.x,)), refined.refinement.coordinates.moves(model)

    def largest(delta_NOI: Tensor) -> Tensor:
        return model.forward(cut, delta_NOI.double())[1].flatten(1).amax(1)

    def refined_below(most: float) -> Refined:
        rows_of = RowLosses(model, one_step(model, split), Cliff(most).loss, moves, 1, 1)
        return refine(rows_of, start, refined.refinement, 1)

    start = moves(torch.zeros(COUNT, 3).double())
    most = float(largest(torch.from_numpy(filled(refined)["delta"])).median())  # half of the steps would lead beyond
    assert largest(start).max() < most
    found = refined_below(most)
    assert torch.isfinite(found.loss_NR).all()
    assert (largest(found.delta_NOI) <= most).all()
    with pytest.raises(UserError, match=r"not finite where overfit\.refine begins; raise overfit\.refine\.components"):
        refined_below(float(largest(start).max()) - 1e-3)


def one_step(model: CutModel, split: ArraySplit):
    return lambda _step: iter([StepPart(model.prefix((split.x,)), split.y)])


def test_a_loss_without_curvature_names_the_param() -> None:
    class Absolute(ArrayTask):
        def loss(self, output: Tensor, target: Tensor) -> Tensor:
            return (output - target).abs().flatten(1).mean(1)

    params = overfit_params(refine=refine_params(), memory_mb=32, shard_mb=4)
    with pytest.raises(UserError, match=r"overfit\.refine: the loss is nowhere curved .* set overfit\.refine\.steps"):
        RowBuilder(Absolute(), network(), vectors(), params, 0).fit_refinement()


def test_the_file_keeps_every_bit(tmp_path) -> None:
    made = RowBuilder(ArrayTask(), network(), vectors(), overfit_params(refine=refine_params()), 0).fit_refinement()
    made.save(tmp_path / "refinement.safetensors")
    found = Refinement.load(tmp_path / "refinement.safetensors")
    assert found.damping == made.damping
    for name in ("mean_d", "basis_kd"):
        assert torch.equal(getattr(found.coordinates, name), getattr(made.coordinates, name))
    delta = torch.randn(3, 4, 6)
    centred = delta.double().flatten(1) - made.coordinates.mean_d
    torch.testing.assert_close(found.coordinates.encode(delta), centred @ made.coordinates.basis_kd.T)
    assert isinstance(found.coordinates, Coordinates)


def test_too_many_components_name_the_param() -> None:
    with pytest.raises(UserError, match=r"overfit.refine: 4 training Δ .* lower overfit.refine.components from 5"):
        fit_coordinates(torch.randn(4, 3, 4), refine_params(components=5))


def test_the_curvature_is_of_samples_from_everywhere(monkeypatch) -> None:
    """A split may be sorted by class, so the first samples do not stand for all."""
    monkeypatch.setattr(rows, "_CURVED", 5)
    refined, _ = builders(ArrayTask(), vectors(), network(), samples=COUNT)[::-1]
    seen = []
    measured = RowBuilder._row_losses

    def spy(self, sample_id, *args):
        seen.extend(sample_id.tolist())
        return measured(self, sample_id, *args)

    monkeypatch.setattr(RowBuilder, "_row_losses", spy)
    refined.fit_refinement()
    assert seen == sorted(permutation(COUNT, refined.seed, "refinement")[:5].tolist()) != list(range(5))
