"""Fingerprint the task's own code (its domain and base network), which later stages depend on."""

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.config import load_params
from ocd_core.fingerprint import task_code
from stages._common import DEFAULT_TASK, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK) -> None:
    """Write data/<task>/code.json."""
    write_json(Artifacts(task).code, task_code(load_params(task)))


if __name__ == "__main__":
    run(main)
