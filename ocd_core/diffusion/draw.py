"""Draws of Ω_0 for unseen samples (Alg. 2).

Dims: N samples, S timesteps, E dims of e.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ocd_core.diffusion.denoisers import for_drawing
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.samplers import sampler
from ocd_core.diffusion.samplers.base import Denoise, visited_timesteps
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.progress import Progress, no_progress
from ocd_core.rng import sample_normal
from ocd_core.samples import Condition

_ROWS_AHEAD = 256  # values of e for which the denoiser works ahead; with more of them, doing so saves nothing


class Drawer:
    """Draws Ω_0 with a model whose weights no longer change; what all draws share is computed once.

    Args:
        model: is set to eval mode.
        sampling: the group `sampling`.
        batch: how many samples to draw at once; it only bounds memory.
    """

    @torch.inference_mode()
    def __init__(self, model: DiffusionModel, sampling: SamplingParams, batch: int) -> None:
        self.model, self.sampling, self.batch = model.eval(), sampling, batch
        self._sample = sampler(sampling.sampler)
        self._times = visited_timesteps(self._sample, model.schedule, sampling)
        self._time_SE = model.embed_times(self._times)
        self._embed, self._outputs_at = model.encoder.for_drawing(), for_drawing(model.denoiser)

    @torch.inference_mode()
    def draw(
        self, cond: Condition, sample_id: Tensor, seed: int, draw_index: int, progress: Progress = no_progress
    ) -> Tensor:
        """One draw of Ω_0 for each sample (Alg. 2), on the model's device, float32 (N, *shape).

        A sample's draw depends only on (seed, draw_index, its id). Decode the codes with `model.representation`.

        Args:
            cond: I(x) of the N samples. sample_id: int64 (N,).
            progress: called with the count of samples done.
        """
        assert len(cond) == len(sample_id)
        model, done = self.model, []
        for start in range(0, len(sample_id), self.batch):
            rows = slice(start, start + self.batch)
            ids: list[int] = sample_id[rows].tolist()

            def noise(k: int, ids: Sequence[int] = ids) -> Tensor:
                return sample_normal(model.shape, ids, seed, "draw", draw_index, k).to(model.device)

            part = cond if self.batch >= len(sample_id) else cond.select(rows)
            e0_NE = self._embed(part.to(model.device))
            code = self._sample(self._denoiser(e0_NE), noise, model.schedule, self.sampling)
            done.append(model.representation.normalise(code) if self.sampling.renormalise else code)
            progress(min(start + self.batch, len(sample_id)), "")
        if len(done) == 1:
            return done[0]
        return torch.cat(done) if done else torch.empty((0, *model.shape), device=model.device)

    def _denoiser(self, e0_NE: Tensor) -> Denoise:
        """The denoiser as a sampler calls it, which works ahead for as many timesteps as `_ROWS_AHEAD` allows."""
        ahead: dict[int, Callable[[Tensor], Tensor]] = {}
        count = max(1, _ROWS_AHEAD // len(e0_NE))

        def denoise(omega_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
            if t not in ahead:
                ahead.clear()
                if t in self._times:
                    start = self._times.index(t)
                    times, time_SE = self._times[start : start + count], self._time_SE[start : start + count]
                else:  # a sampler whose timesteps depend on the values
                    times, time_SE = [t], self.model.embed_times([t])
                ahead.update(zip(times, self._outputs_at(time_SE[:, None] + e0_NE), strict=True))
            return self.model.split(ahead[t](omega_t).float(), omega_t, t)

        return denoise


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
    """A single draw of each sample, see `Drawer.draw`."""
    return Drawer(model, sampling, batch).draw(cond, sample_id, seed, draw_index, progress)
