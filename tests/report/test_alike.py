"""Runs of one task that do not belong together are not averaged."""

from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.files import sha256_files
from ocd_core.provenance import MANIFEST, write_manifest
from ocd_core.report.results import merged_results, run_tables
from ocd_core.report.run_tables import markdown
from tests.support.tables import table, write_table

CONFIG = {"diffusion": {"updates": 400}, "scale": {"lr": 1e-3}}


def write(root: Path, seed: int, updates: int = 400, code: str = "c0", rank: int = 1) -> Artifacts:
    run = Artifacts("toy", seed, rank, root)
    write_table(run, table(seed=seed, rank=rank), {**CONFIG, "diffusion": {"updates": updates}})
    write_json(run.diffusion / "metrics.json", {})
    (run.diffusion / MANIFEST).unlink(missing_ok=True)
    made = {"stage": "train_diffusion", "params": {}, "code": code, "inputs": {}}
    write_manifest(run.diffusion, made, sha256_files(run.diffusion))
    return run


def kept(root: Path) -> tuple[list[tuple[int, int]], list[str]]:
    found = run_tables("toy", root)
    return [(t["rank"], t["seed"]) for t in found], [r for r in found[0]["remarks"] if "left out" in r]


def test_runs_that_differ_in_seed_and_rank_alone_are_together(tmp_path: Path) -> None:
    for seed, rank in ((0, 1), (1, 1), (0, 2)):
        write(tmp_path, seed, rank=rank)
    assert kept(tmp_path) == ([(1, 0), (1, 1), (2, 0)], [])


@pytest.mark.parametrize(
    ("changes", "named"), [({"updates": 500}, "diffusion.updates"), ({"code": "c1"}, "code of diffusion")]
)
def test_one_of_other_params_or_code_is_left_out_by_name(tmp_path: Path, changes, named: str) -> None:
    for seed in (0, 2):
        write(tmp_path, seed)
    write(tmp_path, 1, **changes)
    runs, (why,) = kept(tmp_path)
    assert runs == [(1, 0), (1, 2)]
    assert why.startswith(f"Seed 1, rank 1 is left out: it was made with another {named}; run its stages again")
    assert why in markdown(merged_results(run_tables("toy", tmp_path)))


class Now:
    """The present params."""

    def __init__(self, updates: int) -> None:
        self.values = {**CONFIG, "diffusion": {"updates": updates}}

    def effective(self, _artifact: str):
        return self.values

    def plain(self):
        return self.values


def set_present(monkeypatch: pytest.MonkeyPatch, updates: int) -> None:
    """What the params file and the code say now."""
    monkeypatch.setattr("ocd_core.report.alike.load_params", lambda *_: Now(updates))
    monkeypatch.setattr("ocd_core.report.alike.stage_digest", lambda *_: "now")


def test_the_present_params_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run again with other params, beside two of before, and one with the present code but those params."""
    write(tmp_path, 0, updates=500)
    for seed in (1, 2):
        write(tmp_path, seed)
    write(tmp_path, 3, code="now")
    set_present(monkeypatch, updates=500)
    runs, why = kept(tmp_path)
    assert runs == [(1, 0)]
    assert len(why) == 3


def test_then_the_present_code_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a new version, one run is made again: the others are those that are left out, and to be made again."""
    for seed in (0, 2):
        write(tmp_path, seed)
    write(tmp_path, 1, code="now")
    set_present(monkeypatch, updates=400)
    runs, why = kept(tmp_path)
    assert runs == [(1, 1)]
    assert [each.split(",")[0] for each in why] == ["Seed 0", "Seed 2"]
    assert "another code of diffusion; run its stages again ('ocd run toy --seed 0')" in why[0]
