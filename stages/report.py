"""Collect a task's runs in reports/<task> and print the tables."""

from ocd_core.provenance import Lineage
from ocd_core.running import report
from stages._common import DEFAULT_TASK, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK) -> None:
    """Write reports/<task>."""
    report.run(Lineage.of(task))


if __name__ == "__main__":
    run(main)
