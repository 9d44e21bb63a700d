"""A toy run whose overfit stores have several shards, and what can go wrong while the stage makes them."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.provenance import Lineage
from ocd_core.weights import save_tensors
from tests.support.repository import REPO
from tests.support.toy import ToyTask, run_stages, write_toy_params

SHARDS = 6
# a wide network, so that shards of 1 MiB hold a few of the 48 samples of the train split
WIDE = {
    "base": {"model": {"name": "tests.support.toy:PointSet", "args": {"width": 10000}}},
    "layer": {"select": "head"},
    "overfit": {"memory_mb": 8, "shard_mb": 1},
}


class AccidentTask(ToyTask):
    """The toy; where the file that OCD_TEST_ACCIDENT names is, the process dies in the middle of a shard.

    The file holds how often, and which sample is the deadly one.
    """

    def stored_target(self, batch):
        flag = Path(os.environ.get("OCD_TEST_ACCIDENT", "/nonexistent"))
        if flag.exists():
            left, sample = map(int, flag.read_text().split())
            if left and sample in batch.sample_id and len(batch) > 1:
                flag.write_text(f"{left - 1} {sample}")
                os._exit(9)
        return super().stored_target(batch)


def make_run(root: Path) -> None:
    """Everything that the overfit stage reads, in `root`."""
    write_toy_params(root, **WIDE)
    params = root / "params" / "toy.yaml"
    params.write_text(params.read_text().replace("tests.support.toy:ToyTask", "tests.faults.support:AccidentTask"))

    def stages() -> None:
        run_stages(upto="prepare")
        lineage = Lineage.of("toy")
        torch.manual_seed(0)
        with lineage.write("base") as base:
            save_tensors(dict(lineage.params.build_task().build_model().state_dict()), base / "model.safetensors")
        with lineage.write("layers") as layers:
            write_json(layers / "layers.json", {"used": {"1": "head"}})

    run_in(root, stages)


def run_in(root: Path, what: Callable[[], None]) -> None:
    with contextlib.chdir(root):
        what()


def overfit(root: Path, **options: Any) -> None:
    """The stage for the train split, in this process."""
    from stages.overfit import main

    run_in(root, lambda: main("toy", split="train", **options))


def stage_environment() -> dict[str, str]:
    """For `python -m stages.overfit` in a run's folder."""
    return {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}


def store_of(root: Path, split: str = "train") -> Path:
    return Artifacts("toy", root=root).overfit(split)


def work_of(root: Path) -> Path | None:
    """The work folder of an unfinished store."""
    found = [path for path in (root / "data" / ".work").glob("*.zarr-*") if path.is_dir()]
    assert len(found) <= 1
    return found[0] if found else None


def file_hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def finished_shards(folder: Path) -> dict[int, tuple[int, int]]:
    """Shard -> inode and time of its last file (an inode is soon used again): the shards that are there whole."""
    files = {int(path.name.removeprefix("c.")): path.stat() for path in (folder / "sample_id").glob("c.?")}
    return {shard: (file.st_ino, file.st_mtime_ns) for shard, file in files.items()}


def copy_run(source: Path, dest: Path) -> Path:
    shutil.copytree(source, dest)
    return dest


def assert_undisturbed(root: Path, expected: dict[str, str]) -> None:
    """The overfit folder is byte for byte that of a run that nothing happened to."""
    assert file_hashes(store_of(root).parent) == expected
    assert not list(root.rglob("*.partial"))
    assert list((root / "data" / ".work").iterdir()) == []
