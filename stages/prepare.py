"""Read the raw data and write train, val and test (the same for all seeds)."""

from ocd_core.provenance import Lineage
from ocd_core.running import prepare
from stages._common import DEFAULT_TASK, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK) -> None:
    """Write data/<task>/prepared."""
    prepare.run(Lineage.of(task))


if __name__ == "__main__":
    run(main, "prepare")
