"""TinyNeRF (Murthy, 2020): a radiance field of three linear layers, including its volume rendering.

Dims: N views, ... ray axes (one, or rows and columns of an image), D depths along a ray.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.models.parts.rendering import VolumeWeights, volume_render


def encode(x: Tensor, frequencies: int) -> Tensor:
    """x, sin(x), cos(x), sin(2x), cos(2x), sin(4x), ... along the last axis: (..., 3) to (..., 3 + 6 · frequencies)."""
    parts = [x]
    for k in range(frequencies):
        parts += [torch.sin(x * 2.0**k), torch.cos(x * 2.0**k)]
    return torch.cat(parts, -1)


class TinyNeRF(nn.Module):
    """`layer1` (63 -> width) - `layer2` - `layer3` (-> colour and density), ReLU, then volume rendering.

    Inputs: origins (N, ..., 3) and directions (N, ..., 3) of rays, and depths (N, ..., D) along each ray.
    Output: colours (N, ..., 3) in 0..1. The field reads positions origin + depth · direction, so the layers see many
    positions per sample: (N, ..., D, 63).

    Args:
        width: the number of hidden units.
        frequencies: the number of frequencies of the positional encoding, 2^0 to 2^(frequencies − 1).
        direction_frequencies: the same for the unit viewing direction, which is then an input too; None (as cited and
            released): positions only.
        background: `black` or `white`, the colour of a ray that meets nothing.
    """

    fx_leaves = fx_observed = ("weigh",)
    independent_elements = True  # rays

    def __init__(
        self,
        width: int = 128,
        frequencies: int = 10,
        direction_frequencies: int | None = None,
        background: str = "black",
    ) -> None:
        super().__init__()
        if width < 1 or frequencies < 0 or (direction_frequencies or 0) < 0:
            raise ValueError("width must be at least 1 and frequencies at least 0")
        if background not in ("black", "white"):
            raise ValueError(f"background must be 'black' or 'white', not {background!r}")
        self.frequencies = frequencies
        self.direction_frequencies = direction_frequencies
        self.background = float(background == "white")
        features = 3 + 6 * frequencies
        if direction_frequencies is not None:
            features += 3 + 6 * direction_frequencies
        self.layer1 = nn.Linear(features, width)
        self.layer2 = nn.Linear(width, width)
        self.layer3 = nn.Linear(width, 4)
        self.weigh = VolumeWeights()

    def field(self, origins: Tensor, directions: Tensor, depths: Tensor) -> Tensor:
        """Colour and density at each depth before their non-linearities, (N, ..., D, 4)."""
        points = origins.unsqueeze(-2) + directions.unsqueeze(-2) * depths.unsqueeze(-1)
        h = encode(points, self.frequencies)
        if self.direction_frequencies is not None:
            view = encode(F.normalize(directions, dim=-1), self.direction_frequencies).unsqueeze(-2)
            h = torch.cat([h, view + torch.zeros_like(points[..., :1])], -1)
        h = F.relu(self.layer1(h))
        h = F.relu(self.layer2(h))
        out: Tensor = self.layer3(h)
        return out

    def forward(self, origins: Tensor, directions: Tensor, depths: Tensor) -> Tensor:
        """Colours of rays."""
        field = self.field(origins, directions, depths)
        return volume_render(field, self.weigh(field[..., 3], depths), self.background)

    def depth_weights(self, origins: Tensor, directions: Tensor, depths: Tensor) -> Tensor:
        """How much each depth contributes to its ray's colour, (N, ..., D)."""
        weights: Tensor = self.weigh(self.field(origins, directions, depths)[..., 3], depths)
        return weights


MODEL = TinyNeRF
