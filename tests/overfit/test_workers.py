"""A worker makes the shards that the job's own process would make, or refuses."""

import dataclasses
import pickle
from pathlib import Path

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.overfit import workers
from ocd_core.overfit.workers import Recipe, ShardJob
from ocd_core.store import OverfitStore
from ocd_core.store.local import LocalSink
from tests.faults.support import copy_run, store_of


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch) -> Path:
    root = copy_run(finished, tmp_path / "run")
    monkeypatch.chdir(root)
    monkeypatch.setattr(workers, "_started_with", {})
    threads = torch.get_num_threads()
    yield root
    torch.set_num_threads(threads)


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
