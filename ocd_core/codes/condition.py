"""The conditioning vector e = PE(t) + E_i(i_L) + E_a(a_L) + E_o(f_θ(x)) of sections 3.1 and 3.3.

Only PE(t) changes during a draw; the other three summands are computed once per sample.

Dims: N samples, D features of a component of I(x), E dims of e.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.samples import Condition

PARTS = ("layer_input", "layer_activation", "base_output")  # the order of Eq. 4


def features(cond: Condition) -> Tensor:
    """I(x) as one vector per sample, float32 (N, D)."""
    return torch.cat([part.flatten(1) for part in cond.parts()], 1)


class Standardise(nn.Module):
    """(x - mean) / std per feature; the mean and std of the training samples are buffers.

    A feature that is constant in training (up to float32 rounding) keeps its scale: std 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    @classmethod
    def from_data(cls, x_ND: Tensor) -> "Standardise":
        """Fit on training samples, block by block in float64."""
        self = cls(x_ND.shape[1])
        mean_D = x_ND.mean(0, dtype=torch.float64)
        squares_D = torch.zeros_like(mean_D)
        for block in torch.split(x_ND, 4096):
            squares_D += ((block.double() - mean_D) ** 2).sum(0)
        std_D = (squares_D / len(x_ND)).sqrt()
        constant_D = std_D <= 1e-6 * mean_D.abs()
        self.mean.copy_(mean_D)
        self.std.copy_(torch.where(constant_D, 1.0, std_D))
        return self

    def forward(self, x_ND: Tensor) -> Tensor:
        """Standardised features, (N, D)."""
        return (x_ND - self.mean) / self.std


class ConditionEncoder(nn.Module):
    """E_i + E_a + E_o: each is one fully-connected layer from standardised features to `dim` (section 3.3).

    A component without features (I(x) of a text task is only its embedding) has no encoder and adds nothing.

    Args:
        sizes: features of i_L, a_L and f_θ(x), each flattened.
        dim: dims of e.
    """

    def __init__(self, sizes: Sequence[int], dim: int) -> None:
        super().__init__()
        assert len(sizes) == len(PARTS), f"{len(sizes)} sizes of the parts of I(x) instead of {len(PARTS)}"
        assert any(sizes), "no part of I(x) has features"
        assert min(sizes) >= 0, f"a part of I(x) has {min(sizes)} features"
        self.sizes, self.dim = tuple(sizes), dim
        present = [(name, size) for name, size in zip(PARTS, sizes, strict=True) if size]
        self.standardise = nn.ModuleDict({name: Standardise(size) for name, size in present})
        self.encoders = nn.ModuleDict({name: nn.Linear(size, dim) for name, size in present})

    @classmethod
    def from_condition(cls, cond: Condition, dim: int) -> "ConditionEncoder":
        """Encoders with fresh weights, standardised by these conditions (training samples only).

        Raises:
            UserError: there are no samples, or a component holds NaN or infinity.
        """
        if len(cond) == 0:
            raise UserError("there are no training samples to fit the encoders of I(x) on")
        flat = [p.flatten(1) for p in cond.parts()]
        for name, x_ND in zip(PARTS, flat, strict=True):
            if not torch.isfinite(x_ND).all():
                raise UserError(f"{name} of I(x) holds NaN or infinity; check what Task.condition returns")
        self = cls([x.shape[1] for x in flat], dim)
        for name, x_ND in zip(PARTS, flat, strict=True):
            if name in self.standardise:
                self.standardise[name] = Standardise.from_data(x_ND)
        return self

    def forward(self, cond: Condition) -> Tensor:
        """The part of e that does not depend on t, (N, E) float32.

        Raises:
            UserError: the number of features of a component differs from that in training.
        """
        total: Tensor | None = None
        for name, x_ND in zip(PARTS, self._flat(cond), strict=True):
            if name in self.encoders:
                e_NE = self.encoders[name](self.standardise[name](x_ND))
                total = e_NE if total is None else total + e_NE
        assert total is not None
        return total

    def _flat(self, cond: Condition) -> list[Tensor]:
        parts = [part.flatten(1) for part in cond.parts()]
        for name, size, x_ND in zip(PARTS, self.sizes, parts, strict=True):
            if x_ND.shape[1] != size:
                raise UserError(f"{name} of I(x) has {x_ND.shape[1]} features, the encoders were trained on {size}")
        return parts

    def for_drawing(self) -> Callable[[Condition], Tensor]:
        """`forward` with the present weights, as one product, which is several times as fast for a single sample."""
        names, tensors = list(self.encoders), self.state_dict()
        mean_D = torch.cat([tensors[f"standardise.{name}.mean"] for name in names])
        std_D = torch.cat([tensors[f"standardise.{name}.std"] for name in names])
        weight_ED = torch.cat([tensors[f"encoders.{name}.weight"] for name in names], 1)
        bias_E = torch.stack([tensors[f"encoders.{name}.bias"] for name in names]).sum(0)

        def encode(cond: Condition) -> Tensor:
            return F.linear((torch.cat(self._flat(cond), 1) - mean_D) / std_D, weight_ED, bias_E)

        return encode


def positional_encoding(t: Tensor, dim: int) -> Tensor:
    """Sine and cosine encoding of timesteps (Vaswani et al., 2017).

    t: (N,), any number type. Returns float32 (N, dim): sines of t / 10000^(2i/dim) in the even columns,
    cosines in the odd ones. `dim` must be even.
    """
    assert dim % 2 == 0
    rates = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64, device=t.device) * (-math.log(10000.0) / dim))
    angles = t.double()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()


class TimeEncoder(nn.Module):
    """PE(t): the sine and cosine encoding, then one layer that trains with ε_Ω (Alg. 1, line 10 updates PE).

    Args:
        timesteps: T; t runs from 1 to T.
        dim: dims of e.
    """

    encoding: Tensor

    def __init__(self, timesteps: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("encoding", positional_encoding(torch.arange(timesteps + 1), dim), persistent=False)
        self.layer = nn.Linear(dim, dim)

    def forward(self, t: Tensor) -> Tensor:
        """t: int64 (N,) in 1..T. Returns (N, E)."""
        encoded: Tensor = self.layer(self.encoding[t])
        return encoded
