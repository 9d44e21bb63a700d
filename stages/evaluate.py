"""Draw Δ for the test samples (Alg. 2) and measure base, controls, OCD and bound."""

from typing import Any

from ocd_core.provenance import Lineage
from ocd_core.running import evaluate
from stages._common import DEFAULT_TASK, DeviceOption, RankOption, SeedOption, TaskOption, run


def main(
    task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1, device: DeviceOption = "cpu"
) -> dict[str, Any]:
    """Write data/<task>/seed<k>/rank<r>/evaluation."""
    return evaluate.run(Lineage.of(task, seed, rank), device)


if __name__ == "__main__":
    run(main, "evaluate")
