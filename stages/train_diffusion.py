"""Train the conditional diffusion model over Δ of the training samples (Alg. 1, lines 6-11).

An interrupted training goes on from its last checkpoint, under data/.work.
"""

import shutil

from ocd_core.artifacts import Artifacts, replaced_folder, write_json, write_table
from ocd_core.codes import encode_store, fit_to_store
from ocd_core.config import load_params
from ocd_core.diffusion.training import train_diffusion
from ocd_core.progress import progress_bar
from ocd_core.store import OverfitStore
from stages._common import DEFAULT_TASK, RankOption, SeedOption, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1) -> None:
    """Write data/<task>/seed<k>/rank<r>/diffusion."""
    params = load_params(task)
    artifacts = Artifacts(task, seed, rank)
    train = OverfitStore(artifacts.need(artifacts.overfit("train"), "overfit"))
    val = OverfitStore(artifacts.need(artifacts.overfit("val"), "overfit"))
    representation = fit_to_store(train, params.diffusion)
    codes, condition = encode_store(representation, train)
    val_codes, val_condition = encode_store(representation, val)
    work = artifacts.work / f"diffusion-{task}-seed{seed}-rank{rank}"
    with progress_bar("train diffusion", params.diffusion.updates) as progress:
        result = train_diffusion(
            codes, condition, val_codes, val_condition, params.diffusion, representation, seed, progress,
            work_dir=work,
        )  # fmt: skip
    with replaced_folder(artifacts.diffusion) as dest:
        result.model.save(dest)
        write_json(dest / "params.json", params.effective("diffusion"))
        write_json(dest / "metrics.json", result.metrics)
        write_table(dest / "curve.tsv", result.curve)
    shutil.rmtree(work, ignore_errors=True)  # a short training leaves no checkpoint


if __name__ == "__main__":
    run(main)
