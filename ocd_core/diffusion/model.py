"""The trained model: encoders of I(x), PE, ε_Ω, the representation and the schedule, in one folder on disk."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocd_core.built_size import build_bounded
from ocd_core.codes.condition import ConditionEncoder, TimeEncoder
from ocd_core.codes.representations import representation_class
from ocd_core.codes.representations.base import Representation
from ocd_core.diffusion.denoisers import build_denoiser
from ocd_core.diffusion.params import DiffusionParams
from ocd_core.diffusion.schedules import make_schedule, split_prediction
from ocd_core.samples import Condition
from ocd_core.weights import WEIGHTS, BaseId, described_by, load_network, load_strictly, save_network

KIND = "diffusion"


class DiffusionModel(nn.Module):
    """ε_Ω(Ω_t, (I(x), t)) of Eq. 7, and the representation that turns its draws into Δ.

    Args:
        encoder: E_i + E_a + E_o with their standardisation.
        representation: the space of the codes; part of the model, so that a draw can be decoded.
        params: the `diffusion` group.
    """

    def __init__(self, encoder: ConditionEncoder, representation: Representation, params: DiffusionParams) -> None:
        super().__init__()
        self.params = params
        self.schedule = make_schedule(params.schedule, params.timesteps)
        self.encoder = encoder
        self.time = TimeEncoder(params.timesteps, params.embedding)
        self.denoiser = build_denoiser(params.denoiser, representation.shape, params.embedding)
        self.representation = representation

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one code."""
        return self.representation.shape

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.time.layer.weight.device

    def embed(self, cond: Condition) -> Tensor:
        """The part of e that does not depend on t, (N, E); computed once per sample."""
        e_NE: Tensor = self.encoder(cond)
        return e_NE

    def predict(self, omega_t: Tensor, t: Tensor, e0_NE: Tensor) -> Tensor:
        """The denoiser's raw output (ε, Δ or v, by `params.prediction`), float32 (N, *shape).

        omega_t: (N, *shape). t: int64 (N,) or (1,), in 1..T. e0_NE: from `embed`.
        """
        output: Tensor = self.denoiser(omega_t, e0_NE + self.time(t))
        return output.float()

    def embed_times(self, times: Sequence[int]) -> Tensor:
        """PE(t), the part of e that does not depend on the sample, at S timesteps, (S, E)."""
        time_SE: Tensor = self.time(torch.tensor(times, dtype=torch.int64, device=self.device))
        return time_SE

    def split(self, output: Tensor, omega_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """(Ω̂_0, ε̂) from the denoiser's output at Ω_t, as samplers need it."""
        bar = self.schedule.bars[t]
        return split_prediction(self.params.prediction, output, omega_t, math.sqrt(bar), math.sqrt(1 - bar))

    def save(self, folder: Path, base: BaseId | None = None) -> None:
        """Write `model.safetensors` and `config.json`, which names the base network that the model is for."""
        config: dict[str, Any] = {
            "params": self.params.model_dump(mode="json"),
            "condition_sizes": list(self.encoder.sizes),
            "representation": {"name": self.representation.name, "args": self.representation.config()},
        }
        save_network(folder, KIND, self.state_dict(), config, base)

    @classmethod
    def load(cls, folder: Path) -> "DiffusionModel":
        """Load what `save` wrote, in eval mode, on the CPU.

        Raises:
            UserError: files are missing, damaged or of another kind, or tensors do not match the config.
        """
        state, config = load_network(folder, KIND)
        with described_by(folder):
            self = build_bounded(lambda: cls._described(config), (t.shape for t in state.values()), folder / WEIGHTS)
        load_strictly(self, state, folder)
        return self.eval()

    @classmethod
    def _described(cls, config: dict[str, Any]) -> "DiffusionModel":
        params = DiffusionParams.model_validate(config["params"])
        encoder = ConditionEncoder(config["condition_sizes"], params.embedding)
        described = config["representation"]
        representation = representation_class(described["name"])(**described["args"])
        return cls(encoder, representation, params)
