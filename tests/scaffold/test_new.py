"""`ocd new`: complete params files, and a class to fill in."""

import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field

from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.params_files import flat, read_yaml
from ocd_core.scaffold.new import domains, new_params, new_task
from ocd_core.strict import StrictModel
from tests.support.repository import REPO
from tests.support.toy import ToyTask

# a params file of each domain, whose keys the template must have, but for rows that only some tables have
LIKE = {"images": "mnist5k", "tabular": "california", "text": "cr", "speech": "speech_small", "views": "tinynerf_demo"}


@pytest.mark.parametrize("domain", LIKE)
def test_each_domain_has_a_complete_file_with_comments(domain: str, tmp_path: Path) -> None:
    (path,) = new_task("mine", domain, root=tmp_path)
    params = load_params("mine", tmp_path)
    assert params.domain == domain
    found, known = (flat(read_yaml(p)) for p in (path, REPO / "params" / f"{LIKE[domain]}.yaml"))
    assert {key for key in set(known) - set(found) if not key.startswith("controls.")} == set()
    assert set(found) - set(known) <= {key for key in found if key.startswith(("controls.", "base.model.args"))}
    text = path.read_text()
    assert text.startswith("# mine. ")
    assert "the best on val is kept" in text
    assert "null" in text
    assert "what differs" not in text


def test_the_domains_are_those_of_the_package() -> None:
    assert domains() == sorted(LIKE)
    with pytest.raises(UserError, match="unknown domain 'image'; known are images, speech"):
        new_params("mine", "image")


def test_a_class_to_fill_in_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    files = new_task("mine", "mydomain:Mine", with_class=True)
    assert [str(file) for file in files] == ["params/mine.yaml", "mydomain.py", "test_mydomain.py"]
    task = load_params("mine").build_task()
    (tmp_path / "prepared").mkdir()
    assert task.prepare(tmp_path / "prepared")["splits"]["val"] == {"samples": 400}
    assert len(task.open(tmp_path / "prepared", "test")) == 400
    compile(files[2].read_text(), "test", "exec")
    with pytest.raises(UserError, match=r"params/mine\.yaml exists"):
        new_task("mine", "mydomain:Mine")
    with pytest.raises(UserError, match=r"mydomain\.py exists"):
        new_task("other", "mydomain:Mine", with_class=True)
    sys.modules.pop("mydomain")


class Rate(StrictModel):
    lr: float = 1e-4
    weights: Path | None = Path("a/b")


class OwnData(StrictModel):
    path: Path = Path("data/raw/own")
    rate: Rate = Rate()
    rates: list[Rate] = Field(default=[Rate(lr=0.5, weights=None)])
    named: dict[str, Rate] = Field(default={"first": Rate()})
    sizes: list[int] = Field(default_factory=lambda: [1, 2])
    most: int | None = None
    kind: Literal["a", "b"] = "b"


class Own(ToyTask):
    Data = OwnData


class PairData(StrictModel):
    pair: tuple[int, int] = (1, 2)


class OfPairs(ToyTask):
    Data = PairData


class AnyData(StrictModel):
    what: Any = object()


class OfAnything(ToyTask):
    Data = AnyData


def test_the_data_of_a_class_has_its_defaults(tmp_path: Path) -> None:
    new_task("mine", f"{__name__}:Own", root=tmp_path)
    found = load_params("mine", tmp_path).data
    assert found == OwnData()
    assert isinstance(found, OwnData)
    assert found.rate.weights == Path("a/b")


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("OfPairs", r"params/mine\.yaml with the defaults of .*:OfPairs: data\.pair: .* tuple"),
        (
            "OfAnything",
            r"OfAnything: a default of its Data is no plain value \(.*object.*\); give numbers, texts",
        ),
    ],
)
def test_defaults_that_no_params_file_can_hold(tmp_path: Path, domain: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        new_task("mine", f"{__name__}:{domain}", root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--class needs --domain module:Class"):
        new_task("mine", "images", root=tmp_path, with_class=True)
    with pytest.raises(UserError, match="cannot import domain"):
        new_task("mine", "nowhere_at_all:Mine", root=tmp_path)
    with pytest.raises(UserError, match="noise of its Data has no default"):
        new_task("mine", "tests.support.toy:ToyTask", root=tmp_path)
    assert not list(tmp_path.iterdir())
