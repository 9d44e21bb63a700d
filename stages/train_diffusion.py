"""Train the conditional diffusion model over Δ of the training samples (Alg. 1, lines 6-11).

An interrupted training resumes from its last checkpoint, under data/.work. Several processes can train together:
`torchrun --standalone --nproc_per_node 2 -m stages.train_diffusion`.
"""

from ocd_core.provenance import Lineage
from ocd_core.running import train_diffusion
from stages._common import DEFAULT_TASK, DeviceOption, RankOption, SeedOption, TaskOption, run
from stages._training import followed


def main(
    task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1, device: DeviceOption = "cpu"
) -> dict[str, bool]:
    """Write data/<task>/seed<k>/rank<r>/diffusion."""
    return train_diffusion.run(Lineage.of(task, seed, rank), device, followed)


if __name__ == "__main__":
    run(main, "train_diffusion", shared=True)
