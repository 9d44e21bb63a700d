"""Posed photographs of one split, as images of rays or as rays in a random order.

Dims: N views, R rays, H height, W width, D depths along a ray.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_core.models.parts.rendering import camera_rays, depths_in_bins, pixel_xy
from ocd_core.rng import permutation
from ocd_core.samples import Batch, only
from ocd_core.tasks.views.params import ViewsData
from ocd_core.tasks.views.sources import Views


@dataclass(frozen=True)
class ViewSplit:
    """Posed images of one split; a batch gives whole views as images of rays."""

    views: Views
    name: str
    data: ViewsData

    def __len__(self) -> int:
        return len(self.views)

    @property
    def pixels(self) -> int:
        """The number of pixels of a view."""
        return self.views.image_VHWC.shape[1] * self.views.image_VHWC.shape[2]

    def batch(self, sample_id: Tensor) -> Batch:
        """Whole views: origins, directions (N, H, W, 3), mid-bin depths (N, H, W, D); target (N, H, W, 3)."""
        height, width = self.views.image_VHWC.shape[1:3]
        batch = self.rays(sample_id, torch.arange(self.pixels).expand(len(sample_id), -1))
        shape = (len(sample_id), height, width, -1)
        return Batch(tuple(x.reshape(shape) for x in batch.inputs), only(batch.target).reshape(shape), sample_id)

    def rays(self, sample_id: Tensor, pixel_NR: Tensor, position_NRD: Tensor | None = None) -> Batch:
        """Chosen pixels of views: origins, directions (N, R, 3), depths (N, R, D); target (N, R, 3); float32.

        Args:
            pixel_NR: row · width + column, int64.
            position_NRD: in 0..1, the place of each depth within its bin; None: its middle.
        """
        if position_NRD is None:
            position_NRD = torch.full((*pixel_NR.shape, self.data.depths), 0.5)
        views = self.views
        height, width = views.image_VHWC.shape[1:3]
        origins, directions = camera_rays(
            views.pose_V44[sample_id], pixel_xy(pixel_NR, width), height, width, views.focal
        )
        target_NR3 = views.image_VHWC.flatten(1, 2)[sample_id[:, None], pixel_NR]
        depths = depths_in_bins(self.data.near, self.data.far, position_NRD)
        return Batch((origins, directions, depths), target_NR3, sample_id)


def in_random_order(split: ViewSplit, sample_id: Tensor, replica: Tensor, place_R: Tensor, seed: int) -> Batch:
    """The rays at these places of each view's own random order of pixels."""
    return split.rays(sample_id, pixels_in_random_order(split, sample_id, replica, place_R, seed))


def pixels_in_random_order(split: ViewSplit, sample_id: Tensor, replica: Tensor, place_R: Tensor, seed: int) -> Tensor:
    """The pixels at these places of the order, which starts again after its end; int64 (N, R)."""
    pixels = [
        permutation(split.pixels, seed, "rays of overfitting", split.name, i, r)[place_R % split.pixels]
        for i, r in zip(sample_id.tolist(), replica.tolist(), strict=True)
    ]
    return torch.stack(pixels)
