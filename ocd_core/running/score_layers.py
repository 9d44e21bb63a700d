"""Score the base network's layers by the entropy of the loss under perturbation (Eq. 3) and select one."""

import sys

from ocd_core.artifacts import write_json, write_table
from ocd_core.network.loading import load_base_network
from ocd_core.overfit.layout import check_selected
from ocd_core.progress import progress_bar
from ocd_core.provenance import Lineage
from ocd_core.scoring.scores import (
    convergence_table,
    layers_report,
    layers_to_score,
    score_layers,
    score_table,
    scoring_steps,
)


def run(lineage: Lineage) -> None:
    """Write data/<task>/seed<k>/layers."""
    params, artifacts = lineage.params, lineage.artifacts
    lineage.check("score_layers")
    prepared = artifacts.prepared
    domain = params.build_task(prepared)
    train = domain.open(prepared, "train")
    model = load_base_network(artifacts, domain)
    names = layers_to_score(model, params.layer)
    if params.layer.select != "auto":
        check_selected(model, params.layer.select, domain, train, params)
    with progress_bar("score layers", scoring_steps(names, train, params.scoring)) as progress:
        scores = score_layers(model, domain, train, params.scoring, artifacts.seed, progress, names)
    report = layers_report(scores, params.layer)
    if params.layer.select == "auto":
        check_selected(model, report["used"]["1"], domain, train, params)
    if report["warning"] is not None:
        print(f"warning: {report['warning']}", file=sys.stderr)
    with lineage.write("layers") as dest:
        write_json(dest / "config.json", params.effective("layers"))
        write_json(dest / "layers.json", report)
        write_table(dest / "scores.tsv", score_table(scores))
        write_table(dest / "convergence.tsv", convergence_table(scores))
