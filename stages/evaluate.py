"""Draw Δ for the test samples (Alg. 2) and measure base, OCD and bound."""

from ocd_core.artifacts import Artifacts, replaced_folder, write_json, write_table
from ocd_core.config import load_params
from ocd_core.evaluation import evaluate
from ocd_core.predictor import Predictor
from ocd_core.progress import progress_bar
from ocd_core.store import OverfitStore
from stages._common import DEFAULT_TASK, RankOption, SeedOption, TaskOption, run


def main(task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1) -> None:
    """Write data/<task>/seed<k>/rank<r>/evaluation."""
    params = load_params(task)
    artifacts = Artifacts(task, seed, rank)
    predictor = Predictor.from_run(artifacts, params)
    test = predictor.task.open(artifacts.need(artifacts.prepared, "prepare"), "test")
    store = OverfitStore(artifacts.need(artifacts.overfit("test"), "overfit"))
    with progress_bar("evaluate", len(test)) as progress:
        result = evaluate(predictor, test, store, params.evaluate, progress)
    table = {
        "task": task, "seed": seed, "rank": rank, "layer": predictor.split.layer_name,
        "metrics": [
            {"name": m.name, "higher_is_better": m.higher_is_better, "unit": m.unit, "decimals": m.decimals}
            for m in result.metrics
        ],
        "rows": result.table(params.evaluate, seed),
    }  # fmt: skip
    with replaced_folder(artifacts.evaluation) as dest:
        write_json(dest / "config.json", params.effective("evaluation"))
        write_json(dest / "metrics.json", result.summary())
        write_json(dest / "table.json", table)
        write_table(dest / "samples.tsv", result.per_sample())


if __name__ == "__main__":
    run(main)
