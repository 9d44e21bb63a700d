"""Fit the controls that could explain a gain without diffusion, only on the training and validation splits."""

from ocd_core.provenance import Lineage
from ocd_core.running import train_controls
from stages._common import DEFAULT_TASK, DeviceOption, RankOption, SeedOption, TaskOption, run


def main(
    task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1, device: DeviceOption = "cpu"
) -> None:
    """Write data/<task>/seed<k>/rank<r>/controls."""
    train_controls.run(Lineage.of(task, seed, rank), device)


if __name__ == "__main__":
    run(main, "train_controls")
