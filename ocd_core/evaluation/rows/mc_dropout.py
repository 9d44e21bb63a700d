"""`mc_dropout`: networks of random dropout masks as draws (Gal and Ghahramani, 2016).

The base network is trained with dropout in each of its dropout layers, from fresh weights and with at most the epochs
that cost the same as OCD's training; at test time the masks stay on, as many times as the rows of OCD have draws.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import CombinedRow, Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.training import fit_base, starting_network
from ocd_core.rng import derive_seed
from ocd_core.samples import SplitName, Tensors, concatenate, map_tensors, rows_at_once, stack, whole_split
from ocd_core.strict import Fraction, PositiveInt, StrictModel


class McDropoutParams(StrictModel):
    """`controls.mc_dropout`."""

    p: Fraction  # of each dropout layer
    epochs: PositiveInt | None  # at most; null: as many as cost the same as OCD's training, and at most base.epochs


class McDropout(CombinedRow, FittedRow):
    """The combined outputs of the masked networks, in float32."""

    Params = McDropoutParams
    quick: ClassVar[Mapping[str, Any]] = {"p": 0.1, "epochs": 1}
    params: McDropoutParams
    whole_split = True
    network: nn.Module

    @property
    def title(self) -> str:
        """The title says how many masks there are."""
        return f"MC dropout of {self.context.draws}"

    def left_out(self) -> str | None:
        """Without dropout layers, all masks are the same; the training is from fresh weights."""
        if not _dropouts(self.context.as_built):
            return "the base network has no dropout layers"
        if not self.params.p:
            return "controls.mc_dropout.p is 0"
        return self.context.not_afresh or self.context.all_frozen

    def fit(self, fitting: Fitting) -> Fit:
        """Train with early stopping, on the run's device."""
        epoch_flops, affordable = fitting.affordable(fitting.task)
        base = fitting.params.base
        epochs = min(affordable, base.epochs) if self.params.epochs is None else self.params.epochs
        seed = derive_seed(fitting.seed, "mc dropout")
        found = fit_base(
            fitting.task,
            fitting.split("train"),
            fitting.split("val"),
            base.shortened(epochs),
            seed,
            start=self._with_dropout(starting_network(fitting.task, seed)[0]),
            device=fitting.device,
        )
        self.network = found.model
        used = epoch_flops * int(found.metrics["epochs"])
        return Fit(found.metrics, found.curve, {"allowed": epoch_flops * epochs, "total": used})

    def _with_dropout(self, network: nn.Module) -> nn.Module:
        for module in _dropouts(network):
            module.p = self.params.p
        return network

    def tensors(self) -> Mapping[str, Tensor]:
        """All weights."""
        return self.network.state_dict()

    def load(self, saved: Saved) -> None:
        """Load into a network that the task builds; only its dropout layers are in training mode."""
        self.network = self._with_dropout(self.context.task.build_model())
        saved.load_into(self.network)
        self.network.to(self.context.device)
        for module in _dropouts(self.network):
            module.train()

    def distribution(self, shared: SharedPass) -> Tensors:
        """The masked networks' outputs, each (K, N, ...)."""
        rows, kept = shared.batch.sample_id, self._of_split(shared.split)
        if len(kept) == 1:
            found = map_tensors(lambda x: x[:, rows], kept[0])
        else:
            found = concatenate([kept[row] for row in rows.tolist()], axis=1)
        return map_tensors(lambda x: x.to(self.context.device), found)

    def _of_split(self, name: SplitName) -> list[Tensors]:
        """For a whole split, on the CPU: masks must not depend on how the evaluation divides it.

        One value, each (K, N, ...); or one for each sample, each (K, 1, ...), if samples differ in shape.
        """
        if name not in self._kept:
            split = self.context.unlabelled(name)
            size = rows_at_once(split, self.context.task.evaluation_batch)
            parts = []
            for chunk, rows in enumerate(torch.split(whole_split(split), size)):
                inputs = split.batch(rows).to(self.context.device).inputs
                parts.append(stack([self._masked(inputs, k, name, chunk) for k in range(self.context.draws)]))
            # answers may be as long as their samples
            self._kept[name] = parts if size == 1 else [concatenate(parts, axis=1)]
        return self._kept[name]

    def _masked(self, inputs: tuple[Tensor, ...], k: int, name: SplitName, chunk: int) -> Tensors:
        device = self.context.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(derive_seed(self.context.seed, "mc dropout", name, k, chunk))
            return map_tensors(Tensor.cpu, self.network(*inputs))

    @cached_property
    def _kept(self) -> dict[SplitName, list[Tensors]]:
        return {}


def _dropouts(network: nn.Module) -> list[Any]:
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
    return [module for module in network.modules() if isinstance(module, kinds)]


ROW = McDropout
