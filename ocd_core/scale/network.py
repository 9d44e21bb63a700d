"""The scale network ρ(x, I(x)) (section 3.2), with its own encoders.

With SGD, ρ spans six decades: the network's output is exp(·), so that all scales are equally easy to reach.

Dims: N samples, W width.
"""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.built_size import build_bounded
from ocd_core.codes.condition import ConditionEncoder
from ocd_core.samples import Condition
from ocd_core.scale.params import ScaleParams
from ocd_core.weights import WEIGHTS, BaseId, described_by, load_network, load_strictly, save_network

KIND = "scale"
UNUSED = "unused"  # the key of the reason why there is no network, in the config and the metrics


class ScaleNetwork(nn.Module):
    """ρ(x, I(x)): the encoders' sum, two hidden layers, exp(·). Positive float32 (N,)."""

    def __init__(self, encoder: ConditionEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.dim
        self.hidden = nn.Linear(width, width)
        self.last = nn.Linear(width, 1)

    def forward(self, cond: Condition) -> Tensor:
        """ρ of N samples, (N,)."""
        return self._rho(self.encoder(cond))

    def for_drawing(self) -> Callable[[Condition], Tensor]:
        """`forward` with the present weights, faster for a single sample."""
        encode = self.encoder.for_drawing()
        return lambda cond: self._rho(encode(cond))

    def _rho(self, e_NW: Tensor) -> Tensor:
        h_NW = F.silu(self.hidden(F.silu(e_NW)))
        rho_N: Tensor = self.last(h_NW).squeeze(1).float().exp()
        return rho_N

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.last.weight.device

    @torch.inference_mode()
    def estimate(self, cond: Condition, batch: int = 4096) -> Tensor:
        """`forward` in eval mode and in batches, on the network's device."""
        self.eval()
        parts = [self(cond.select(slice(i, i + batch)).to(self.device)) for i in range(0, len(cond), batch)]
        return torch.cat(parts) if parts else torch.empty(0, device=self.device)

    def save(self, folder: Path, params: ScaleParams, base: BaseId | None = None) -> None:
        """Write `model.safetensors` and `config.json`, which holds the params and names the base network."""
        config = {"params": params.model_dump(mode="json"), "condition_sizes": list(self.encoder.sizes)}
        save_network(folder, KIND, self.state_dict(), config, base)

    @classmethod
    def load(cls, folder: Path) -> "ScaleNetwork | None":
        """Load what `save` wrote, in eval mode, on the CPU; None if `save_unused` wrote it.

        Raises:
            UserError: files are missing, damaged or of another kind, or tensors do not match the config.
        """
        state, config = load_network(folder, KIND)
        if UNUSED in config:
            return None
        with described_by(folder):
            width = ScaleParams.model_validate(config["params"]).width
            self = build_bounded(
                lambda: cls(ConditionEncoder(config["condition_sizes"], width)),
                (tensor.shape for tensor in state.values()),
                folder / WEIGHTS,
            )
        load_strictly(self, state, folder)
        return self.eval()


def save_unused(folder: Path, why: str, base: BaseId | None = None) -> None:
    """Write, in place of a network that nothing would use, the files of `ScaleNetwork.save` without tensors.

    why: the reason, a clause that follows "because".
    """
    save_network(folder, KIND, {}, {UNUSED: why}, base)
