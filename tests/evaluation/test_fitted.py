"""What train_controls fits, against plain computations from the stores and the networks; and that it sees no test."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ocd_core.artifacts import Artifacts
from ocd_core.config import Params, load_params
from ocd_core.errors import UserError
from ocd_core.evaluation.controls.controls import Controls
from ocd_core.evaluation.controls.costs import base_epoch_flops, flops, overfit_flops
from ocd_core.evaluation.controls.fitting import condition_of_samples
from ocd_core.evaluation.controls.space import DeltaSpace
from ocd_core.network.cut import CutModel
from ocd_core.network.measuring import evaluate_model
from ocd_core.network.moves import base_pass
from ocd_core.network.training import fit_base
from ocd_core.predictor import Predictor
from ocd_core.samples import whole_split
from ocd_core.store import OverfitStore
from stages import train_controls
from tests.evaluation.controls.runs import toy_run
from tests.toy import PointSet, ToyData, ToyTask


@pytest.fixture(scope="module", params=["head", "embed"])
def run(request, tmp_path_factory) -> Artifacts:
    """The stages up to train_controls, which must do without a test split: there is none any more."""
    root = tmp_path_factory.mktemp(request.param)
    artifacts = toy_run(root, request.param, "train_scale")
    (artifacts.prepared / "test.safetensors").unlink()
    shutil.rmtree(artifacts.overfit("test"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        train_controls.main("toy")
    return artifacts


def params_of(run: Artifacts) -> Params:
    return load_params("toy", run.root)


def controls_of(run: Artifacts) -> Controls:
    return Controls.load(run.controls, params_of(run).build_task().build_model())


def test_it_never_opened_the_test_split(run: Artifacts) -> None:
    assert not run.overfit("test").exists()
    assert {p.name for p in run.controls.iterdir()} == {
        "model.safetensors", "config.json", "params.json", "metrics.json", "curves.tsv",
    }  # fmt: skip
    assert json.loads((run.controls / "params.json").read_text()) == params_of(run).effective("controls")


def test_means_are_those_of_the_training_store(run: Artifacts) -> None:
    store, controls = OverfitStore(run.overfit("train")), controls_of(run)
    deltas = store.deltas().astype(np.float64)
    np.testing.assert_allclose(controls.mean_delta_OI, deltas.sum(0) / len(deltas), rtol=1e-6, atol=1e-9)
    norms = [np.sqrt((delta**2).sum()) for delta in deltas]
    assert controls.mean_rho == pytest.approx(np.mean(norms), rel=1e-5)


def test_the_space_holds_every_delta_with_its_magnitude(run: Artifacts) -> None:
    store, space = OverfitStore(run.overfit("train")), controls_of(run).space
    code = space.encode_store(store)
    deltas = torch.from_numpy(store.deltas())
    if space.representation.name == "factored":
        layer_input = torch.from_numpy(store.read("layer_input"))
        wanted = torch.einsum("noi,ni->no", deltas, layer_input)
        torch.testing.assert_close(space.move(code, layer_input), wanted, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(code.norm(dim=1), deltas.flatten(1).norm(dim=1), rtol=1e-4, atol=1e-7)
    else:
        rebuilt = space.move(code, torch.zeros(len(code), 1))
        flat = (deltas - deltas.mean(0)).flatten(1)
        kept = 1 - float((rebuilt - deltas).square().sum() / flat.square().sum())
        assert kept == pytest.approx(float(space.representation.explained.sum()), abs=1e-3)


def test_the_gain_is_the_best_of_the_grid_on_val(run: Artifacts) -> None:
    """One draw a validation sample, applied by hand to a copy of the network, sample by sample."""
    params = params_of(run)
    predictor = Predictor.from_run(run, params)
    task, space = predictor.task, predictor.diffusion.representation
    val = task.open(run.prepared, "val")
    losses = {}
    for gain in {0.0, 1.0, *params.controls.gains}:
        total = 0.0
        for i in range(len(val)):
            batch = val.batch(torch.tensor([i]))
            base = base_pass(task, predictor.model, batch)
            code = predictor.code(base, batch.sample_id, 0)
            delta = space.decode(code, predictor.estimate_rho(base), base.cut.x_NPI.mean(1))[0]
            net = task.build_model().double()
            net.load_state_dict(predictor.model.replay_network.state_dict())
            net.get_submodule(predictor.model.layer_name).weight.data += gain * delta.double()
            total += task.loss(net(batch.inputs[0].double()), batch.target.double()).item()
        losses[gain] = total / len(val)
    metrics = json.loads((run.controls / "metrics.json").read_text())["ocd_gain"]
    allowed = {gain: losses[gain] for gain in params_of(run).controls.gains}
    assert controls_of(run).gain == metrics["gain"] == min(allowed, key=allowed.get)
    assert metrics["val_loss"] == pytest.approx(min(allowed.values()), rel=1e-5)
    assert metrics["val_loss_base"] == pytest.approx(losses[0.0], rel=1e-5)
    assert metrics["val_loss_one_draw"] == pytest.approx(losses[1.0], rel=1e-5)
    assert (metrics["val_z_one_draw"] < 0) == (losses[1.0] < losses[0.0])
    lines = [r.split("\t") for r in (run.controls / "curves.tsv").read_text().splitlines()]
    column = {name: i for i, name in enumerate(lines[0])}
    found = {float(r[column["gain"]]): float(r[column["val_loss"]]) for r in lines if r[0] == "ocd_gain"}
    assert found == pytest.approx(losses, rel=1e-5)


def test_base_further_starts_from_the_base_and_is_no_worse_on_val(run: Artifacts) -> None:
    task = params_of(run).build_task()
    base, further = Predictor.from_run(run, params_of(run)).model.network, controls_of(run).further
    val = task.open(run.prepared, "val")
    metrics = json.loads((run.controls / "metrics.json").read_text())["base_further"]
    before, after = (evaluate_model(task, net, val)["loss"] for net in (base, further))
    assert after == pytest.approx(metrics["val_loss"])
    assert after <= before
    moved = [float((a - b).abs().max()) for a, b in zip(base.parameters(), further.parameters(), strict=True)]
    if metrics["best_epoch"]:
        assert min(moved) > 0  # all layers
        assert max(moved) < 0.1  # three epochs of a small step: another start would be far away
    else:
        assert max(moved) == 0


def test_where_further_training_only_hurts_the_base_is_kept(run: Artifacts) -> None:
    params = params_of(run)
    task, base = params.build_task(), Predictor.from_run(run, params).model.network
    train, val = (task.open(run.prepared, s) for s in ("train", "val"))
    wild = params.base.model_copy(update={"lr": 10.0, "epochs": 2, "patience": 2})
    result = fit_base(task, train, val, wild, 0, start=base)
    assert result.metrics["best_epoch"] == 0
    assert result.metrics["epochs"] == 2
    assert [row["epoch"] for row in result.curve] == [0, 1, 2]
    assert result.curve[0]["val_loss"] == pytest.approx(evaluate_model(task, base, val)["loss"])
    for name, value in base.state_dict().items():
        assert torch.equal(result.model.state_dict()[name], value)


def test_conditions_are_one_a_sample_in_the_splits_order(run: Artifacts) -> None:
    task = params_of(run).build_task()
    split = Predictor.from_run(run, params_of(run)).model
    train = task.open(run.prepared, "train")
    expected = base_pass(task, split, train.batch(whole_split(train))).condition
    found = condition_of_samples(OverfitStore(run.overfit("train")))
    for a, b in zip(found.parts(), expected.parts(), strict=True):
        torch.testing.assert_close(a, b)


def test_costs_add_up(run: Artifacts) -> None:
    cost = controls_of(run).cost_flops
    ocd = cost["ocd"]
    assert ocd["total"] == sum(v for k, v in ocd.items() if k != "total")
    assert ("scale" in ocd) == (params_of(run).layer.select == "head")  # pca has no use for ρ
    metrics = json.loads((run.controls / "metrics.json").read_text())
    assert cost["base_further"]["total"] * 3 == cost["base_further"]["allowed"] * metrics["base_further"]["epochs"]


def test_a_damaged_or_foreign_folder_is_refused(run: Artifacts, tmp_path: Path) -> None:
    model = PointSet(6)
    with pytest.raises(UserError, match="holds no complete controls network"):
        Controls.load(tmp_path, model)
    shutil.copytree(run.controls, tmp_path / "controls")
    weights = tmp_path / "controls" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="is not the file that"):
        Controls.load(tmp_path / "controls", model)
    with pytest.raises(UserError, match="further"):
        Controls.load(run.controls, PointSet(7))


def test_nothing_to_fit_is_fine(run: Artifacts, tmp_path: Path) -> None:
    Controls(0.5, None, None, None, None, None, None, {}).save(tmp_path)
    assert Controls.load(tmp_path, nn.Identity()) == Controls(0.5, None, None, None, None, None, None, {})


class Points:
    def __len__(self) -> int:
        return 10

    def batch(self, sample_id):
        from ocd_core.samples import Batch

        g = torch.Generator().manual_seed(0)
        return Batch((torch.randn(10, 3, 4, generator=g)[sample_id],), torch.zeros(len(sample_id), 2), sample_id)


def test_operations_counted_by_hand() -> None:
    """An (m, k) by (k, n) product costs 2 m k n. The toy: 3 positions, 4 -> 6 -> 2."""
    assert flops(lambda: torch.randn(5, 7) @ torch.randn(7, 3)) == 2 * 5 * 7 * 3
    task = ToyTask(ToyData(noise=0.0), "tests.toy:PointSet", {})
    embed, head = 2 * 3 * 4 * 6, 2 * 6 * 2
    # forward; backward to the weights of both layers and to the input of the second
    assert base_epoch_flops(task, Points(), 0) == 10 * (2 * embed + 3 * head)


def test_overfitting_costs_more_with_more_steps_and_rows(run: Artifacts) -> None:
    params = params_of(run)
    model = CutModel(PointSet(), "embed")
    task = ToyTask(ToyData(noise=0.0), "tests.toy:PointSet", {})
    costs = [
        overfit_flops(task, model, Points(), params.overfit.model_copy(update={"steps": s, "replicas": r}), 0)
        for s, r in ((1, 1), (2, 1), (3, 1), (1, 2))
    ]
    assert costs[1] - costs[0] == costs[2] - costs[1] > 0
    assert costs[3] == 2 * costs[0] > 0


def test_a_dense_representation_is_regressed_in_principal_components(run: Artifacts) -> None:
    store, params = OverfitStore(run.overfit("train")), params_of(run).diffusion
    dense = params.model_copy(update={"representation": params.representation.model_copy(update={"name": "dense"})})
    space = DeltaSpace.fit(store, dense, 2)
    assert space.representation.name == "pca"
    assert space.size == 2
    with pytest.raises(UserError, match=r"^controls\.components: .*lower"):
        DeltaSpace.fit(store, dense, 1000)
