"""Tables of layer scores (Eq. 3) with as many draws as the paper uses.

    python -m experiments.layer_scores task mnist5k      # the base network of a run
    python -m experiments.layer_scores mlp               # an MLP on the 442 patients of scikit-learn's diabetes data

Both commands use both kinds of noise and 10,000 draws per sample; `--out` also writes the scores and their convergence
as tables and plots. `--fresh` scores the other reading of Eq. 3 instead (`experiments.fresh_weights`).
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from experiments import run
from experiments.fresh_weights import fresh_scores, fresh_table
from ocd_core.artifacts import Artifacts, write_table
from ocd_core.config import load_params
from ocd_core.network.layers import matrix_layers
from ocd_core.network.loading import load_base_network
from ocd_core.network.params import BaseParams, ModelParams
from ocd_core.network.training import fit_base
from ocd_core.progress import progress_bar
from ocd_core.report.markdown import markdown_table
from ocd_core.report.run_plots import plot_layer_scores
from ocd_core.rng import permutation
from ocd_core.samples import Batch, Split, SplitName
from ocd_core.scoring.params import ScoringParams
from ocd_core.scoring.scores import LayerScore, close_call, convergence_table, score_layers, score_table, scoring_steps
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Layer scores with many draws.")
Draws = Annotated[int, typer.Option(min=20, help="Perturbed weights per sample.")]
Samples = Annotated[int, typer.Option(min=2, help="Training samples.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Draw weights afresh; the entropy is across samples.")]
Out = Annotated[Path | None, typer.Option(help="A folder for plots and tables.")]
_SCALE = {"absolute": 0.1, "relative": 0.1}
_MLP_HIDDEN = (32, 32)


class Rows(Task):
    """Regression on rows of standardised numbers; inputs (N, I), targets (N, 1)."""

    def prepare(self, dest: Path) -> dict[str, Any]:
        """Store nothing: the data comes with scikit-learn."""
        raise NotImplementedError

    def open(self, prepared: Path, split: SplitName) -> Split:
        """The patients of one split; a tenth of them are for validation."""
        from sklearn.datasets import load_diabetes

        data = load_diabetes()
        x, y = torch.from_numpy(data.data).float(), torch.from_numpy(data.target).float()[:, None]
        x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
        order = permutation(len(x), 0, "diabetes")
        rows = order[: len(x) // 10] if split == "val" else order[len(x) // 10 :]
        return _RowSplit(x[rows], y[rows])

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Squared error, (N,)."""
        return (output - target).square().sum(1)

    @property
    def metrics(self) -> Sequence[Metric]:
        """The RMSE in standard deviations of the target."""
        return [Metric("rmse", self.loss, higher_is_better=False, finish=lambda v: v**0.5)]


class _RowSplit:
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, sample_id: Tensor) -> Batch:
        return Batch((self.x[sample_id],), self.y[sample_id], sample_id)


def markdown(scores: Sequence[LayerScore]) -> str:
    """The scores as a table, best first."""
    columns = ["layer", "kind", "weights", "rank", "mean entropy (nats)", "from half the draws", "without density"]
    rows = [
        [
            s.name,
            s.kind,
            f"{s.parameters:,}",
            str(s.rank),
            f"{s.entropy:.3f} ± {s.stderr:.3f}",
            f"{s.convergence[-2][1]:.3f}",
            f"{100 * s.without_density / s.samples:.0f} %",
        ]
        for s in scores
    ]
    return markdown_table(columns, rows, text_columns=2)


def score(
    what: str, model: nn.Module, task: Task, train: Split, samples: int, draws: int, fresh: bool, out: Path | None
) -> None:
    """Score at most all samples of `train` by one reading of Eq. 3; see `score_both` and `score_fresh`."""
    (score_fresh if fresh else score_both)(what, model, task, train, min(samples, len(train)), draws, out)


def score_fresh(
    what: str, model: nn.Module, task: Task, train: Split, samples: int, draws: int, out: Path | None
) -> None:
    """Score with fresh weights, print the table, and write the scores into `out`."""
    layers = matrix_layers(model)
    with progress_bar(f"{what}, fresh weights", len(layers) * samples) as progress:
        scores = fresh_scores(model, task, train, samples, draws, progress=progress)
    print(f"\n{what}: fresh weights, {samples} samples, {draws:,} draws\n")
    print(fresh_table(scores))
    if out is not None:
        write_table(out / f"layer_scores_{what}_fresh.tsv", [asdict(s) for s in scores])


def score_both(
    what: str, model: nn.Module, task: Task, train: Split, samples: int, draws: int, out: Path | None
) -> None:
    """Score with both kinds of noise, print the tables, and write tables and plots into `out`."""
    for noise, scale in _SCALE.items():
        params = ScoringParams.model_validate({"samples": samples, "draws": draws, "noise": noise, "scale": scale})
        with progress_bar(f"{what}, {noise}", scoring_steps(list(matrix_layers(model)), train, params)) as progress:
            scores = score_layers(model, task, train, params, seed=0, progress=progress)
        print(f"\n{what}: {noise} noise of {scale:g}, {samples} samples, {draws:,} draws\n")
        print(markdown(scores))
        warning = close_call(scores)
        if warning is not None:
            print(f"\n{warning}")
        if out is not None:
            stem = out / f"layer_scores_{what}_{noise}"
            write_table(stem.with_suffix(".tsv"), score_table(scores))
            convergence = stem.with_name(f"{stem.name}_convergence.tsv")
            write_table(convergence, convergence_table(scores))
            plot_layer_scores(stem.with_suffix(".tsv"), convergence, stem.with_suffix(".png"))


@app.command()
def task(
    name: Annotated[str, typer.Argument(help="A task whose base network has been trained.")],
    seed: Annotated[int, typer.Option(help="The seed of the base network.")] = 0,
    samples: Samples = 100,
    draws: Draws = 10_000,
    fresh: Fresh = False,
    out: Out = None,
) -> None:
    """Score the layers of a run's base network."""
    artifacts = Artifacts(name, seed)
    prepared = artifacts.need(artifacts.prepared, "prepare")
    domain = load_params(name).build_task(prepared)
    model = load_base_network(artifacts, domain)
    train = domain.open(prepared, "train")
    score(name, model, domain, train, samples, draws, fresh, out)


@app.command()
def mlp(samples: Samples = 100, draws: Draws = 10_000, fresh: Fresh = False, out: Out = None) -> None:
    """Train a small MLP on the diabetes data and score its layers."""
    args = {"in_features": 10, "out_features": 1, "hidden": list(_MLP_HIDDEN)}
    domain = Rows(StrictModel(), "mlp", args)
    train, val = (domain.open(Path(), split) for split in ("train", "val"))
    params = BaseParams(
        model=ModelParams(name="mlp", args=args),
        checkpoint=None,
        epochs=100,
        patience=10,
        batch_size=32,
        optimizer="adam",
        lr=1e-3,
        weight_decay=0.0,
        momentum=0.0,
        nesterov=False,
        lr_schedule="constant",
        lr_steps=[],
        lr_factor=0.1,
        warmup=0.0,
        label_smoothing=0.0,
    )
    base = fit_base(domain, train, val, params, seed=0)
    print(
        f"MLP {10, *_MLP_HIDDEN, 1}: validation RMSE {base.metrics['val_rmse']:.3f} of the target's standard deviation"
    )
    score("mlp", base.model, domain, train, samples, draws, fresh, out)


if __name__ == "__main__":
    run(app)
