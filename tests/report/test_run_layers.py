"""The table of probed layers."""

from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, write_table, write_text
from ocd_core.errors import UserError
from ocd_core.probing.layers import COLUMNS, probe_table
from ocd_core.report.run_layers import probes_table
from tests.probing.test_layers import ONE


@pytest.fixture
def run(tmp_path: Path) -> Artifacts:
    found = Artifacts("toy", root=tmp_path)
    found.layers.mkdir(parents=True)
    return found


def test_both_rankings_are_shown(run) -> None:
    write_table(run.layers / "probes.tsv", probe_table([ONE], {"a": 2, "b": 1}))
    table = probes_table(run)
    assert table is not None
    (row,) = table.rows
    assert row[:5] == ["`a`", "1", "2", "-0.2", "-0.3 to -0.1"]
    assert row[7] == "5e+03"
    assert len(row) == len(table.heads)


def test_without_probes_there_is_no_table(run) -> None:
    write_text(run.layers / "probes.tsv", "\t".join(COLUMNS) + "\n")
    assert probes_table(run) is None


def test_a_damaged_table_is_named(run) -> None:
    write_table(run.layers / "probes.tsv", [{"layer": "a", "rank": 1}])
    with pytest.raises(UserError, match=r"probes\.tsv is damaged"):
        probes_table(run)
