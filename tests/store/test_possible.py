"""Stores from strangers: their zarr.json is not what a writer makes, though its checksum is right."""

import json
import os
import shutil
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ocd_core.errors import UserError
from ocd_core.report.store_export import export_store
from ocd_core.store import OverfitStore, verify_store
from ocd_core.store.copying import copy_store
from ocd_core.store.metadata import metadata_digest
from ocd_core.store.possible import refuse_impossible
from tests.support.stores import class_store

HUGE = 10**12
ABSENT = object()
VALUES: tuple[Any, ...] = (ABSENT, None, -1, 0, HUGE, 10**30, 1.5, True, "", "x", [], [HUGE], [-1], ["a"], {}, {"a": 1})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(class_store(tmp_path_factory.mktemp("store") / "train.zarr").location)


@pytest.fixture
def node(store: Path) -> dict[str, Any]:
    return json.loads((store / "zarr.json").read_text())


def seal(node: dict[str, Any]) -> dict[str, Any]:
    node["attributes"]["metadata_sha256"] = metadata_digest(node)
    return node


def every_place(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The keys to every value inside plain values."""
    found = [path] if path else []
    if isinstance(values, dict):
        found += [place for key, value in values.items() for place in every_place(value, (*path, key))]
    return found


def put(node: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        node = node[key]
    if value is ABSENT:
        del node[path[-1]]
    else:
        node[path[-1]] = value


def test_a_real_store_is_possible(node: dict[str, Any]) -> None:
    refuse_impossible(node)


def problem_of(node: dict[str, Any]) -> str | None:
    try:
        refuse_impossible(node)
    except ValueError as error:
        return str(error)
    return None


def test_no_forged_value_gives_more_than_one_line(node: dict[str, Any]) -> None:
    """Every value of the schema and of the arrays that decide how much is read, replaced by every kind of value."""
    text = json.dumps(node)
    places = [("zarr_format",), ("node_type",), ("attributes", "shard_samples"), ("attributes", "schema"),
              ("consolidated_metadata",), ("consolidated_metadata", "metadata")]  # fmt: skip
    places += [("attributes", "schema", *path) for path in every_place(node["attributes"]["schema"])]
    arrays = node["consolidated_metadata"]["metadata"]
    deciding = ("shape", "data_type", "chunk_grid", "codecs", "node_type")
    places += [("consolidated_metadata", "metadata", name, key) for name in arrays for key in deciding]
    accepted = []
    for path, value in product(places, VALUES):
        forged = json.loads(text)
        put(forged, path, value)
        problem = problem_of(forged)
        if problem is None:
            accepted.append((path[-1], value))
        else:
            assert "\n" not in problem
    assert {key for key, _ in accepted} <= {"target_shape"}, accepted  # nothing else than the true value


def forgeries() -> dict[str, Callable[[dict[str, Any]], None]]:
    def bomb(node: dict[str, Any]) -> None:
        inner = node["consolidated_metadata"]["metadata"]["delta"]["codecs"][0]["configuration"]["codecs"]
        inner[1:1] = [{"name": "gzip", "configuration": {"level": 9}}] * 20

    def huge(*names: str) -> Callable[[dict[str, Any]], None]:
        return lambda node: node["attributes"]["schema"].update(dict.fromkeys(names, HUGE))

    def without_shards(node: dict[str, Any]) -> None:
        node["attributes"]["schema"]["rows"] = 0
        node["attributes"]["shard_samples"] = []

    return {
        "codecs in codecs": bomb,
        "10^12 rows": huge("rows"),
        "10^12 shards": lambda node: node["attributes"]["schema"].update(rows=HUGE, shard_rows=1),
        "a layer of 10^24 weights": huge("out_features", "in_features"),
        "no shards": without_shards,
        "an array": lambda node: node.update(node_type="array"),
        "another layer's name": lambda node: node["attributes"].update(layer={"a": 1}),
        "a list of params": lambda node: node["attributes"].update(config=[1]),
        "shared rows by one name": lambda node: node["attributes"].update(data={"shared_rows": {"a": 1}}),
        "a list of shared rows": lambda node: node["attributes"].update(data={"shared_rows": ["train/val"]}),
        "a nested list": lambda node: node["attributes"].update(config=json.loads("[" * 900 + "]" * 900)),
    }


@pytest.mark.parametrize("name", forgeries())
def test_a_forged_store_is_refused_at_once(store: Path, node: dict[str, Any], name: str, tmp_path: Path) -> None:
    forgeries()[name](node)
    forged = tmp_path / "forged.zarr"
    shutil.copytree(store, forged)
    (forged / "zarr.json").write_text(json.dumps(seal(node)))
    start = time.monotonic()
    (damage,) = verify_store(forged)
    assert "damaged" in str(damage)
    for use in (lambda: OverfitStore(forged), lambda: export_store(forged, str(tmp_path / "public"))):
        with pytest.raises(UserError, match="damaged or forged"):
            use()
    assert time.monotonic() - start < 5
    assert not (tmp_path / "public").exists()


def test_thousands_of_levels(store: Path, tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text('{"attributes": ' + "[" * 100_000)
    assert "cannot be read" in str(verify_store(tmp_path / "a.zarr")[0])


def test_pipes_and_links_in_a_store(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "train.zarr"
    shutil.copytree(store, copy)
    secret = tmp_path / "secret"
    secret.write_text("a password")
    (copy / "notes.txt").symlink_to(secret)
    copy_store(copy, str(tmp_path / "public.zarr"))
    assert not (tmp_path / "public.zarr" / "notes.txt").exists()
    shard = copy / "rho" / "c.1"
    shard.unlink()
    os.mkfifo(shard)
    assert str(verify_store(copy)[0]) == "shard 1 of rho (samples 4 to 7): it is no longer a file"
    with pytest.raises(UserError, match="damaged"):
        OverfitStore(copy)


@pytest.mark.timeout(60)
def test_pipes_beside_the_files_of_a_store_are_not_opened(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "train.zarr"))
    for folder in (copy, *(copy / name for name in OverfitStore(store).schema.arrays())):
        for name in (".zgroup", ".zattrs", ".zmetadata", ".zarray", "pipe", "c.99"):
            os.mkfifo(folder / name)
    assert (OverfitStore(copy).deltas() == OverfitStore(store).deltas()).all()
    assert verify_store(copy) == []
    copy_store(copy, str(tmp_path / "other.zarr"))
    assert not list((tmp_path / "other.zarr").rglob(".z*"))


def test_a_file_larger_than_what_it_is_is_not_read(store: Path, tmp_path: Path) -> None:
    """Sparse, so that it takes no space on the disk of whoever made it."""
    copy = Path(shutil.copytree(store, tmp_path / "train.zarr"))
    opened = OverfitStore(copy)
    shard, claimed = copy / "rho" / "c.0", 2**40
    os.truncate(shard, claimed)
    with pytest.raises(UserError, match=r"rho does not decode .a file is larger than a shard can be"):
        opened.read("rho")
    assert "the file is larger than a shard can be" in str(verify_store(copy)[0])
    os.truncate(copy / "rho" / "zarr.json", claimed)
    assert "rho: its zarr.json" in str(verify_store(copy)[0])
    os.truncate(copy / "zarr.json", claimed)
    with pytest.raises(UserError, match=r"zarr\.json cannot be read"):
        OverfitStore(copy)
