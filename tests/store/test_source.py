"""A store's files are read alike from a folder and from a URL, and what is no finished store is named."""

import json

import fsspec
import numpy as np
import pytest
from fsspec.implementations.http import HTTPFileSystem

from ocd_core.errors import UserError
from ocd_core.store import OverfitStore, verify_store
from ocd_core.store.source import DamagedStoreError, Source, missing_files, open_arrays, read_node, schema_of
from tests.support.stores import complete, make_schema, make_values
from tests.support.web import served

SCHEMA = make_schema()
VALUES = make_values(SCHEMA)


@pytest.fixture
def folder(tmp_path):
    complete(tmp_path / "a.zarr", SCHEMA, VALUES)
    return tmp_path / "a.zarr"


@pytest.fixture(params=["folder", "text", "URL"])
def place(request, folder):
    if request.param != "URL":
        yield folder if request.param == "folder" else str(folder)
        return
    fs = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            fs.pipe_file(f"/source/a.zarr/{path.relative_to(folder)}", path.read_bytes())
    yield "memory://source/a.zarr"
    fs.rm("/source", recursive=True)


def test_files_and_sizes(place, folder):
    source = Source(place)
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert source.sizes() == {key: path.stat().st_size for key, path in files.items()}
    assert source.read("rho/c.1") == (folder / "rho" / "c.1").read_bytes()
    assert source.local == ("://" not in str(place))
    with pytest.raises(FileNotFoundError):
        source.read("rho/c.9")


@pytest.mark.parametrize("known", [True, False])
def test_over_http(folder, known, monkeypatch):
    """The server knows no parts of files; `known`: whether it says how long they are."""
    if not known:
        monkeypatch.setattr(HTTPFileSystem, "_sizes", unknown_sizes)
    with served(folder.parent) as url:
        assert verify_store(f"{url}/a.zarr") == []
        store, here = OverfitStore(f"{url}/a.zarr"), OverfitStore(folder)
        for rows in (None, slice(3, 9), [7, 2]):
            np.testing.assert_array_equal(store.read("delta", rows), here.read("delta", rows))
        assert Source(f"{url}/a.zarr").sizes() == Source(folder).sizes()
        (folder / "rho" / "c.1").write_bytes(b"")
        with pytest.raises(UserError, match=r"rho/c\.1 is missing or empty"):
            OverfitStore(f"{url}/a.zarr")


async def unknown_sizes(_self, paths, **_options):
    return [None] * len(paths)


def test_arrays_and_schema(place):
    source = Source(place)
    schema = schema_of(read_node(source))
    assert schema == SCHEMA
    for name, array in open_arrays(source, schema).items():
        np.testing.assert_array_equal(array[:], VALUES[name])


def test_missing_and_empty_files_are_listed(folder):
    (folder / "rho" / "c.1").unlink()
    (folder / "target" / "c.2").write_bytes(b"")
    assert sorted(missing_files(Source(folder).sizes(), SCHEMA)) == ["rho/c.1", "target/c.2"]


def changed(folder, **values):
    node = json.loads((folder / "zarr.json").read_text())
    for name, value in values.items():
        (node["attributes"] if name in node["attributes"] else node)[name] = value
    (folder / "zarr.json").write_text(json.dumps(node))
    return Source(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": "another"}, "some other zarr group"),
        ({"schema_version": 99}, "has schema version 99, but this version of ocd_core reads"),
        ({"consolidated_metadata": None}, "is incomplete: its writer has not finished"),
    ],
)
def test_what_is_no_store_of_this_version(folder, values, message):
    with pytest.raises(UserError, match=message) as error:
        read_node(changed(folder, **values))
    assert not isinstance(error.value, DamagedStoreError)


def test_damage_to_the_metadata_is_told_apart(folder):
    with pytest.raises(DamagedStoreError, match="was changed after it was written"):
        read_node(changed(folder, layer="fc2"))
    (folder / "zarr.json").write_text("[]")
    with pytest.raises(DamagedStoreError, match="cannot be read"):
        read_node(Source(folder))


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="there is no store at"):
        Source(tmp_path / "none.zarr")
