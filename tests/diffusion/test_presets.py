"""The networks of the whole-method presets on 32×32 matrices, narrower than they are."""

import math

import pytest
import torch

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.codes.representations.dense import Dense
from ocd_core.diffusion.denoisers import build_denoiser
from ocd_core.diffusion.draw import draw
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.training import DenoisingLoss
from tests.support.arrays import condition
from tests.support.params import preset_params


def has_no_gradient(name, parameter):
    return parameter.grad is None or not parameter.grad.abs().max() > 1e-10


@pytest.mark.parametrize(
    ("preset", "task", "width", "single", "levels"),
    [  # single: where attention is over one position, levels: with attention on the way down
        ("paper", "mnist", 32, ("down_blocks.5", "up_blocks.0", "mid_block"), {0, 1, 2, 3, 4, 5}),
        ("released", "mnist", 16, (), {3}),
        ("released", "tinynerf", 16, (), {3}),
    ],
)
def test_presets_build_learn_a_batch_and_sample(preset, task, width, single, levels):
    whole = preset_params(preset, task)
    params = whole.diffusion.model_copy(
        update={"batch_size": 1, "denoiser": whole.diffusion.denoiser.model_copy(update={"width": width})}
    )
    space = Dense(32, 32, params.unit_variance)
    g = torch.Generator().manual_seed(0)
    cond, codes = condition(4), space.encode(torch.randn(4, 32, 32, generator=g))
    torch.manual_seed(0)
    model = DiffusionModel(ConditionEncoder.from_condition(cond, params.embedding), space, params)
    objective = DenoisingLoss(model, codes, cond, codes, cond, 0)
    adam = torch.optim.Adam(model.parameters(), lr=3e-4 * 128 / width, fused=True)
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
    unexpected = {
        n
        for n in silent
        if not (n.endswith("to_k.bias") or ((".to_q." in n or ".to_k." in n) and any(s in n for s in single)))
    }
    assert unexpected == set()
    attentions = [n for n, m in model.named_modules() if type(m).__name__ == "Attention"]
    assert sum("mid_block" in n for n in attentions) == (2 if preset == "paper" else 1)
    assert {int(n.split("down_blocks.")[1].split(".")[0]) for n in attentions if "down_blocks" in n} == levels
    sampling = whole.sampling.model_copy(update={"steps": 2})
    drawn = draw(model, cond.select(slice(0, 2)), torch.arange(2), 0, 0, sampling, 2)
    assert drawn.shape == (2, 32, 32)
    assert torch.isfinite(drawn).all()


@pytest.mark.parametrize(("task", "millions"), [("mnist", 110), ("tinynerf", 18)])
def test_the_released_unets_attend_at_16_by_16_whatever_the_matrix(task, millions):
    params = preset_params("released", task).diffusion
    with torch.device("meta"):
        net = build_denoiser(params.denoiser, (10, 84), params.embedding)
    assert net.size == (128, 128)
    attends = ["Attn" in type(block).__name__ for block in net.unet.down_blocks]
    assert [128 >> level for level, attention in enumerate(attends) if attention] == [16]
    assert sum(math.prod(p.shape) for p in net.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
