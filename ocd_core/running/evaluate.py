"""Draw Δ for the test samples (Alg. 2) and measure base, controls, OCD and bound."""

from typing import Any

from ocd_core.artifacts import read_json, write_json, write_table
from ocd_core.evaluation.context import Context
from ocd_core.evaluation.evaluate import BOUND, evaluate
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.memorisation import measure_memorisation
from ocd_core.evaluation.speed import inference_times
from ocd_core.network.ranking import read_ranking
from ocd_core.predictor import Predictor
from ocd_core.presets import preset_of
from ocd_core.progress import progress_bar
from ocd_core.provenance import Lineage
from ocd_core.samples import SPLITS
from ocd_core.training.devices import local_device


def run(lineage: Lineage, device: str = "cpu") -> dict[str, Any]:
    """Write data/<task>/seed<k>/rank<r>/evaluation, and return how long inference and rows take.

    The device is not a parameter: it changes the result only within rounding.
    """
    place = local_device(device)
    params, artifacts = lineage.params, lineage.artifacts
    lineage.check("evaluate")
    context = Context(artifacts, params, Predictor.from_run(artifacts, params, device=place), SPLITS)
    rows, left_out = load_rows(context, params.evaluate.rows)
    with progress_bar("evaluate", len(context.split("val")) + len(context.split("test"))) as progress:
        result = evaluate(context, rows, left_out, progress)
    memorisation = measure_memorisation(context)
    tie = read_ranking(artifacts.layers).warning
    notes = read_json(artifacts.base / "metrics.json").get("notes", [])
    cost_flops = read_json(artifacts.controls / "metrics.json")["cost_flops"]
    results = result.results(params.evaluate, artifacts.seed, preset_of(params), cost_flops)
    table: dict[str, Any] = {
        "task": artifacts.task,
        "seed": artifacts.seed,
        "rank": artifacts.rank,
        "layer": context.predictor.model.layer_name,
        "metrics": [
            {
                "name": m.name,
                "higher_is_better": m.higher_is_better,
                "unit": m.unit,
                "decimals": m.decimals,
                "about": m.about,
            }
            for m in result.metrics
        ],
        "results": [r.model_dump() for r in results],
        "absent": [a.model_dump() for a in result.absent],
        "cost_flops": cost_flops,
        "remarks": [*context.task.remarks(), *notes, *([] if tie is None else [f"Layers: {tie}."])],
        "bound_parts": result.details.get(BOUND),
        **({} if result.groups is None else {"groups": result.groups}),
    }
    with lineage.write("evaluation") as dest:
        write_json(dest / "config.json", params.effective("evaluation"))
        write_json(dest / "metrics.json", result.summary())
        write_json(dest / "table.json", table)
        write_table(dest / "samples.tsv", result.per_sample())
        write_json(dest / "memorisation.json", {} if memorisation is None else memorisation.summary())
        write_table(dest / "memorisation.tsv", [] if memorisation is None else memorisation.per_sample())
    return {
        "inference": inference_times(context.predictor, context.split("test")),
        "rows": {row: cost.seconds for row, cost in result.costs.items()},
    }
