"""Draw the figures that only the task's domain can draw; most domains have none."""

from ocd_core.artifacts import write_json
from ocd_core.predictor import Predictor
from ocd_core.provenance import Lineage
from ocd_core.store import OverfitStore
from ocd_core.tasks import task_class
from ocd_core.tasks.pictures import drawing_function


def run(lineage: Lineage) -> None:
    """Write data/<task>/seed<k>/rank<r>/pictures."""
    params, artifacts = lineage.params, lineage.artifacts
    target = task_class(params.domain).pictures
    if target is not None:
        lineage.check("illustrate")
    with lineage.write("pictures") as dest:
        if target is not None:
            draw = drawing_function(target)
            predictor = Predictor.from_run(artifacts, params)
            bound = OverfitStore(artifacts.overfit("test"))
            draw(predictor, artifacts.prepared, bound, dest)
        write_json(dest / "config.json", params.effective("pictures"))
