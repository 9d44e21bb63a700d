"""Collect a task's runs in reports/<task> and print the tables."""

from ocd_core.provenance import Lineage
from ocd_core.report.run_report import write_report
from ocd_core.report.run_tables import print_tables


def run(lineage: Lineage) -> None:
    """Write reports/<task>."""
    print_tables(write_report(lineage.artifacts.task, lineage.artifacts.root))
