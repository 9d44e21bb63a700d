"""Distances to training Δ and the representation's loss against loops over samples, and copies that must be found."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ocd_core.artifacts import Artifacts, read_json, read_table
from ocd_core.evaluation import memorisation
from ocd_core.evaluation.memorisation import Memorisation, Nearest, measure_memorisation
from ocd_core.params_files import flat
from ocd_core.predictor import Predictor
from ocd_core.samples import only, whole_split
from tests.support.runs import context_of, moved_by_hand


def found_in(run: Artifacts) -> Memorisation:
    found = measure_memorisation(context_of(run))
    assert found is not None
    return found


def code_of(predictor: Predictor, delta: np.ndarray, layer_input: np.ndarray) -> Any:
    """The code of one Δ, by the definition of the representation."""
    representation: Any = predictor.diffusion.representation
    delta_OI = torch.from_numpy(delta).double()
    if representation.name == "factored":
        u_O = delta_OI @ torch.from_numpy(layer_input).double()
        return u_O / u_O.norm() * len(u_O) ** 0.5
    return (delta_OI.flatten() - representation.mean) @ representation.basis.T.double() / representation.scale


def test_distances_and_losses_equal_a_loop(run: Artifacts) -> None:
    context = context_of(run)
    found, predictor = found_in(run), context.predictor
    train, val, split = context.store("train"), context.store("val"), context.split("val")
    codes = [
        code_of(predictor, train.delta(row), train.read("layer_input", slice(row, row + 1))[0])
        for row in range(len(train))
        if train.read("replica")[row] == 0 and train.read("rho")[row] > 0
    ]
    assert found.training == 48
    assert len(found.before) == len(split) == 16
    batch = split.batch(whole_split(split))
    base = predictor.base_pass(batch)
    drawn = {"ocd": predictor, "ocd_tuned": context.tuned}
    assert found.drawn.keys() == drawn.keys()
    deltas = val.deltas_of_samples(np.arange(16))
    first = {int(i): row for row, i in enumerate(val.read("sample_id")) if val.read("replica")[row] == 0}
    decoded = []
    for n in range(16):
        layer_input = val.read("layer_input", slice(first[n], first[n] + 1))[0]
        code = code_of(predictor, deltas[n], layer_input)
        of = {"held_out": (code, found.held_out)}
        for name, who in drawn.items():
            of[name] = (who.code(base, batch.sample_id, 0)[n].double().flatten(), found.drawn[name])
        for query, nearest in of.values():
            distances = sorted(float((query - other).norm()) for other in codes)
            assert float(nearest.first_M[n]) == pytest.approx(distances[0], rel=1e-3, abs=1e-4)
            assert float(nearest.second_M[n]) == pytest.approx(distances[1], rel=1e-3, abs=1e-4)
        representation: Any = predictor.diffusion.representation
        if representation.name == "factored":
            u_O = code / code.norm() * float(val.read("rho")[first[n]])
            input_I = torch.from_numpy(layer_input).double()
            decoded.append(torch.outer(u_O, input_I / input_I.norm()))
        else:
            kept = representation.mean.double() + (code * representation.scale) @ representation.basis.double()
            decoded.append(kept.reshape(deltas[n].shape))
    target = only(batch.target).double()
    for losses, moved in ((found.overfitted, torch.from_numpy(deltas)), (found.decoded, torch.stack(decoded))):
        expected = context.task.loss(moved_by_hand(predictor, batch, moved), target)
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(found.before, context.task.loss(only(base.output), target))
    rows = [first[n] for n in range(16)]
    np.testing.assert_allclose(found.loss_after, val.read("loss_after")[rows, -1], rtol=1e-6)
    np.testing.assert_allclose(found.overfitted, found.loss_after, rtol=1e-4)  # the toy sees whole samples


def test_the_summary_and_the_stages_files(run: Artifacts) -> None:
    found, summary = found_in(run), read_json(run.evaluation / "memorisation.json")
    assert flat(summary) == pytest.approx(flat(found.summary()), rel=1e-6)
    held, ocd = summary["nearest"]["held_out"], summary["nearest"]["ocd"]
    assert held["median"] == pytest.approx(float(found.held_out.first_M.median()))
    assert ocd["of_held_out"] == pytest.approx(ocd["median"] / held["median"])
    kept = summary["representation"]
    gain, lossy = (kept["loss"] - kept[name] for name in ("loss_overfitted", "loss_decoded"))
    assert kept["kept"] == pytest.approx(lossy / gain)
    rows = read_table(run.evaluation / "memorisation.tsv")
    assert [float(row["held_out"]) for row in rows] == pytest.approx(found.held_out.first_M.tolist(), rel=1e-6)
    assert rows[0].keys() == {"held_out", "ocd", "ocd_tuned"}


def test_draws_that_are_training_deltas_are_copies(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(run)
    representation = context.predictor.diffusion.representation
    codes = torch.cat(list(memorisation._training_codes(representation, context.store("train"))))

    def repeat(_self: Predictor, _base: object, sample_id: Tensor, _draw: int) -> Tensor:
        return codes[sample_id].reshape(-1, *representation.shape) * (1 + 1e-6)

    monkeypatch.setattr(Predictor, "code", repeat)
    drawn = found_in(run).summary()["nearest"]["ocd"]
    assert drawn["copies"] == 1.0
    assert drawn["of_held_out"] < 0.01


def test_copies_are_nearer_than_a_third_of_the_distance_to_the_next() -> None:
    assert Nearest(torch.tensor([0.3, 0.4, 0.0]), torch.tensor([1.0, 1.0, 0.0])).copies == pytest.approx(1 / 3)


def test_a_subset_is_taken_of_many_samples(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found_in(run)
    monkeypatch.setattr(memorisation, "SAMPLES", 5)
    few = found_in(run)
    assert len(few.before) == 5
    assert all(bool(torch.isclose(whole.before, loss).any()) for loss in few.before)
