"""Collect a task's runs in reports/<task> and print the tables."""

from ocd_core.report.run_report import write_report
from ocd_core.report.run_tables import print_tables
from stages._common import DEFAULT_TASK, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK) -> None:
    """Write reports/<task>."""
    print_tables(write_report(task))


if __name__ == "__main__":
    run(main)
