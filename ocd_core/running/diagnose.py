"""Say whether OCD can help, in which layer and how much, before anything but the base network is trained."""

from ocd_core.artifacts import read_table, write_json, write_table, write_text
from ocd_core.drawing import save_figure
from ocd_core.network.loading import load_base_network
from ocd_core.network.ranking import read_ranking
from ocd_core.probing.diagnosis import PICTURE, VERDICT, Diagnosis, temperature_of, verdict_text
from ocd_core.probing.layers import LAYERS, probe_layers, probes_of_table
from ocd_core.probing.picture import diagnosis_figure
from ocd_core.probing.probe import probe_steps
from ocd_core.progress import progress_bar
from ocd_core.provenance import Lineage
from ocd_core.scoring.params import VALIDATED
from ocd_core.terminal import plain


def run(lineage: Lineage) -> None:
    """Write data/<task>/seed<k>/diagnosis.

    With `layer.select: validated`, the stage `score_layers` has probed the layers already.
    """
    params, artifacts = lineage.params, lineage.artifacts
    lineage.check("diagnose")
    task = params.build_task(artifacts.prepared)
    train, val = (task.open(artifacts.prepared, split) for split in ("train", "val"))
    network = load_base_network(artifacts, task)
    used = list(read_ranking(artifacts.layers).used.values())
    if params.layer.select == VALIDATED:
        probes = probes_of_table(read_table(artifacts.layers / "probes.tsv"))
    else:
        layers, probe = used[:LAYERS], params.layer.probe
        with progress_bar("probe layers", len(layers) * probe_steps(train, val, probe)) as progress:
            probes = probe_layers(network, task, train, val, layers, params.overfit, probe, artifacts.seed, progress)
    diagnosis = Diagnosis(probes, used[0], temperature_of(network, task, val, artifacts.seed))
    with lineage.write("diagnosis") as dest:
        write_text(dest / VERDICT, verdict_text(diagnosis))
        write_json(dest / "metrics.json", diagnosis.metrics())
        write_table(dest / "layers.tsv", diagnosis.table())
        save_figure(diagnosis_figure(diagnosis), dest / PICTURE)
    print(plain(f"diagnosis: {diagnosis.verdict} (best layer: {diagnosis.best.layer})"))
