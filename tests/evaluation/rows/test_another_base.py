"""Another network for the task: it is trained as the base is, answers for itself, and must fit the task."""

import pytest
import torch
from torch import Tensor, nn

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import Saved
from ocd_core.evaluation.rows.another_base import AnotherBase, AnotherBaseParams
from ocd_core.network.training import fit_base
from ocd_core.predictor import Predictor
from ocd_core.rng import derive_seed
from tests.support.runs import fit_row, params_of, val_pass
from tests.support.toy import PointSet, ToyTask

HERE = "tests.evaluation.rows.test_another_base"


class Flat(nn.Module):
    """(N, 3, 4) -> (N, outputs), one linear layer."""

    def __init__(self, inputs: int = 12, outputs: int = 2) -> None:
        super().__init__()
        self.only = nn.Linear(inputs, outputs)

    def forward(self, points: Tensor) -> Tensor:
        return self.only(points.flatten(1))


class Centred(Flat):
    def forward(self, points: Tensor) -> Tensor:
        return super().forward(points - points.mean(0))


class Fixed(ToyTask):
    def build_model(self) -> nn.Module:
        return PointSet(6)


def another(run: Artifacts, model: str | None, epochs: int = 3, **args: object) -> tuple[AnotherBase, Fitting]:
    """The row, not yet fitted."""
    fitting = Fitting(run, params_of(run), Predictor.from_run(run, params_of(run)))
    row = AnotherBase("another_base", fitting)
    row.params = AnotherBaseParams(model=model, args=args, epochs=epochs)
    return row, fitting


def test_it_is_trained_as_the_base_is(run: Artifacts) -> None:
    row, fitting, fit = fit_row(run, "another_base", model=f"{HERE}:Flat", args={}, epochs=4)
    task = fitting.params.model_copy(
        update={"base": fitting.params.base.model_copy(update={"model": fitting.params.base.model.model_copy(
            update={"name": f"{HERE}:Flat", "args": {}})})}
    ).build_task()  # fmt: skip
    base = fitting.params.base.model_copy(update={"epochs": 4})
    seed = derive_seed(fitting.seed, "another base")
    alone = fit_base(task, fitting.split("train"), fitting.split("val"), base, seed)
    assert isinstance(alone.model, Flat)
    for name, value in alone.model.state_dict().items():
        assert torch.equal(row.network.state_dict()[name], value.to(row.network.state_dict()[name].dtype)), name
    assert fit.metrics["val_loss"] == alone.metrics["val_loss"]
    assert fit.metrics["parameters"] == 12 * 2 + 2
    assert fit.flops is not None
    assert fit.flops["total"] == fit.flops["allowed"] / 4 * fit.metrics["epochs"] > 0
    assert isinstance(fitting.task.build_model(), PointSet)  # the run's own task builds what it did


def test_args_complete_those_of_the_base(run: Artifacts) -> None:
    row, fitting, _ = fit_row(run, "another_base", model=None, args={"width": 9}, epochs=1)
    assert row.network.embed.weight.shape == (9, 4)
    assert fitting.predictor.model.network.embed.weight.shape == (6, 4)
    assert row.title == "another network (width 9)"
    assert another(run, f"{HERE}:Flat", inputs=12)[0].title == f"another network: {HERE}:Flat (inputs 12)"


def test_its_answers_survive_a_file_and_are_its_own(run: Artifacts) -> None:
    row, fitting, _ = fit_row(run, "another_base", model=None, args={"width": 9}, epochs=1)
    loaded = another(run, None, width=9)[0]
    loaded.load(Saved(dict(row.tensors()), {}, run.controls, "another_base", None))
    shared = val_pass(fitting)
    x = shared.batch.inputs[0].double()
    assert torch.equal(loaded.outputs(shared), row.network.double()(x))
    assert not torch.equal(loaded.outputs(shared), shared.base.output)


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        ("lenet6", {}, "unknown model 'lenet6'"),
        (f"{HERE}:Flat", {"inputs": 11}, r"does not fit the data \(inputs \(2, 3, 4\)\)"),
        (f"{HERE}:Flat", {"outputs": 1}, r"shapes \[\(1, 1\)\], and the base with \[\(1, 2\)\]"),
        (f"{HERE}:Centred", {}, "mixes the samples of a batch"),
        (None, {"depth": 2}, "unexpected keyword argument 'depth'"),
    ],
)
def test_a_network_that_does_not_fit_is_named(
    run: Artifacts, model: str | None, args: dict[str, object], message: str
) -> None:
    row, fitting = another(run, model, **args)
    with pytest.raises(UserError, match=rf"controls\.another_base.*{message}"):
        row.fit(fitting)


def test_a_task_with_a_network_of_its_own_has_no_such_row(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    row, fitting = another(run, None, width=9)
    assert row.left_out() is None
    own = Fixed(fitting.task.data, "tests.support.toy:PointSet", {"width": 6})
    monkeypatch.setattr(fitting.predictor, "task", own)
    assert row.left_out() == "the task does not take its network from base.model"
