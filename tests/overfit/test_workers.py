"""A worker makes the shards that the job's own process would make, or refuses."""

import dataclasses
import pickle
import time
from pathlib import Path

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.overfit import workers
from ocd_core.overfit.refine import Refinement
from ocd_core.overfit.rows import RowBuilder
from ocd_core.overfit.workers import Recipe, ShardJob
from ocd_core.store import OverfitStore
from ocd_core.store.local import LocalSink
from ocd_core.timing import read_seconds
from tests.faults.support import copy_run, store_of
from tests.support.params import refine_params
from tests.support.runs import GROUPS
from tests.support.toy import run_stages, write_toy_params


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch, set_threads) -> Path:  # a worker sets them
    root = copy_run(finished, tmp_path / "run")
    monkeypatch.chdir(root)
    monkeypatch.setattr(workers, "_started_with", {})
    return root


def job(root: Path) -> ShardJob:
    """As the stage makes it: with a folder relative to where it runs."""
    store = OverfitStore(store_of(root))
    recipe = Recipe(Artifacts("toy"), load_params("toy"), "train")
    return ShardJob.of(recipe, LocalSink(root / "sink", store.schema), "f00d")


def test_a_shard_has_the_bytes_of_the_finished_store(run: Path, tmp_path: Path, monkeypatch) -> None:
    sent = pickle.dumps(job(run))
    assert len(sent) < 10_000, "small: dask sends it with every shard"
    found = pickle.loads(sent)
    assert found == job(run), "equal jobs are opened once"
    monkeypatch.chdir(tmp_path)  # a worker is anywhere
    make = found.open(0)
    schema = found.sink.schema
    for name in schema.arrays():
        (found.sink.folder / name).mkdir(parents=True)
    for shard in (1, schema.shard_count - 1):
        make(shard)
        for spec in schema.arrays().values():
            key = spec.file(shard)
            assert (found.sink.folder / key).read_bytes() == (store_of(run) / key).read_bytes(), key


def test_other_code_is_refused(run: Path) -> None:
    with pytest.raises(UserError, match="a worker runs different code than this process"):
        dataclasses.replace(job(run), code="another").open(0)


def test_the_code_of_a_worker_is_that_at_its_start(run: Path, monkeypatch) -> None:
    here = job(run)
    here.open(0)
    monkeypatch.setattr(workers, "_own_code", lambda _params: "changed while it lives")
    here.open(0)
    with pytest.raises(UserError, match="different code"):
        job(run).open(0)


def test_another_base_network_is_refused(run: Path) -> None:
    here = job(run)
    weights = Artifacts("toy").base / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"a worker has a different .*model.safetensors: workers need the same folder"):
        here.open(0)


def test_a_recipe_names_an_unknown_device() -> None:
    with pytest.raises(UserError, match="unknown device 'tpu'"):
        Recipe(Artifacts("toy"), None, "train", "tpu")


REFINED = {**GROUPS["embed"], "overfit": {"layout": "dense", "refine": refine_params(components=5).model_dump()}}


def test_workers_refine_with_the_same_coordinates(tmp_path: Path, monkeypatch) -> None:
    """A worker reads them from a file, which the stage removes; the store says how it was refined."""
    write_toy_params(tmp_path, **REFINED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workers, "_started_with", {})
    run_stages(upto="overfit")
    artifacts = Artifacts("toy")
    assert not list(artifacts.work.glob("refinement-*"))
    store = OverfitStore(artifacts.overfit("val"))
    params = load_params("toy")
    assert store.attributes["config"]["overfit"]["refine"]["components"] == 5
    plain = Recipe(artifacts, params, "val")
    with plain.with_refinement("refinement.safetensors") as recipe:
        with (
            pytest.raises(UserError, match=r"refinement\.safetensors is being written by process"),
            plain.with_refinement("refinement.safetensors"),
        ):
            pass
        damping = recipe.builder().refinement.damping  # a second process has not taken the file away
        sent = ShardJob.of(recipe, LocalSink(tmp_path / "sink", store.schema), "f00d")
        assert len(pickle.dumps(sent)) < 10_000
        make = pickle.loads(pickle.dumps(sent)).open(0)
    assert store.attributes["refinement"] == {"damping": damping}
    assert store.schema.steps == params.overfit.all_steps == params.overfit.steps + 1
    for name in store.schema.arrays():
        (sent.sink.folder / name).mkdir(parents=True)
    make(0)
    for spec in store.schema.arrays().values():
        key = spec.file(0)
        assert (sent.sink.folder / key).read_bytes() == (artifacts.overfit("val") / key).read_bytes(), key
    rank = torch.linalg.matrix_rank(torch.from_numpy(store.deltas(slice(0, 16))).flatten(1), rtol=1e-4)
    assert rank <= 6, "the mean and five components"


def test_without_refining_there_is_no_file(run: Path) -> None:
    plain = Recipe(Artifacts("toy"), load_params("toy"), "train")
    with plain.with_refinement("nothing") as recipe:
        assert recipe is plain
    assert not (Artifacts("toy").work / "nothing").exists()


def test_the_time_of_what_refines_is_that_of_the_first_split(tmp_path: Path, monkeypatch) -> None:
    write_toy_params(tmp_path, **REFINED)
    monkeypatch.chdir(tmp_path)
    fit, clock, later = RowBuilder.fit_refinement, time.perf_counter, [0.0]

    def slow(self: RowBuilder) -> Refinement:
        later[0] = 1000.0
        return fit(self)

    monkeypatch.setattr(RowBuilder, "fit_refinement", slow)
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + later[0])
    run_stages(upto="overfit")
    seconds = {split: read_seconds(Artifacts("toy"), "overfit", split)["seconds"] for split in ("train", "val")}
    assert seconds["train"] > 1000 > seconds["val"]
