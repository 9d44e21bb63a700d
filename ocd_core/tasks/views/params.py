"""The params group `data` of view synthesis."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ocd_core.strict import Positive, PositiveInt, StrictModel

_Distance = Positive


class ViewsData(StrictModel):
    """The `data` group of view synthesis."""

    source: Literal["blender", "npz", "demo"]  # blender: of one pinhole camera, see `check_intrinsics`
    path: str | None  # blender: the scene's folder; npz: the file
    size: PositiveInt | None  # blender: shrink the images to this; demo: their size; null: keep them
    train_views: PositiveInt | None  # demo only
    test_views: PositiveInt | None  # demo; npz: the last views of the file
    background: Literal["black", "white"]  # behind transparent pixels; base.model must have the same
    near: _Distance  # of the first depth's bin
    far: _Distance
    depths: Annotated[int, Field(ge=2, le=10**4)]  # along a ray
    base_rays: PositiveInt  # random rays of a view per update of the base's training
    rays_per_step: PositiveInt  # rays of a view per step of overfitting
    rays_per_update: PositiveInt  # rays of a view in each update of networks that learn from the loss under θ + Δ
    scoring_rays: PositiveInt  # rays of a view in the layer scores
    fixed_rays: bool  # the same rays at each step (the paper's 4,096); false: the next ones of a random order
    vgg11: str | None  # weights for the encoder of the rendering; null: a small fixed encoder
    split_seed: Annotated[int, Field(ge=0, lt=2**63)]  # not the run's seed: the splits are the same for all seeds

    @model_validator(mode="after")
    def _consistent(self) -> "ViewsData":
        if (self.path is None) != (self.source == "demo"):
            raise ValueError(f"source {self.source} {'reads no' if self.source == 'demo' else 'needs a'} path")
        needs = {"blender": (), "npz": ("test_views",), "demo": ("size", "train_views", "test_views")}[self.source]
        for key in ("size", "train_views", "test_views"):
            allowed = key in needs or (key == "size" and self.source == "blender")
            value = getattr(self, key)
            if key in needs and value is None:
                raise ValueError(f"source {self.source} needs {key}")
            if value is not None and not allowed:
                raise ValueError(f"source {self.source} does not use {key}; set it to null")
        if self.far <= self.near:
            raise ValueError("far must be larger than near")
        if self.source == "npz" and self.background != "black":
            raise ValueError("tiny_nerf_data.npz is over black; set background to black")
        return self
