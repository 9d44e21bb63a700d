import json

import pytest
import torch

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.codes.params import RepresentationParams
from ocd_core.codes.representations.dense import Dense
from ocd_core.codes.representations.factored import Factored
from ocd_core.codes.representations.pca import Pca
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.errors import UserError
from tests.support.arrays import condition
from tests.support.params import denoiser_params, diffusion_params


def make(representation=None, **changes):
    torch.manual_seed(0)
    params = diffusion_params(**changes)
    encoder = ConditionEncoder.from_condition(condition(20), params.embedding)
    return DiffusionModel(encoder, representation or Factored(6, 7, True), params).eval()


def fitted_pca():
    deltas = torch.randn(20, 3, 4, generator=torch.Generator().manual_seed(0))
    return Pca.fit(deltas, None, RepresentationParams(name="pca", components=5, metric="euclidean"), True)


UNET = denoiser_params(name="unet", width=16, depth=1, multipliers=[1, 1])


@pytest.mark.parametrize(
    ("representation", "changes"),
    [(Factored(6, 7, True), {}), (fitted_pca(), {}), (Dense(3, 4, False), {"denoiser": UNET})],
)
def test_save_and_load_give_the_same_model(representation, changes, tmp_path):
    model = make(representation, **changes)
    model.save(tmp_path)
    again = DiffusionModel.load(tmp_path)
    cond = condition(9, seed=4)
    omega, t = torch.randn(9, *model.shape), torch.arange(1, 10)
    with torch.no_grad():
        assert torch.equal(again.predict(omega, t, again.embed(cond)), model.predict(omega, t, model.embed(cond)))
    assert not again.training
    assert again.params == model.params
    rho, x = torch.rand(9), torch.randn(9, representation.in_features)
    assert torch.equal(again.representation.decode(omega, rho, x), representation.decode(omega, rho, x))


def test_e_is_the_sum_of_conditions_and_time():
    model = make()
    seen = {}
    model.denoiser.register_forward_pre_hook(lambda _m, args: seen.update(e=args[1]))
    cond, t = condition(3), torch.tensor([1, 7, 20])
    model.predict(torch.randn(3, 6), t, model.embed(cond))
    torch.testing.assert_close(seen["e"], model.encoder(cond) + model.time(t))


def test_times_are_embedded_as_in_training():
    model = make()
    with torch.no_grad():
        assert torch.equal(model.embed_times([20, 7, 1]), model.time(torch.tensor([20, 7, 1])))


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_denoise_is_consistent_with_the_noising(prediction):
    model = make(schedule="released", prediction=prediction)
    omega = torch.randn(4, 6)
    with torch.no_grad():
        output = model.predict(omega, torch.tensor([13]), model.embed(condition(4)))
        x0, epsilon = model.split(output, omega, 13)
    bar = model.schedule.alphas_bar[13].float()
    torch.testing.assert_close(bar.sqrt() * x0 + (1 - bar).sqrt() * epsilon, omega, rtol=1e-4, atol=1e-5)


def test_folders_of_another_architecture_are_refused(tmp_path):
    make().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    changed = json.loads(json.dumps(config))
    changed["params"]["denoiser"]["width"] = 32
    (tmp_path / "config.json").write_text(json.dumps(changed))
    with pytest.raises(UserError, match="its architecture is not the one in its config"):
        DiffusionModel.load(tmp_path)
    del config["params"]["ema"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="written by another version"):
        DiffusionModel.load(tmp_path)
