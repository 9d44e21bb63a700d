"""Draw Δ for the test samples (Alg. 2) and measure base, controls, OCD and bound."""

from dataclasses import asdict

from ocd_core.artifacts import read_json, write_json, write_table
from ocd_core.evaluation.controls.controls import Controls
from ocd_core.evaluation.controls.neighbour import Neighbours
from ocd_core.evaluation.evaluate import evaluate
from ocd_core.predictor import Predictor
from ocd_core.progress import progress_bar
from ocd_core.provenance import Lineage
from ocd_core.store import OverfitStore
from ocd_core.training.devices import local_device
from stages._common import DEFAULT_TASK, DeviceOption, RankOption, SeedOption, TaskOption, run


def main(
    task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1, device: DeviceOption = "cpu"
) -> None:
    """Write data/<task>/seed<k>/rank<r>/evaluation. The device changes it within rounding, so it is no param."""
    place = local_device(device)
    lineage = Lineage.of(task, seed, rank)
    params, artifacts = lineage.params, lineage.artifacts
    lineage.check("evaluate")
    predictor = Predictor.from_run(artifacts, params, device=place)
    prepared = artifacts.prepared
    test = predictor.task.open(prepared, "test")
    store = OverfitStore(artifacts.overfit("test"))
    folder = artifacts.controls
    controls = Controls.load(folder, predictor.task.build_model(), place)
    neighbours = None
    if "neighbour" in params.evaluate.rows:
        train_store = OverfitStore(artifacts.overfit("train"))
        neighbours = Neighbours(predictor.task, predictor.task.open(prepared, "train"), train_store)
    with progress_bar("evaluate", len(test)) as progress:
        result = evaluate(predictor, test, store, controls, neighbours, params.evaluate, progress)
    tie = read_json(artifacts.layers / "layers.json")["warning"]
    table = {
        "task": task, "seed": seed, "rank": rank, "layer": predictor.model.layer_name,
        "metrics": [
            {"name": m.name, "higher_is_better": m.higher_is_better, "unit": m.unit, "decimals": m.decimals}
            for m in result.metrics
        ],
        "rows": result.table(params.evaluate, seed),
        "left_out": result.left_out, "cost_flops": controls.cost_flops,
        "remarks": [*predictor.task.remarks(), *([] if tie is None else [f"Layers: {tie}."])],
        "bound_parts": None if result.bound_parts is None else asdict(result.bound_parts),
    }  # fmt: skip
    with lineage.write("evaluation") as dest:
        write_json(dest / "config.json", params.effective("evaluation"))
        write_json(dest / "metrics.json", result.summary())
        write_json(dest / "table.json", table)
        write_table(dest / "samples.tsv", result.per_sample())


if __name__ == "__main__":
    run(main)
