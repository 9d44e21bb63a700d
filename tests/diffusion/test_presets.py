"""The paper's and the released U-Net at full width, on 32×32 matrices."""

import pytest
import torch

from ocd_core.conditioning import ConditionEncoder
from ocd_core.config import SamplingParams
from ocd_core.diffusion.denoisers import PAPER_UNET, RELEASED_LENET5_UNET
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.samplers import draw
from ocd_core.diffusion.training import _Objective
from ocd_core.representation import Dense
from tests.diffusion.common import condition, diffusion_params


def has_no_gradient(name, parameter):
    return parameter.grad is None or not parameter.grad.abs().max() > 1e-10


@pytest.mark.parametrize(
    ("denoiser", "changes"),
    [
        (PAPER_UNET, {"schedule": "paper", "timesteps": 10, "unit_variance": False}),
        (RELEASED_LENET5_UNET, {"schedule": "released", "timesteps": 1000}),
    ],
    ids=["paper", "released"],
)
def test_presets_build_learn_a_batch_and_sample(denoiser, changes):
    params = diffusion_params(denoiser=denoiser, prediction="epsilon", batch_size=1, **changes)
    space = Dense(32, 32, params.unit_variance)
    g = torch.Generator().manual_seed(0)
    cond, codes = condition(4), space.encode(torch.randn(4, 32, 32, generator=g))
    torch.manual_seed(0)
    model = DiffusionModel(ConditionEncoder.from_condition(cond, params.embedding), space, params)
    objective = _Objective(model, codes, cond, codes, cond, 0)
    adam = torch.optim.Adam(model.parameters(), lr=3e-4, fused=True)
    first = None
    for _ in range(80):
        adam.zero_grad()
        loss = objective.loss(0, 0, 1)
        loss.backward()
        if first is None:
            first = loss.item()
            silent = {n for n, p in model.named_parameters() if has_no_gradient(n, p)}
        adam.step()
        if loss.item() < first / 10:
            break
    assert loss.item() < first / 10
    # softmax does not see what is added to all keys alike, and over a single position it is 1 whatever q and k are
    single = {"paper": ("down_blocks.5", "up_blocks.0", "mid_block"), "released": ("mid_block",)}
    single = single[denoiser.name.removeprefix("unet_")]
    unexpected = {
        n
        for n in silent
        if not (n.endswith("to_k.bias") or ((".to_q." in n or ".to_k." in n) and any(s in n for s in single)))
    }
    assert unexpected == set()
    attentions = [n for n, m in model.named_modules() if type(m).__name__ == "Attention"]
    assert sum("mid_block" in n for n in attentions) == (2 if denoiser is PAPER_UNET else 1)
    levels = {n.split(".attentions")[0] for n in attentions if "down_blocks" in n}
    assert len(levels) == (6 if denoiser is PAPER_UNET else 1)
    sampling = SamplingParams(sampler="ddim", steps=2, eta=0.0, renormalise=True)
    drawn = draw(model, cond, torch.arange(4), 0, 0, sampling, 4)
    assert drawn.shape == (4, 32, 32)
    assert torch.isfinite(drawn).all()
