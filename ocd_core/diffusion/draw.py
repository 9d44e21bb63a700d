"""Draws of Ω_0 for unseen samples (Alg. 2)."""

import torch
from torch import Tensor

from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.samplers import sampler
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.progress import Progress, no_progress
from ocd_core.rng import sample_normal
from ocd_core.samples import Condition


@torch.inference_mode()
def draw(
    model: DiffusionModel,
    cond: Condition,
    sample_id: Tensor,
    seed: int,
    draw_index: int,
    sampling: SamplingParams,
    batch: int,
    progress: Progress = no_progress,
) -> Tensor:
    """One draw of Ω_0 for each sample (Alg. 2), on the model's device, float32 (N, *shape).

    A sample's draw depends only on (seed, draw_index, its id); `batch` only bounds memory. Decode the codes with
    `model.representation`.

    Args:
        cond: I(x) of the N samples. sample_id: int64 (N,).
        progress: called with the count of samples done.
    """
    assert len(cond) == len(sample_id)
    model.eval()
    sample = sampler(sampling.sampler)
    done: list[Tensor] = []
    for start in range(0, len(sample_id), batch):
        rows = slice(start, start + batch)
        ids = sample_id[rows].tolist()
        e0 = model.embed(cond.select(rows).to(model.device))

        def denoise(omega_t: Tensor, t: int, e0: Tensor = e0) -> tuple[Tensor, Tensor]:
            return model.denoise(omega_t, t, e0)

        def noise(k: int, ids: list[int] = ids) -> Tensor:
            return sample_normal(model.shape, ids, seed, "draw", draw_index, k).to(model.device)

        code = sample(denoise, noise, model.schedule, sampling)
        done.append(model.representation.normalise(code) if sampling.renormalise else code)
        progress(min(start + batch, len(sample_id)), "")
    return torch.cat(done) if done else torch.empty((0, *model.shape), device=model.device)
