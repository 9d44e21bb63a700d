"""Draw the pictures that only the task's domain can draw; most domains have none."""

from ocd_core.artifacts import Artifacts, replaced_folder, write_json
from ocd_core.config import load_params
from ocd_core.predictor import Predictor
from ocd_core.store import OverfitStore
from ocd_core.tasks import task_class
from ocd_core.tasks.pictures import drawing_function
from stages._common import DEFAULT_TASK, RankOption, SeedOption, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1) -> None:
    """Write data/<task>/seed<k>/rank<r>/pictures."""
    params = load_params(task)
    artifacts = Artifacts(task, seed, rank)
    target = task_class(params.domain).pictures
    with replaced_folder(artifacts.pictures) as dest:
        if target is not None:
            draw = drawing_function(target)
            predictor = Predictor.from_run(artifacts, params)
            bound = OverfitStore(artifacts.need(artifacts.overfit("test"), "overfit"))
            draw(predictor, artifacts.need(artifacts.prepared, "prepare"), bound, dest)
        write_json(dest / "config.json", params.effective("pictures"))


if __name__ == "__main__":
    run(main)
