"""Novel view synthesis: a radiance field of one scene; a sample is one posed image of it.

Overfitting sees a view as batches of rays, evaluation as the whole image. I(x) comes from the base network's own
rendering of the view, never from the photograph, which is the label.

Dims: N views, R rays, H height, W width, D depths along a ray, C channels, K networks of an ensemble.
"""

import json
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.files import path_of
from ocd_core.models.parts.rendering import focal_length
from ocd_core.models.parts.vgg import VGG11Features, load_vgg11_features, pooled_features
from ocd_core.rng import numpy_generator, permutation
from ocd_core.samples import SPLITS, Batch, Condition, Split, SplitName, only, paired
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric
from ocd_core.tasks.draws_inputs import DrawsInputs
from ocd_core.tasks.overlap import SHARED_ROWS, row_hashes, shared_rows
from ocd_core.tasks.prepared import split_file, split_tensors
from ocd_core.tasks.views.intrinsics import check_intrinsics
from ocd_core.tasks.views.params import ViewsData
from ocd_core.tasks.views.quality import psnr, ssim
from ocd_core.tasks.views.sources import DEMO_LICENCE, Views, check_angle, check_pose, read_blender, read_demo, read_npz
from ocd_core.tasks.views.split import ViewSplit, in_random_order, pixels_in_random_order
from ocd_core.weights import save_tensors

_VAL_FRACTION = 10  # a tenth of train becomes val if the source has none
_ENCODER_GRIDS = (16, 4)  # of the fixed encoder: averages of the rendering on grids of these sizes
_SUMMARY_GRID = 4
_VGG11 = "vgg11"  # the weights' name in a bundle; what kind of file they are, their content says
# per step of overfitting: the activations of this many rays (32 depths, 128 units) stay in the cache of a core
_RAYS_AT_ONCE = 250


