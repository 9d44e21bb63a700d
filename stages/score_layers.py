"""Score the base network's layers by the entropy of the loss under perturbation (Eq. 3) and select one."""

from ocd_core.provenance import Lineage
from ocd_core.running import score_layers
from stages._common import DEFAULT_TASK, SeedOption, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0) -> None:
    """Write data/<task>/seed<k>/layers."""
    score_layers.run(Lineage.of(task, seed))


if __name__ == "__main__":
    run(main, "score_layers")
