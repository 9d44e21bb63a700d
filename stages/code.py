"""Hash the source files that belong to each stage of the task; every other stage depends on its own hashes.

It runs at every `dvc repro` and takes about a second: a task's domain may be a module outside the repository, which
DVC cannot watch.
"""

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.errors import UserError
from ocd_core.params_files import params_path, read_params
from ocd_core.pipeline import STAGES
from ocd_core.stage_code import stage_code
from stages._common import DEFAULT_TASK, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK) -> None:
    """Write data/<task>/code/<stage>.json."""
    values, artifacts = read_params(task), Artifacts(task)
    if not isinstance(values, dict):
        raise UserError(f"{params_path(task)}: expected groups of params, found {type(values).__name__}")
    for stage in STAGES:
        write_json(artifacts.code(stage), stage_code(stage, values))


if __name__ == "__main__":
    run(main)
