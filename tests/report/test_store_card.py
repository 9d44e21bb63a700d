import json
import re

import numpy as np
import pytest

from ocd_core import __version__
from ocd_core.errors import UserError
from ocd_core.report.store_card import NO_LICENCE, flat, write_card
from tests.support.stores import ABOUT, class_store, file_hashes, value_store


@pytest.fixture
def store(tmp_path):
    return class_store(tmp_path / "train.zarr")


def read(card):
    assert sorted(p.name for p in card.iterdir()) == ["README.md", "card.json"]
    return json.loads((card / "card.json").read_text()), (card / "README.md").read_text()


def test_card_says_what_the_store_holds(tmp_path):
    data = {"source": "digits", "licence": "CC0-1.0"}
    class_store(tmp_path / "train.zarr", attributes={**ABOUT, "data": data})
    write_card(tmp_path / "train.zarr", tmp_path / "train.card")
    values, text = read(tmp_path / "train.card")
    assert (values["rows"], values["layout"], values["classes"]) == (30, "dense", 3)
    assert values["layer"] == {"name": "fc1", "out_features": 5, "in_features": 6}
    assert (values["task"], values["split"], values["seed"], values["rank"]) == ("toy", "train", 0, 1)
    assert values["base_sha256"] == ABOUT["base_sha256"]
    assert values["config"] == ABOUT["config"]
    assert (values["schema_version"], values["code_version"]) == (1, "0.1")
    assert values["card_code_version"] == __version__
    assert (values["licence"], values["source"]) == ("CC0-1.0", "digits")
    assert "Lutati" in values["citation"]
    assert "| licence | CC0-1.0 |" in text
    assert "| overfit.lr | `0.01` |" in text


def test_sizes_and_figures_against_numpy(tmp_path, store):
    write_card(tmp_path / "train.zarr", tmp_path / "train.card")
    values, text = read(tmp_path / "train.card")
    for array in values["arrays"]:
        whole = store.array(array["name"])
        files = [p for p in (tmp_path / "train.zarr" / array["name"]).rglob("*") if p.is_file()]
        assert array["bytes"] == int(np.prod(whole.shape)) * whole.dtype.itemsize
        assert array["stored_bytes"] == sum(p.stat().st_size for p in files)
        assert array["shape"] == list(whole.shape)
        assert array["dims"] == list(whole.metadata.dimension_names)
        assert f"| {array['bytes']:,} | {array['stored_bytes']:,} |" in text
    rho, right = store.read("rho"), store.read("base_output").argmax(1) == store.read("target")
    summary = values["summary"]
    assert summary["rho"]["median"] == np.median(rho)
    assert summary["rho_where_wrong"]["mean"] == rho[~right].mean()
    assert (summary["base_is_right"], summary["base_is_wrong"]) == (right.sum(), (~right).sum())
    assert summary["loss_after"]["max"] == store.read("loss_after")[:, -1].max()
    assert summary["share_of_rows_whose_loss_fell"] == 1


def test_no_classes_no_licence(tmp_path):
    value_store(tmp_path / "val.zarr", attributes={**ABOUT, "data": {"source": None, "licence": ""}})
    write_card(tmp_path / "val.zarr", tmp_path / "val.card")
    values, text = read(tmp_path / "val.card")
    assert values["licence"] == NO_LICENCE
    assert values["classes"] is None
    assert not [k for k in values["summary"] if "right" in k or "wrong" in k]
    assert "| licence | see the source data |" in text


def test_same_store_same_card_and_it_is_replaced_whole(tmp_path, store):
    class_store(tmp_path / "elsewhere" / "train.zarr")
    write_card(tmp_path / "train.zarr", tmp_path / "train.card")
    write_card(tmp_path / "elsewhere" / "train.zarr", tmp_path / "b.card")
    before = file_hashes(tmp_path / "train.card")
    assert before == file_hashes(tmp_path / "b.card")
    (tmp_path / "train.card" / "left-over").write_text("x")
    write_card(tmp_path / "train.zarr", tmp_path / "train.card")
    assert file_hashes(tmp_path / "train.card") == before
    with pytest.raises(UserError, match="no store"):
        write_card(tmp_path / "none.zarr", tmp_path / "train.card")
    assert file_hashes(tmp_path / "train.card") == before


@pytest.mark.parametrize("layout", ["dense", "factored"])
def test_code_in_the_readme_runs(tmp_path, monkeypatch, layout):
    store = class_store(tmp_path / "train.zarr", layout)
    write_card(tmp_path / "train.zarr", tmp_path / "train.card")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", read(tmp_path / "train.card")[1], re.DOTALL)
    assert len(blocks) == 3
    names = [{} for _ in blocks]
    for block, space in zip(blocks, names, strict=True):
        exec(block, space)
    np.testing.assert_array_equal(names[0]["store"].rho.values, store.read("rho"))
    np.testing.assert_array_equal(names[1]["group"]["rho"][:], store.read("rho"))
    np.testing.assert_array_equal(names[2]["delta"], store.delta(0))


def test_flat_names_nested_groups():
    assert flat({"a": {"b": {"c": 1}, "d": []}, "e": None, "f": {}}) == {"a.b.c": 1, "a.d": [], "e": None, "f": {}}
