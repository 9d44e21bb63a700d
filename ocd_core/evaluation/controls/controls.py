"""The fitted controls of a run: what `train_controls` writes and evaluation loads.

Dims: O out_features, I in_features.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.codes.representations import representation_class
from ocd_core.evaluation.controls.hypernetwork import Hypernetwork
from ocd_core.evaluation.controls.ridge import Ridge
from ocd_core.evaluation.controls.space import DeltaSpace
from ocd_core.weights import described_by, load_network, load_strictly, save_network

KIND = "controls"


@dataclass(frozen=True)
class Controls:
    """None stands for what was not fitted.

    mean_rho: mean ‖Δ‖ of the training rows. mean_delta_OI: float32. further: the base network trained further, in eval
    mode. gain: the factor of a drawn Δ. cost_flops: operations of training, {"ocd": {part:
    count, "total": count}, "base_further": {"allowed": count, "total": count}}.
    """

    mean_rho: float
    mean_delta_OI: Tensor | None
    further: nn.Module | None
    space: DeltaSpace | None
    ridge: Ridge | None
    hypernetwork: Hypernetwork | None
    gain: float | None
    cost_flops: dict[str, dict[str, int]]

    def _modules(self) -> dict[str, nn.Module]:
        found = {"further": self.further, "space": self.space, "ridge": self.ridge, "hypernetwork": self.hypernetwork}
        return {name: module for name, module in found.items() if module is not None}

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json`."""
        state = {f"{name}.{key}": v for name, m in self._modules().items() for key, v in m.state_dict().items()}
        if self.mean_delta_OI is not None:
            state["mean_delta"] = self.mean_delta_OI
        config: dict[str, Any] = {"mean_rho": self.mean_rho, "gain": self.gain, "cost_flops": self.cost_flops}
        config["fitted"] = [*self._modules(), *(["mean_delta"] if self.mean_delta_OI is not None else [])]
        if self.space is not None:
            space = self.space.representation
            config["space"] = {"name": space.name, "args": space.config()}
        if self.ridge is not None:
            config["ridge"] = [*self.ridge.x_ND.shape, self.ridge.alpha_Nd.shape[1]]
        if self.hypernetwork is not None:
            encoder = self.hypernetwork.encoder
            config["hypernetwork"] = {"condition_sizes": list(encoder.sizes), "width": encoder.dim}
        save_network(folder, KIND, state, config)

    @classmethod
    def load(cls, folder: Path, base: nn.Module, device: torch.device | str = "cpu") -> "Controls":
        """What `save` wrote, in eval mode, on a device.

        Args:
            base: a network like the one that was trained further; its weights are replaced.

        Raises:
            UserError: missing, damaged or foreign files, or tensors that do not match the config.
        """
        state, config = load_network(folder, KIND)
        with described_by(folder):
            fitted = config["fitted"]
            mean_delta = state.pop("mean_delta").to(device) if "mean_delta" in fitted else None
            space = hypernetwork = None
            if "space" in fitted:
                space = DeltaSpace(representation_class(config["space"]["name"])(**config["space"]["args"]))
            ridge = Ridge(*config["ridge"]) if "ridge" in fitted else None
            if "hypernetwork" in fitted:
                assert space is not None
                described = config["hypernetwork"]
                encoder = ConditionEncoder(described["condition_sizes"], described["width"])
                hypernetwork = Hypernetwork(encoder, space.size)
            further = base if "further" in fitted else None
            self = cls(
                config["mean_rho"], mean_delta, further, space, ridge, hypernetwork, config["gain"],
                config["cost_flops"],
            )  # fmt: skip
        load_strictly(nn.ModuleDict(self._modules()), state, folder)
        for module in self._modules().values():
            module.eval().requires_grad_(False).to(device)
        return self
