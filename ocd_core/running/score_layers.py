"""Score the base network's layers by the entropy of the loss under perturbation (Eq. 3) and select one.

With `layer.select: validated`, each candidate is also probed (`ocd_core.probing`), and what the probes gain on the
validation split selects the layer.
"""

import sys

from torch import nn

from ocd_core.artifacts import write_json, write_table, write_text
from ocd_core.errors import UserError
from ocd_core.network.loading import load_base_network
from ocd_core.overfit.layout import check_selected
from ocd_core.probing.layers import COLUMNS, LAYERS, no_gain, probe_layers, probe_table
from ocd_core.probing.probe import Probe, probe_steps
from ocd_core.progress import progress_bar
from ocd_core.provenance import Lineage
from ocd_core.samples import Split
from ocd_core.scoring.params import VALIDATED
from ocd_core.scoring.scores import (
    LayerScore,
    candidate_order,
    convergence_table,
    layers_report,
    layers_to_score,
    score_layers,
    score_table,
    scoring_steps,
)
from ocd_core.tasks.base import Task
from ocd_core.terminal import plain


def run(lineage: Lineage) -> None:
    """Write data/<task>/seed<k>/layers."""
    params, artifacts = lineage.params, lineage.artifacts
    lineage.check("score_layers")
    domain = params.build_task(artifacts.prepared)
    train = domain.open(artifacts.prepared, "train")
    model = load_base_network(artifacts, domain)
    names = layers_to_score(model, params.layer)
    if params.layer.named is not None:
        check_selected(model, params.layer.named, domain, train, params)
    with progress_bar("score layers", scoring_steps(names, train, params.scoring)) as progress:
        scores = score_layers(model, domain, train, params.scoring, artifacts.seed, progress, names)
        progress(scoring_steps(names, train, params.scoring), "")  # the layer scored last is not the layer selected
    probes = _probes(lineage, model, domain, train, scores) if params.layer.select == VALIDATED else None
    report = layers_report(scores, params.layer, None if probes is None else [probe.layer for probe in probes])
    if params.layer.named is None:
        check_selected(model, report["used"]["1"], domain, train, params)
    warning = report["warning"] if probes is None else no_gain(probes)
    if warning is not None:
        print(plain(f"warning: {warning}"), file=sys.stderr)
    with lineage.write("layers") as dest:
        write_json(dest / "config.json", params.effective("layers"))
        write_json(dest / "layers.json", report)
        write_table(dest / "scores.tsv", score_table(scores))
        write_table(dest / "convergence.tsv", convergence_table(scores))
        if probes is None:  # only the columns, which DVC's plots need
            write_text(dest / "probes.tsv", "\t".join(COLUMNS) + "\n")
        else:
            write_table(dest / "probes.tsv", probe_table(probes, {score.name: score.rank for score in scores}))


def _probes(lineage: Lineage, model: nn.Module, domain: Task, train: Split, scores: list[LayerScore]) -> list[Probe]:
    params, seed = lineage.params, lineage.artifacts.seed
    val = domain.open(lineage.artifacts.prepared, "val")
    layers = []
    candidates = candidate_order(scores, params.layer)
    for layer in candidates if params.layer.candidates.names else candidates[:LAYERS]:
        try:
            check_selected(model, layer, domain, train, params)
        except UserError as error:
            print(plain(f"warning: layer {layer!r} is not probed: {error}"), file=sys.stderr)
        else:
            layers.append(layer)
    if not layers:
        raise UserError("layer.select: validated finds no candidate that the other params allow; the warnings say why")
    with progress_bar("probe layers", len(layers) * probe_steps(train, val, params.layer.probe)) as progress:
        return probe_layers(model, domain, train, val, layers, params.overfit, params.layer.probe, seed, progress)
