"""Train the base network f_θ with early stopping on validation, or load given weights."""

from ocd_core.provenance import Lineage
from ocd_core.running import train_base
from stages._common import DEFAULT_TASK, DeviceOption, SeedOption, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, device: DeviceOption = "cpu") -> None:
    """Write data/<task>/seed<k>/base."""
    train_base.run(Lineage.of(task, seed), device)


if __name__ == "__main__":
    run(main, "train_base")
