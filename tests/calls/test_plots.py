"""Plots by name; what they show of a run is in test_ocd.py."""

from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.calls.plots import PLOTS, run_figure
from ocd_core.errors import UserError
from ocd_core.files import sha256_files
from ocd_core.provenance import write_manifest
from tests.support.tables import table


@pytest.mark.parametrize("name", PLOTS)
def test_what_was_not_made_yet_is_named_with_the_call_that_makes_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is missing; call (diagnose|fit|evaluate) first"):
        run_figure(Artifacts("toy", root=tmp_path), name)


def test_probabilities_of_numbers_cannot_be_reliable(tmp_path: Path) -> None:
    run = Artifacts("toy", root=tmp_path)
    run.evaluation.mkdir(parents=True)
    write_json(run.evaluation / "table.json", table())
    (run.evaluation / "samples.tsv").write_text("sample_id\tbase_mse\n0\t1.0\n")
    about = {"stage": "evaluate", "params": {}, "code": "", "inputs": {}}
    write_manifest(run.evaluation, about, sha256_files(run.evaluation))
    with pytest.raises(UserError, match="nothing to plot: only of classes"):
        run_figure(run, "reliability")
