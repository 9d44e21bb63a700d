"""The page about a store: complete, offline, escaped."""

import base64
from html.parser import HTMLParser

import numpy as np
import pytest

from ocd_core.report.store_page import store_page
from ocd_core.report.store_terminal import headline
from tests.support.stores import ABOUT, class_store, value_store


class Page(HTMLParser):
    """Tags, their attributes, and the text of a page; fails on tags that do not close."""

    VOID = ("meta", "img", "!doctype")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f"{data} "


@pytest.fixture
def no_drawing(monkeypatch):
    """Pictures are tested in test_plots; here they only cost time."""
    monkeypatch.setattr("ocd_core.report.page.png", lambda figure: b"picture")


@pytest.mark.parametrize("kind", ["dense", "factored", "values", "one row", "zero"])
def test_page_opens_offline(tmp_path, kind, monkeypatch):
    if kind in ("factored", "one row"):
        monkeypatch.setattr("ocd_core.report.page.png", lambda figure: b"\x89PNG")
    if kind in ("dense", "factored"):
        store = class_store(tmp_path / "a.zarr", kind)
    elif kind == "zero":
        store = value_store(tmp_path / "a.zarr", delta=np.zeros((12, 5, 6), np.float32), rho=np.zeros(12))
    else:
        store = value_store(tmp_path / "a.zarr", rows=1 if kind == "one row" else 12)
    text = store_page(store)
    page = Page(text)
    assert not {t for t, _ in page.found} & {"script", "link", "iframe", "object", "embed", "a", "base", "form"}
    assert not [v for _, attrs in page.found for k, v in attrs.items() if k in ("href", "srcset", "background")]
    assert "url(" not in text
    assert "@import" not in text
    pictures = [attrs["src"] for tag, attrs in page.found if tag == "img"]
    for source in pictures:
        assert base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True)[:4] == b"\x89PNG"
    assert len(pictures) == {"dense": 6, "factored": 6, "values": 6, "one row": 5, "zero": 4}[kind]
    for word in ("overfit.lr", "layer_activation", headline(store)):
        assert word in page.text
    assert ("right for" in page.text) == (kind in ("dense", "factored"))


@pytest.mark.usefixtures("no_drawing")
def test_page_is_the_same_for_the_same_store(tmp_path):
    assert store_page(class_store(tmp_path / "a.zarr")) == store_page(class_store(tmp_path / "b" / "a.zarr"))


@pytest.mark.usefixtures("no_drawing")
def test_page_escapes_what_the_store_says(tmp_path):
    bad = "<script>alert(1)</script>"
    about = {**ABOUT, "task": bad, "layer": bad, "config": {"overfit": {**ABOUT["config"]["overfit"], bad: bad}}}
    text = store_page(value_store(tmp_path / "a.zarr", attributes=about))
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4


@pytest.mark.usefixtures("no_drawing")
def test_page_shows_the_neighbours_and_the_shares(tmp_path):
    """Δ is a class's own direction: all neighbours are of the same class."""
    label = np.arange(30) % 3
    delta = np.random.default_rng(0).standard_normal((30, 5, 6)).astype(np.float32) * 0.01
    delta[np.arange(30), label, 0] += 5
    store = class_store(tmp_path / "a.zarr", delta=delta, target=label)
    text = Page(store_page(store)).text
    assert "5 nearest 100.0" in " ".join(text.split())
    assert f"by chance {100 * 9 / 29:.1f}" in " ".join(text.split())
