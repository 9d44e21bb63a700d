"""Does I(x) tell the diffusion model which Δ a view needs? On views that it has not seen, of a scene from a formula."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ocd_core.codes.encode import encode_store, fit_to_store
from ocd_core.codes.params import RepresentationParams
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.training import other_rows, train_diffusion
from ocd_core.evaluation.statistics import paired_z
from ocd_core.network.cut import CutModel
from ocd_core.network.training import fit_base
from ocd_core.overfit.build import build_store
from ocd_core.overfit.params import NOT_REFINED, OverfitParams
from ocd_core.overfit.rows import RowBuilder
from ocd_core.progress import no_progress
from ocd_core.rng import permutation
from ocd_core.samples import Condition
from ocd_core.store import OverfitStore
from ocd_core.tasks.views.params import ViewsData
from ocd_core.tasks.views.task import ViewSynthesis
from tests.support.params import base_params, denoiser_params, diffusion_params

MODEL = {"width": 24, "frequencies": 4}
DATA = ViewsData.model_validate(
    {
        "source": "demo",
        "path": None,
        "size": 16,
        "train_views": 45,
        "test_views": 20,
        "background": "black",
        "near": 2.0,
        "far": 6.0,
        "depths": 12,
        "base_rays": 128,
        "rays_per_step": 128,
        "rays_per_update": 128,
        "scoring_rays": 30,
        "fixed_rays": False,
        "vgg11": None,
        "split_seed": 0,
    }
)
BASE = base_params("tinynerf", MODEL, epochs=12, patience=12, batch_size=1, lr=5e-3)
OVERFIT = OverfitParams(
    optimizer="adam",
    lr=5e-3,
    steps=10,
    until_converged=False,
    tolerance=1e-3,
    replicas=1,
    layout="dense",
    refine=NOT_REFINED,
    memory_mb=256,
    shard_mb=8,
    precision="float32",
)
DIFFUSION = diffusion_params(
    representation=RepresentationParams(name="pca", components=6, metric="euclidean"),
    updates=400,
    batch_size=64,
    lr=1e-3,
    ema=0.98,
    denoiser=denoiser_params(dropout=0.1),
    validate_every=100,
)
NOISES = 50


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> tuple[OverfitStore, OverfitStore]:
    """Δ of 41 training views, and of 20 held-out ones."""
    folder: Path = tmp_path_factory.mktemp("views")
    task = ViewSynthesis(DATA, "tinynerf", MODEL)
    task.prepare(folder)
    base = fit_base(task, task.open(folder, "train"), task.open(folder, "val"), BASE, 0).model
    model = CutModel(base, "layer1")
    for split in ("train", "test"):
        builder = RowBuilder(task, model, task.open(folder, split), OVERFIT, 0)
        build_store(folder / f"{split}.zarr", builder, {}, "f00d", folder / "work", no_progress)
    return OverfitStore(folder / "train.zarr"), OverfitStore(folder / "test.zarr")


def trained(stores, order: torch.Tensor) -> tuple[DiffusionModel, torch.Tensor, Condition]:
    """A model that was trained on each view's Δ with the I(x) of view `order`; codes and I(x) of held-out views."""
    train, held_out = stores
    representation = fit_to_store(train, DIFFUSION)
    codes, cond = encode_store(representation, train)
    new_codes, new_cond = encode_store(representation, held_out)
    assert len(new_codes) == 20
    cond, last = cond.select(order), slice(len(codes) - 8, None)
    # the last views of training steer its stop: the held-out ones are for the test alone
    found = train_diffusion(
        codes[:-8], cond.select(slice(-8)), codes[last], cond.select(last), DIFFUSION, representation, 0
    )
    return found.model, new_codes, new_cond


@torch.no_grad()
def losses(model: DiffusionModel, codes: torch.Tensor, cond: Condition) -> np.ndarray:
    """Each view's mean squared error of x0 over timesteps and noises, which are the same at every call."""
    g = torch.Generator().manual_seed(5)
    bars = model.schedule.alphas_bar
    total = torch.zeros(len(codes), dtype=torch.float64)
    for _ in range(NOISES):
        t = torch.randint(1, model.schedule.timesteps + 1, (len(codes),), generator=g)
        bar = bars[t][:, None]
        omega = bar.sqrt() * codes + (1 - bar).sqrt() * torch.randn(codes.shape, generator=g)
        output = model.predict(omega.float(), t, model.embed(cond))
        total += (output - codes).double().square().mean(1)
    return (total / NOISES).numpy()


def z_of_exchange(model: DiffusionModel, codes: torch.Tensor, cond: Condition) -> float:
    """How much worse the held-out loss is with another view's I(x), over its standard error over views."""
    return paired_z(losses(model, codes, cond.select(other_rows(len(codes), 0))), losses(model, codes, cond))


def test_exchanged_conditions_make_the_held_out_loss_worse(stores) -> None:
    assert z_of_exchange(*trained(stores, torch.arange(41))) > 3


def test_a_model_that_was_trained_on_exchanged_conditions_does_not_care(stores) -> None:
    """The same figures where I(x) cannot be of use: what the test above would see if conditioning were broken."""
    assert abs(z_of_exchange(*trained(stores, permutation(41, 1, "broken")))) < 3
