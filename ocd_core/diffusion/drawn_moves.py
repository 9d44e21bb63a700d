"""Draws of Δ through which gradients pass, so that a diffusion model can be trained on the task's loss under θ + Δ.

Dims: N samples, K draws, E dims of e.
"""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ocd_core.diffusion.model import DiffusionModel
from ocd_core.network.moves import Move
from ocd_core.rng import sample_normal
from ocd_core.samples import Condition

Rho = Callable[[Condition], Tensor]
# (denoise, noise) -> codes, as samplers take them. It is given from outside: what trains with the answer in one step
# does not depend on the code of samplers, which `sampling` names
Draw = Callable[[Callable[[Tensor, int], tuple[Tensor, Tensor]], Callable[[int], Tensor]], Tensor]


def answer_at(timestep: int) -> Draw:
    """The draw in one step: Ω̂_0 at Ω_T."""
    return lambda denoise, noise: denoise(noise(0), timestep)[0]


class DrawnMoves:
    """K draws of Δ for each sample, differentiable in the model; see `ocd_core.network.moved_loss.GivesMoves`.

    Args:
        rho: the length of Δ, which is not trained; None if the representation has no separate scale.
        draw: gives the codes. renormalise: bring them to the norm of encoded Δ, if that is fixed.
    """

    def __init__(
        self, model: DiffusionModel, rho: Rho | None, draws: int, draw: Draw, renormalise: bool, seed: int
    ) -> None:
        assert rho is not None or not model.representation.uses_scale
        self.model, self.rho, self.draws, self.draw = model, rho, draws, draw
        self.renormalise, self.seed = renormalise, seed

    def __call__(
        self, cond: Condition, layer_input_NI: Tensor | None, counter: Tensor, update: int | None
    ) -> Iterator[Move]:
        """K moves of each of N samples; the noise depends on (seed, update, draw, counter)."""
        model, ids = self.model, counter.tolist()
        e0_NE = model.embed(cond)
        rho_N = self._scale(cond)
        purpose = ("tuning validation",) if update is None else ("tuning", update)

        def noise(draw: int, k: int) -> Tensor:
            return sample_normal(model.shape, ids, self.seed, *purpose, draw, k).to(model.device)

        def denoise(omega_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
            at = torch.full((1,), t, dtype=torch.int64, device=model.device)
            return model.split(model.predict(omega_t, at, e0_NE), omega_t, t)

        for draw in range(self.draws):
            code = self.draw(denoise, partial(noise, draw))
            if self.renormalise:
                code = model.representation.normalise(code)
            yield model.representation.move(code, rho_N, layer_input_NI)

    @torch.no_grad()
    def _scale(self, cond: Condition) -> Tensor | None:
        return None if self.rho is None else self.rho(cond)
