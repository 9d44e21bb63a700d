"""Tune the diffusion model: train it further on the task's own loss under θ + Δ.

With `tuning.updates: 0` the artifact is the diffusion model as it is. An interrupted tuning resumes from its last
checkpoint, under data/.work. Several processes can tune together:
`torchrun --standalone --nproc_per_node 2 -m stages.tune_diffusion`.
"""

from ocd_core.provenance import Lineage
from ocd_core.running import tune_diffusion
from stages._common import DEFAULT_TASK, DeviceOption, RankOption, SeedOption, TaskOption, run
from stages._training import followed


def main(
    task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1, device: DeviceOption = "cpu"
) -> dict[str, bool]:
    """Write data/<task>/seed<k>/rank<r>/tuned."""
    return tune_diffusion.run(Lineage.of(task, seed, rank), device, followed)


if __name__ == "__main__":
    run(main, "tune_diffusion", shared=True)
