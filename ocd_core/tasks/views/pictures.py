"""Figures of view synthesis: a page of test views like the paper's Fig. 2, and a flight around the scene.

Dims: N views, F frames of the flight, H height, W width, V training views.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ocd_core.drawing import new_figure, save_figure
from ocd_core.progress import Progress, no_progress, progress_bar
from ocd_core.samples import Batch, only
from ocd_core.tasks.views.demo_scene import look_at_middle
from ocd_core.tasks.views.quality import psnr
from ocd_core.tasks.views.sources import Views
from ocd_core.tasks.views.split import ViewSplit
from ocd_core.tasks.views.task import ViewSynthesis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ocd_core.predictor import Predictor
    from ocd_core.store import OverfitStore

PAGE_VIEWS = 5
FRAMES = 40
_FRAME_MS = 100
_GIF_SIDE = 240  # smaller views are enlarged, by a whole factor, until their longer side has at least this many pixels
_STRIP, _GAP = 22, 8  # pixels: height of the captions above a flight's images, and gap between the images
_SHOWN = 0.995  # the share of all errors that the colour scale covers


def draw(predictor: "Predictor", prepared: Path, bound: "OverfitStore", dest: Path) -> None:
    """Write `views.png` and `fly_round.gif` (the domain's `Task.pictures`)."""
    task = predictor.task
    train, test = task.open(prepared, "train"), task.open(prepared, "test")
    assert isinstance(train, ViewSplit)
    assert isinstance(test, ViewSplit)
    rows = page_rows(len(test))
    pose_F44 = fly_round_poses(train.views.pose_V44, FRAMES)
    with progress_bar("pictures", len(rows) + FRAMES) as progress:
        outputs = page_outputs(predictor, test, bound, rows, progress)
        save_figure(page_figure(rows, test.views.image_VHWC[rows], outputs), dest / "views.png")
        flight = fly_round(predictor, test, pose_F44, lambda done, note: progress(len(rows) + done, note))
    (dest / "fly_round.gif").write_bytes(side_by_side_gif(flight))


def page_rows(count: int) -> Tensor:
    """The rows of the test split that the page shows, int64: the middles of five equal parts; the same in all runs.

    The ends are left out, since a test split is often one flight around the scene that ends where it began.
    """
    shown = min(PAGE_VIEWS, count)
    return torch.div((2 * torch.arange(shown) + 1) * count, 2 * shown, rounding_mode="floor")


def page_outputs(
    predictor: "Predictor", test: ViewSplit, bound: "OverfitStore", rows: Tensor, progress: Progress = no_progress
) -> dict[str, Tensor]:
    """The outputs of the table's rows `base`, `ocd` (one draw) and `bound` for these test views, each (N, H, W, 3)."""
    found: dict[str, list[Tensor]] = {"base": [], "OCD": [], "bound": []}
    for done, row in enumerate(rows, 1):
        batch = test.batch(row.reshape(1))
        base = predictor.base_pass(batch)
        delta_1OI = torch.from_numpy(bound.deltas_of_samples(batch.sample_id.numpy()))
        found["bound"].append(only(predictor.answer(base, delta_1OI)))
        found["base"].append(only(base.output))
        found["OCD"].append(only(predictor.predict_pass(base, batch.sample_id, 1, "ensemble").output))
        progress(done, f"view {int(row)}")
    return {name: torch.cat(views) for name, views in found.items()}


def error_maps(output_NHW3: Tensor, target_NHW3: Tensor) -> Tensor:
    """The absolute error of each pixel, averaged over the three colours, (N, H, W)."""
    return (output_NHW3 - target_NHW3).abs().mean(-1)


def page_figure(rows: Sequence[int] | Tensor, target_NHW3: Tensor, outputs: Mapping[str, Tensor]) -> "Figure":
    """One row per view: photograph, outputs with MSE and PSNR, and error maps on a common colour scale.

    Args:
        rows: the numbers of the views.
        target_NHW3: the photographs, with colours in 0..1.
        outputs: name -> (N, H, W, 3).
    """
    maps = {name: error_maps(output, target_NHW3) for name, output in outputs.items()}
    everything = torch.cat([m.double().flatten() for m in maps.values()])
    top = max(float(np.quantile(everything.numpy(), _SHOWN)), 1e-6)
    pictures = {"ground truth": target_NHW3, **outputs}
    height, width = target_NHW3.shape[1:3]
    cell = 1.55
    columns = 1 + 2 * len(outputs)
    figure, axes = new_figure(
        len(target_NHW3), columns, (cell * columns + 1.1, (cell * height / width + 0.22) * len(target_NHW3) + 0.3)
    )
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)  # inches; shares of an axis
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        axis.xaxis.labelpad = 2
    for column, (name, picture_NHW3) in enumerate(pictures.items()):
        axes[0, column].set_title(name, fontsize=10)
        for i, axis in enumerate(axes[:, column]):
            axis.imshow(picture_NHW3[i].clamp(0, 1).float().numpy())
            if name in outputs:
                mse = float((picture_NHW3[i] - target_NHW3[i]).square().mean())
                axis.set_xlabel(f"MSE {mse:.5f} · {psnr(mse):.1f} dB", fontsize=8)
    shown = None
    for column, (name, map_NHW) in enumerate(maps.items(), len(pictures)):
        axes[0, column].set_title(f"error of {name}", fontsize=10)
        for i, axis in enumerate(axes[:, column]):
            shown = axis.imshow(map_NHW[i].float().numpy(), vmin=0, vmax=top, cmap="magma")
    for row, axis in zip(rows, axes[:, 0], strict=True):
        axis.set_ylabel(f"test view {int(row)}", fontsize=9)
    assert shown is not None
    maps_axes = list(axes[:, len(pictures) :].flat)
    bar = figure.colorbar(shown, ax=maps_axes, extend="max", extendfrac=0.015, aspect=60, pad=0.01)
    bar.set_label("absolute error, mean over colours", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    return figure


def fly_round_poses(pose_V44: Tensor, frames: int) -> Tensor:
    """Poses on a level circle around the z axis that look at the origin, camera-to-world (F, 4, 4) float32.

    The distance from the origin and the elevation are the medians over the given cameras; frame F would equal frame 0.
    """
    position_V3 = pose_V44[:, :3, 3].double()
    distance_V = torch.linalg.vector_norm(position_V3, dim=-1)
    distance = distance_V.quantile(0.5)
    elevation = torch.asin(position_V3[:, 2] / distance_V).quantile(0.5)
    angle_F = 2 * math.pi * torch.arange(frames, dtype=torch.float64) / frames
    level = elevation.cos()
    position_F3 = torch.stack([level * angle_F.cos(), level * angle_F.sin(), elevation.sin().expand(frames)], -1)
    return look_at_middle(distance * position_F3).float()


def fly_round(
    predictor: "Predictor", like: ViewSplit, pose_F44: Tensor, progress: Progress = no_progress
) -> dict[str, Tensor]:
    """Outputs of the base and of OCD at poses without a photograph, each (F, H, W, 3), as in `ocd predict`, one draw.

    Every frame is a separate unseen input: I(x) belongs to that pose, and the frame has its own Δ, the first draw, with
    nothing chosen or averaged. All frames share one sample id (0, as in `ocd predict`) and therefore the noise that the
    sampler starts from, so what changes between frames comes from I(x). With separate noise the frames would also
    differ by the spread of the draws, which this hides; the table's rows with several draws show how large it is.

    Args:
        like: a split with the camera's image size and focal length.
    """
    task = predictor.task
    assert isinstance(task, ViewSynthesis)
    blank_FHW3 = torch.zeros(1, 1, 1, 1).expand(len(pose_F44), *like.views.image_VHWC.shape[1:])
    split = ViewSplit(Views(blank_FHW3, pose_F44, like.views.focal), "fly-round", task.data)
    one_id = torch.zeros(1, dtype=torch.int64)
    found: dict[str, list[Tensor]] = {"base": [], "OCD": []}
    for frame in range(len(pose_F44)):
        posed = split.batch(torch.tensor([frame]))
        base = predictor.base_pass(Batch(posed.inputs, posed.target, one_id))
        found["base"].append(only(base.output))
        found["OCD"].append(only(predictor.predict_pass(base, one_id, 1, "ensemble").output))
        progress(frame + 1, "fly-round")
    return {name: torch.cat(views) for name, views in found.items()}


def side_by_side_gif(flight: Mapping[str, Tensor]) -> bytes:
    """An endless GIF of flights (name -> (F, H, W, 3), colours in 0..1), side by side under their names.

    Small images are enlarged by repeating pixels, so that the GIF shows what was rendered. All frames share a palette.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = next(iter(flight.values())).shape[1:3]
    factor = max(1, math.ceil(_GIF_SIDE / max(height, width)))
    height, width = height * factor, width * factor
    strip = Image.new("RGB", (len(flight) * (width + _GAP) - _GAP, _STRIP), "white")
    pen = ImageDraw.Draw(strip)
    for i, name in enumerate(flight):
        place = (i * (width + _GAP) + width / 2, _STRIP / 2)
        pen.text(place, name, fill="black", font=ImageFont.load_default(15), anchor="mm")
    frames = []
    for pictures in zip(*flight.values(), strict=True):
        canvas = np.full((_STRIP + height, strip.width, 3), 255, np.uint8)
        canvas[:_STRIP] = np.asarray(strip)
        for i, picture_HW3 in enumerate(pictures):
            values = (picture_HW3.clamp(0, 1).float().numpy() * 255).round().astype(np.uint8)
            left = i * (width + _GAP)
            canvas[_STRIP:, left : left + width] = values.repeat(factor, 0).repeat(factor, 1)
        frames.append(canvas)
    palette = Image.fromarray(np.concatenate(frames)).quantize(256)
    coded = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    file = io.BytesIO()
    coded[0].save(file, "GIF", save_all=True, append_images=coded[1:], duration=_FRAME_MS, loop=0)
    return file.getvalue()
