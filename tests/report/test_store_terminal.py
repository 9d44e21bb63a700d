"""The tables about a store."""

import numpy as np

from ocd_core.report.store_terminal import headline, print_store, row_text, spreads
from ocd_core.store.summary import read_rows
from tests.support.stores import ABOUT, class_store, value_store


def test_headline_and_row(tmp_path):
    store = class_store(tmp_path / "a.zarr")
    assert headline(store) == ("toy, split train, seed 0, rank 1: layer fc1 (5 × 6), 30 rows, layout dense, schema 1")
    text = row_text(store, 4)
    assert f"sample {store.read('sample_id')[4]}, replica 0, target {store.read('target')[4]}," in text
    assert f"ρ {store.read('rho')[4]:.4g}" in text
    assert f"largest singular values of Δ {store.read('rho')[4]:.3g}," in text  # of rank one


def test_spreads_by_right_and_wrong(tmp_path):
    values = read_rows(class_store(tmp_path / "a.zarr"))
    found = spreads(values)
    right, wrong = (k for k in found if ", base is " in k)
    assert found[right]["mean"] == values.rho[values.correct].mean()
    assert found[wrong]["max"] == values.rho[~values.correct].max()
    assert f"({(~values.correct).sum()} rows)" in wrong


def test_terminal(tmp_path, capsys):
    store = value_store(tmp_path / "a.zarr", attributes={**ABOUT, "task": "[red]name"})
    print_store(store, read_rows(store), 3)
    shown = capsys.readouterr().out
    assert "[red]name" in shown  # shown as it is, not as a colour
    assert "12 × 5 × 6" in shown
    assert f"{np.median(store.read('rho')):.3g}" in shown
    assert "row 3: " in shown
