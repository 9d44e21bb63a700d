"""Fingerprint the task's own code: its domain and base network, and apart from these what draws its pictures."""

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.config import load_params
from ocd_core.fingerprint import pictures_code, task_code
from stages._common import DEFAULT_TASK, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK) -> None:
    """Write data/<task>/code.json and pictures_code.json."""
    params, artifacts = load_params(task), Artifacts(task)
    write_json(artifacts.code, task_code(params))
    write_json(artifacts.pictures_code, pictures_code(params))


if __name__ == "__main__":
    run(main)