class ViewSynthesis(DrawsInputs):
    """Inputs: rays (origins, directions, depths). Outputs and targets: colours in 0..1, (N, H, W, 3) or (N, R, 3)."""

    Data: ClassVar[type[StrictModel]] = ViewsData
    evaluation_batch: ClassVar[int] = 1
    pictures: ClassVar[str | None] = "ocd_core.tasks.views.pictures:draw"
    data: ViewsData

    def __init__(self, data: StrictModel, model_name: str, model_args: dict[str, Any]) -> None:
        super().__init__(data, model_name, model_args)
        modelled = model_args.get("background", "black")
        if modelled != self.data.background:
            raise UserError(
                f"data.background is {self.data.background}, but base.model.args.background is {modelled}; "
                "make them the same"
            )
        self._vgg11_path = None if self.data.vgg11 is None else path_of(self.data.vgg11)

    @property
    def encoder(self) -> str:
        """The encoder of the rendering for I(x); results name it."""
        if self.data.vgg11 is None:
            grids = " and ".join(f"{g}x{g}" for g in _ENCODER_GRIDS)
            return f"rendering averaged on {grids} grids (no VGG11 weights)"
        return f"VGG11 features ({Path(self.data.vgg11).name})"

    def remarks(self) -> list[str]:
        """The encoder of I(x); the paper's has the pretrained weights of VGG11."""
        return [f"I(x) of the base's rendering: {self.encoder}."]

    def prepare(self, dest: Path) -> dict[str, Any]:
        """Write one safetensors file per split: image float32 (V, H, W, 3), pose (V, 4, 4), focal (1,).

        Returns the source and its licence, if known, the size of the photographs, the encoder of I(x), the number of
        views of each split, and how many views have the photograph or the pose of a view in another split.

        Raises:
            UserError: the raw data is missing or not as expected.
        """
        parts = self._read()
        if "val" not in parts:
            train = parts["train"]
            count = len(train)
            if count < 2:
                raise UserError("the scene has a single training view; at least two are needed (one becomes val)")
            order = permutation(count, self.data.split_seed, "views that become val")
            cut = max(count // _VAL_FRACTION, 1)
            parts |= {"val": train.select(order[:cut].sort().values), "train": train.select(order[cut:].sort().values)}
        shapes = {name: tuple(part.image_VHWC.shape[1:3]) for name, part in parts.items()}
        if len(set(shapes.values())) > 1:
            raise UserError(f"the parts of the scene have images of different sizes (height, width): {shapes}")
        for name, part in parts.items():
            tensors = {"image": part.image_VHWC, "pose": part.pose_V44, "focal": torch.tensor([part.focal]).double()}
            save_tensors(tensors, dest / f"{name}.safetensors")
        return {
            "source": self.data.path or self.data.source,
            "licence": DEMO_LICENCE if self.data.source == "demo" else None,
            "height": shapes["train"][0],
            "width": shapes["train"][1],
            "encoder": self.encoder,
            "splits": {name: {"samples": len(parts[name])} for name in SPLITS},
            SHARED_ROWS: shared_rows({name: _keys(parts[name]) for name in SPLITS}),
        }

    def _read(self) -> dict[str, Views]:
        data = self.data
        background = float(data.background == "white")
        if data.source == "demo":
            assert data.train_views is not None
            assert data.test_views is not None
            assert data.size is not None
            counts = {"train": data.train_views, "test": data.test_views}
            return {part: read_demo(part, n, data.size, background) for part, n in counts.items()}
        assert data.path is not None
        if data.source == "npz":
            views = read_npz(path_of(data.path))
            assert data.test_views is not None
            if data.test_views > len(views) - 2:
                raise UserError(
                    f"data.test_views: {data.test_views} of the {len(views)} views leave too few to train on"
                )
            rows = torch.arange(len(views))
            return {"train": views.select(rows[: -data.test_views]), "test": views.select(rows[-data.test_views :])}
        return read_blender(path_of(data.path), background, data.size)

    def bind(self, prepared: Path) -> None:
        """Take VGG11's weights from the prepared data if they are there, as in a bundle, instead of `data.vgg11`."""
        if self.data.vgg11 is not None and (prepared / _VGG11).is_file():
            self._vgg11_path = prepared / _VGG11

    def travelling(self, prepared: Path) -> dict[str, Path]:
        """VGG11's weights, if I(x) is made with them."""
        return {} if self._vgg11_path is None else {_VGG11: self._vgg11_path}

    def open(self, prepared: Path, split: SplitName) -> Split:
        """One split of what `prepare` wrote.

        Raises:
            UserError: the file is missing or damaged.
        """
        path, tensors = split_file(prepared, split), split_tensors(prepared, split)
        if set(tensors) != {"image", "pose", "focal"}:
            raise UserError(f"{path} does not hold posed images; run the stage prepare again")
        return ViewSplit(Views(tensors["image"], tensors["pose"], tensors["focal"].item()), split, self.data)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error over a view's rays and colours, (N,), in the dtype of `output`."""
        output_ND, target_ND = paired(output, target)
        return (output_ND - target_ND).square().mean(1)

    @property
    def metrics(self) -> Sequence[Metric]:
        """MSE, the PSNR of the mean MSE, and SSIM (whole views only)."""
        return (
            Metric(
                "mse",
                self.loss,
                higher_is_better=False,
                decimals=5,
                about="the mean squared error of a view's colours, which are between 0 and 1",
            ),
            Metric(
                "psnr",
                self.loss,
                higher_is_better=True,
                finish=psnr,
                unit="dB",
                decimals=2,
                about="the peak signal-to-noise ratio of the mean squared error: 10 dB more is a tenth of the error",
            ),
            Metric(
                "ssim",
                ssim,
                higher_is_better=True,
                decimals=3,
                about="the structural similarity of a view to its photograph; 1 if they are equal",
            ),
        )

    def training_batch(self, split: Split, sample_id: Tensor, seed: int, epoch: int) -> Batch:
        """`base_rays` random rays of each view with jittered depths; depends only on (seed, epoch, view)."""
        assert isinstance(split, ViewSplit)
        rays, depths = self.data.base_rays, self.data.depths
        pixels, positions = [], []
        for sample in sample_id.tolist():
            generator = numpy_generator(seed, "rays of the base", split.name, epoch, sample)
            pixels.append(torch.from_numpy(generator.integers(split.pixels, size=rays)))
            positions.append(torch.from_numpy(generator.random((rays, depths), dtype="float32")))
        return split.rays(sample_id, torch.stack(pixels), torch.stack(positions))

    def overfit_batch(self, split: Split, sample_id: Tensor, replica: Tensor, step: int, seed: int) -> Batch:
        """The next `rays_per_step` rays in each view's own random order of pixels, one order per replica.

        After its end the order starts again. With `fixed_rays`, each step sees the first ones.
        """
        assert isinstance(split, ViewSplit)
        return in_random_order(split, sample_id, replica, self._places(split, step, self.data.rays_per_step), seed)

    def parts(self, batch: Batch) -> Iterator[tuple[Batch, float]]:
        """The rays in nearly equal parts of at most `_RAYS_AT_ONCE`."""
        target_NR3 = only(batch.target)
        rays = target_NR3.shape[1]
        count = math.ceil(rays / _RAYS_AT_ONCE)
        inputs = [x.tensor_split(count, 1) for x in batch.inputs]
        for i, target in enumerate(target_NR3.tensor_split(count, 1)):
            yield Batch(tuple(x[i] for x in inputs), target, batch.sample_id), target.shape[1] / rays

    def _places(self, split: ViewSplit, step: int, rays: int) -> Tensor:
        """The places of the random order that a step with so many rays takes."""
        count = min(rays, split.pixels)
        return (0 if self.data.fixed_rays else step * count) + torch.arange(count)

    def seen_while_overfitting(self, split: Split, sample_id: Tensor, steps: int, seed: int) -> Tensor:
        """The pixels whose rays the steps of replica 0 take, bool (N, H, W)."""
        assert isinstance(split, ViewSplit)
        place_R = torch.cat([self._places(split, step, self.data.rays_per_step) for step in range(steps)])
        pixel_NR = pixels_in_random_order(split, sample_id, torch.zeros_like(sample_id), place_R, seed)
        seen = torch.zeros(len(sample_id), split.pixels, dtype=torch.bool).scatter_(1, pixel_NR, True)
        return seen.view(len(sample_id), *split.views.image_VHWC.shape[1:3])

    def scoring_batch(self, split: Split, sample_id: Tensor, seed: int) -> Batch:
        """The first `scoring_rays` rays that replica 0 of the overfitting sees."""
        assert isinstance(split, ViewSplit)
        count = min(self.data.scoring_rays, split.pixels)
        return in_random_order(split, sample_id, torch.zeros_like(sample_id), torch.arange(count), seed)

    def update_batch(self, split: Split, sample_id: Tensor, update: int, seed: int) -> Batch:
        """The next `rays_per_update` rays in each view's own random order of pixels."""
        assert isinstance(split, ViewSplit)
        place_R = self._places(split, update, self.data.rays_per_update)
        return in_random_order(split, sample_id, torch.zeros_like(sample_id), place_R, seed)

    def condition(
        self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Tensor, model: nn.Module | None = None
    ) -> Condition:
        """I(x) of whole views, from the base network's rendering alone.

        i_L: the encoded rendering (VGG11's features on a 2x2 grid, 2,048 numbers; without weights, averages on 16x16
        and 4x4 grids, 816 numbers). a_L: the mean of layer L's activations over the view's positions, each weighted by
        its contribution to the rendering (equally for a network without `depth_weights`), (N, C).
        f_θ(x): the averages of the rendering on a 4x4 grid, 48 numbers.
        """
        depth_weights = getattr(model, "depth_weights", None)
        if depth_weights is None or activation.shape[:-1] != batch.inputs[2].shape:
            return self._condition(activation.flatten(1, -2).mean(1), output)
        with torch.no_grad():
            weights: Tensor = depth_weights(*batch.inputs)
        return self._condition(_weighted_mean(activation, weights), output)

    def condition_observed(
        self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Tensor, observed: Sequence[Tensor]
    ) -> Condition:
        """The same with the weights of the rendering itself, which TinyNeRF lets be observed."""
        (weights,) = observed
        return self._condition(_weighted_mean(activation, weights), output)

    def _condition(self, activation_NC: Tensor, output: Tensor) -> Condition:
        assert output.dim() == 4, "I(x) is of whole views"
        image_N3HW = output.movedim(-1, 1)
        return Condition(self._encode(image_N3HW), activation_NC, _averages(image_N3HW, _SUMMARY_GRID))

    def _encode(self, image_N3HW: Tensor) -> Tensor:
        if self._vgg11 is None:
            return torch.cat([_averages(image_N3HW, grid) for grid in _ENCODER_GRIDS], 1)
        with torch.no_grad():
            return pooled_features(self._vgg11.to(image_N3HW.device), image_N3HW)

    @cached_property
    def _vgg11(self) -> VGG11Features | None:
        return None if self._vgg11_path is None else load_vgg11_features(self._vgg11_path)

    def stored_target(self, batch: Batch) -> Tensor:
        """The photograph's mean colour, (N, 3); the image itself is in the prepared data."""
        return only(batch.target).flatten(1, -2).mean(1)

    def neighbour_features(self, batch: Batch) -> Tensor:
        """A view is its camera: position and mean viewing direction, (N, 6)."""
        origins, directions = (x.flatten(1, -2).mean(1) for x in batch.inputs[:2])
        return torch.cat([origins, directions], 1)

    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        """A camera from a JSON file with transform_matrix, camera_angle_x, width and height: the rays of its view.

        Raises:
            UserError: the file does not exist or is not JSON, one of these is missing or impossible, or it describes
                another camera (see `check_intrinsics`).
        """
        if not path.is_file():
            raise UserError(f"{path} does not exist or is not a file")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is not valid JSON: {error}") from error
        keys = ("transform_matrix", "camera_angle_x", "width", "height")
        missing = [k for k in keys if not isinstance(values, dict) or k not in values]
        if missing:
            raise UserError(f"{path}: {', '.join(missing)} missing; a camera needs {', '.join(keys)}")
        height, width = values["height"], values["width"]
        if any(not isinstance(v, int) or isinstance(v, bool) or v < 1 for v in (height, width)):
            raise UserError(f"{path}: width and height must be whole numbers of pixels")
        angle = check_angle(values["camera_angle_x"], str(path))
        check_intrinsics(values, angle, width, height, str(path))
        focal = focal_length(width, angle)
        pose_144 = check_pose(values["transform_matrix"], str(path))[None]
        split = ViewSplit(Views(torch.zeros(1, height, width, 3), pose_144, focal), "input", self.data)
        return split.batch(torch.zeros(1, dtype=torch.int64)).inputs

    def describe_output(self, output: Tensor) -> dict[str, str | float]:
        """The mean colour of a rendered view."""
        mean_3 = output.reshape(-1, 3).double().mean(0).tolist()
        return dict(zip(("mean red", "mean green", "mean blue"), mean_3, strict=True))


def _weighted_mean(activation: Tensor, weights: Tensor) -> Tensor:
    """The mean of activations (N, ..., C) over all axes between, with weights (N, ...); (N, C)."""
    weight_NP = weights.flatten(1)
    weighted_NC = torch.einsum("np,npc->nc", weight_NP, activation.flatten(1, -2))
    mean_NC: Tensor = weighted_NC / weight_NP.sum(1, keepdim=True).clamp(min=1e-6)
    return mean_NC


def _averages(image_N3HW: Tensor, grid: int) -> Tensor:
    """Mean colours on a grid x grid division of the image, (N, 3 · grid²)."""
    return F.adaptive_avg_pool2d(image_N3HW, grid).flatten(1)


def _keys(views: Views) -> Iterator[tuple[bytes, ...]]:
    """The keys by which a view can be recognised: its photograph and its pose."""
    for photograph, pose in zip(row_hashes(views.image_VHWC), row_hashes(views.pose_V44), strict=True):
        yield photograph + pose


TASK = ViewSynthesis
