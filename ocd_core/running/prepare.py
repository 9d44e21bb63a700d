"""Read the raw data and write train, val and test (the same for all seeds)."""

import sys

from ocd_core.artifacts import write_json
from ocd_core.provenance import Lineage
from ocd_core.samples import SPLITS
from ocd_core.tasks.overlap import SHARED_ROWS, shared_inputs, warnings
from ocd_core.terminal import plain


def run(lineage: Lineage) -> None:
    """Write data/<task>/prepared."""
    domain = lineage.params.build_task()
    with lineage.write("prepared") as dest:
        summary = domain.prepare(dest)
        if SHARED_ROWS not in summary:  # a domain that does not count them
            domain.bind(dest)
            splits = {name: domain.open(dest, name) for name in SPLITS}
            summary[SHARED_ROWS] = shared_inputs(splits, domain.evaluation_batch)
        write_json(dest / "config.json", lineage.params.effective("prepare"))
        write_json(dest / "summary.json", summary)
    print(plain(", ".join(f"{k}: {v}" for k, v in summary.items())))
    for text in warnings(summary):
        print(plain(f"warning: {text}"), file=sys.stderr)
