"""Train the scale network ρ(x, I(x)) on the norms of the training samples' Δ (Eq. 8).

If the diffusion's representation of Δ has no scale of its own, nothing would use the network, so there is none.
"""

from ocd_core.provenance import Lineage
from ocd_core.running import train_scale
from stages._common import DEFAULT_TASK, DeviceOption, RankOption, SeedOption, TaskOption, run
from stages._training import followed


def main(
    task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1, device: DeviceOption = "cpu"
) -> None:
    """Write data/<task>/seed<k>/rank<r>/scale."""
    train_scale.run(Lineage.of(task, seed, rank), device, followed)


if __name__ == "__main__":
    run(main, "train_scale")
