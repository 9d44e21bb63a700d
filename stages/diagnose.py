"""Say whether OCD can help, in which layer and how much, before anything but the base network is trained."""

from ocd_core.provenance import Lineage
from ocd_core.running import diagnose
from stages._common import DEFAULT_TASK, SeedOption, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0) -> None:
    """Write data/<task>/seed<k>/diagnosis."""
    diagnose.run(Lineage.of(task, seed))


if __name__ == "__main__":
    run(main, "diagnose")
