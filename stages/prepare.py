"""Read the raw data and write train, val and test (the same for all seeds)."""

from ocd_core.artifacts import write_json
from ocd_core.provenance import Lineage
from stages._common import DEFAULT_TASK, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK) -> None:
    """Write data/<task>/prepared."""
    lineage = Lineage.of(task)
    params = lineage.params
    with lineage.write("prepared") as dest:
        summary = params.build_task().prepare(dest)
        write_json(dest / "config.json", params.effective("prepare"))
        write_json(dest / "summary.json", summary)
    print(", ".join(f"{k}: {v}" for k, v in summary.items()))


if __name__ == "__main__":
    run(main)
