"""What it would cost to run a task under a preset whose U-Net needs a GPU, from its number of operations."""

import torch

from ocd_core.artifacts import Artifacts
from ocd_core.codes.condition import ConditionEncoder
from ocd_core.codes.encode import fit_to_store
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.errors import UserError
from ocd_core.evaluation.costs import diffusion_flops, drawing_flops
from ocd_core.evaluation.result import Absent
from ocd_core.presets import apply_preset, preset_names
from ocd_core.samples import Condition
from ocd_core.store import OverfitStore

# Operations a second. One core: a forward and backward pass of the released U-Net for LeNet5, 0.37 TFLOP, took 9 s
CORE, GPU = 4e10, 1.5e13


def presets_not_run(run: Artifacts, done: set[str]) -> list[Absent]:
    """A row `ocd_<preset>` for each preset that serves the run's task and is not in `done`; it says how long it takes.

    Args:
        run: has the overfit stores of train and test, from which the sizes are taken.
    """
    absent = []
    for preset in preset_names():
        cost = None if preset in done else preset_flops(run, preset)
        if cost is not None:
            one_core, gpu = (_hours(cost / speed) for speed in (CORE, GPU))
            why = (
                f"training its U-Net and one draw per test sample take {cost:.1e} operations: about {one_core} hours "
                f"of one core at {CORE / 1e9:.0f} GFLOP/s, or {gpu} hours of a GPU at {GPU / 1e12:.0f} TFLOP/s"
            )
            absent.append(Absent(row=f"ocd_{preset}", status="not run", why=why))
    return absent


def _hours(seconds: float) -> str:
    """Two digits."""
    return f"{float(f'{seconds / 3600:.2g}'):,g}"


def preset_flops(run: Artifacts, preset: str) -> int | None:
    """The operations of training a preset's denoiser for all its updates, and of one draw for each test sample.

    They are counted without data, so nothing is computed. None if the preset does not serve the task's domain.
    """
    try:
        params, _ = apply_preset(preset, run.task, run.root)
    except UserError:
        return None
    train, test = (OverfitStore(run.overfit(split)) for split in ("train", "test"))
    representation = fit_to_store(train, params.diffusion)  # of a dense matrix, only the shape
    sizes = [part[0].numel() for part in train.condition(slice(0, 1)).parts()]
    with torch.device("meta"):
        model = DiffusionModel(ConditionEncoder(sizes, params.diffusion.embedding), representation, params.diffusion)
        cond = Condition(*(torch.zeros(1, size) for size in sizes))
    steps = params.diffusion.timesteps if params.sampling.sampler == "ancestral" else params.sampling.steps
    training = diffusion_flops(model, cond, params.diffusion.updates)
    return training + drawing_flops(model, cond, steps) * test.rows_of_replica(0)
