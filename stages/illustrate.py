"""Draw the figures that only the task's domain can draw; most domains have none."""

from ocd_core.provenance import Lineage
from ocd_core.running import illustrate
from stages._common import DEFAULT_TASK, RankOption, SeedOption, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1) -> None:
    """Write data/<task>/seed<k>/rank<r>/pictures."""
    illustrate.run(Lineage.of(task, seed, rank))


if __name__ == "__main__":
    run(main, "illustrate")
