"""Bundles of real runs of three domains and of a user's own: they answer as the run does, and name no code."""

import json
import shutil
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from torch import Tensor, nn

from ocd_core import Predictor
from ocd_core.artifacts import Artifacts
from ocd_core.bundles.fetch import bundle_folder
from ocd_core.bundles.layout import check_bundle
from ocd_core.errors import UserError
from ocd_core.report.run_export import export_run, is_run
from ocd_core.stage_code import BY_NAME
from ocd_core.tasks.tabular.task import Tabular
from tests.bundles.support import edit_json, rehash
from tests.report.conftest import MAKERS

NEEDED = {"tabular": {"features.json", "features.safetensors", "targets.json"}}


Exported = tuple[str, Artifacts, Path]  # domain, run and bundle, none of which a test may change


@pytest.fixture(scope="module")
def export_of(run_of_domain: Callable[[str], Artifacts]) -> Callable[[str], Exported]:
    @cache
    def exported(domain: str) -> Exported:
        run = run_of_domain(domain)
        export_run(run.rank_dir, str(run.root / "bundle"))
        return domain, run, run.root / "bundle"

    return exported


@pytest.fixture(params=MAKERS)
def exported(request: pytest.FixtureRequest, export_of: Callable[[str], Exported]) -> Exported:
    return export_of(request.param)


@pytest.fixture
def table(export_of: Callable[[str], Exported]) -> Exported:
    return export_of("tabular")


def some_inputs(run: Artifacts, predictor: Predictor) -> tuple[Tensor, ...]:
    split = predictor.task.open(run.prepared, "test")
    return split.batch(torch.arange(3)).inputs


def test_a_bundle_answers_as_its_run(exported: Exported, tmp_path: Path) -> None:
    """In a place where there is nothing else, moved and without the run."""
    domain, run, bundle = exported
    there = Path(shutil.copytree(bundle, tmp_path / "elsewhere"))
    own = Predictor.from_artifacts(run.rank_dir)
    found = Predictor.from_pretrained(there, trust_remote_code=domain == "own")
    inputs = some_inputs(run, own)
    wanted, answer = own.predict(inputs, draws=2), found.predict(inputs, draws=2)
    assert torch.equal(answer.output, wanted.output)
    assert torch.equal(answer.draws, wanted.draws)
    assert not torch.equal(answer.output, answer.base_output)
    assert found.gain == own.gain
    assert (found.gain is not None) == (domain == "images")
    if wanted.rho is not None:
        assert torch.equal(answer.rho, wanted.rho)
    word = [task.describe_output(answer.output[0]) for task in (own.task, found.task)]
    assert word[0] == word[1]


def test_a_bundle_has_what_its_task_needs_and_no_data(exported: Exported) -> None:
    domain, _, bundle = exported
    prepared = {path.name for path in (bundle / "prepared").glob("*")}
    assert prepared == NEEDED.get(domain, set())
    assert not list(bundle.rglob("*.tsv"))
    check_bundle(bundle)
    card = (bundle / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: ocd-core\n")
    table = json.loads((bundle.parent / "data").joinpath(*exported[1].evaluation.parts[-4:], "table.json").read_text())
    base = next(r for r in table["results"] if r["row"] == "base")
    assert f"{base['mean']:.{table['metrics'][0]['decimals']}f}" in card
    assert ("trust_remote_code=True" in card) == (domain == "own")


def test_a_tuned_model_travels_with_its_run(exported: Exported) -> None:
    domain, run, bundle = exported
    load = partial(Predictor.from_pretrained, trust_remote_code=domain == "own", tuned=True)
    if domain not in ("own", "views"):  # was not tuned
        assert not (bundle / "tuned").exists()
        with pytest.raises(UserError, match=r"has no tuned diffusion model; leave out tuned=True"):
            load(bundle)
        return
    own, found = Predictor.from_artifacts(run.rank_dir, tuned=True), load(bundle)
    inputs = some_inputs(run, own)
    answer = found.predict(inputs, draws=2)
    assert torch.equal(answer.output, own.predict(inputs, draws=2).output)
    untuned = Predictor.from_pretrained(bundle, trust_remote_code=True).predict(inputs, draws=2)
    assert not torch.equal(answer.output, untuned.output)


def test_a_row_of_a_table_is_read_as_the_run_reads_it(tmp_path: Path, table: Exported) -> None:
    _, run, bundle = table
    path = tmp_path / "row.csv"
    path.write_text("a,b,colour,floor\n3.5,,red,1\n")
    own, found = Predictor.from_artifacts(run.rank_dir), Predictor.from_pretrained(bundle)
    assert torch.equal(found.task.read_input(path)[0], own.task.read_input(path)[0])
    assert found.task.describe_output(found.predict(found.task.read_input(path)).output)


# --- code


def boom(**_args: Any) -> nn.Module:
    raise AssertionError("a bundle has run code")


def test_own_code_needs_trust(export_of: Callable[[str], Exported]) -> None:
    _, _, bundle = export_of("own")
    with pytest.raises(UserError, match=r"domain 'tests\.support\.toy:PlaneTask', which is not imported; .*trust_"):
        Predictor.from_pretrained(bundle)


# the place of each name in a bundle, by the key of the params that holds it; None: a bundle does not have it
PLACES = {
    "domain": ("config.json", "domain"),
    "base.model.name": ("config.json", "model.name"),
    "sampling.sampler": ("config.json", "sampling.sampler"),
    "diffusion.representation.name": ("diffusion/config.json", "representation.name"),
    "diffusion.denoiser.name": ("diffusion/config.json", "params.denoiser.name"),
    "controls.fit": None,
    "evaluate.rows": None,
}


def test_every_name_of_the_params_has_its_place() -> None:
    """What a later version imports by name must be refused, too."""
    assert {key for members in BY_NAME.values() for key in members.keys} == set(PLACES)


@pytest.mark.parametrize("key", [key for key, place in PLACES.items() if place is not None])
def test_a_bundle_runs_no_code(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_a_stranger.py").write_text("raise AssertionError('a bundle has imported code')")
    monkeypatch.syspath_prepend(str(tmp_path))
    bundle = Path(shutil.copytree(bundle_folder("mnist5k-conv2"), tmp_path / "bundle"))
    for name in ("of_a_stranger:Class", "os:system", f"{__name__}:boom"):
        edit_json(bundle / PLACES[key][0], PLACES[key][1], name)
        with pytest.raises(UserError, match=r"names code of its own, the \w+ '.*trust_remote_code=True") as error:
            Predictor.from_pretrained(rehash(bundle, code_version="9"))
        assert name in str(error.value)
        assert "made by ocd-core 9" in str(error.value)
    assert "of_a_stranger" not in sys.modules
    edit_json(bundle / "config.json", "model.name", f"{__name__}:boom")
    edit_json(bundle / "config.json", "domain", "images")
    edit_json(bundle / "config.json", "sampling.sampler", "ddim")
    with pytest.raises(UserError, match="arguments: a bundle has run code"):  # with trust, it would
        Predictor.from_pretrained(rehash(bundle), trust_remote_code=True)


# --- whole or not at all


def test_export_to_a_url_and_back(table: Exported, monkeypatch, tmp_path: Path) -> None:
    _, run, bundle = table
    monkeypatch.setenv("OCD_CACHE", str(tmp_path))
    fs = fsspec.filesystem("memory")
    export_run(run.rank_dir, "memory://runs/table")
    try:
        there = {path.removeprefix("/runs/table/"): fs.cat_file(path) for path in fs.find("/runs/table")}
        assert there == {p.relative_to(bundle).as_posix(): p.read_bytes() for p in bundle.rglob("*") if p.is_file()}
        inputs = some_inputs(run, Predictor.from_pretrained(bundle))
        answers = [Predictor.from_pretrained(place).predict(inputs).output for place in ("memory://runs/table", bundle)]
        assert torch.equal(*answers)
        with pytest.raises(UserError, match="exists already"):
            export_run(run.rank_dir, "memory://runs/table")
    finally:
        fs.rm("/runs", recursive=True)


def test_a_run_that_is_not_whole_is_refused(table: Exported, tmp_path: Path) -> None:
    _, run, _ = table
    shutil.copytree(run.task_dir, tmp_path / "data" / run.task)
    copy = Artifacts(run.task, root=tmp_path)
    path = copy.base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"base/model\.safetensors is damaged"):
        export_run(copy.rank_dir, str(tmp_path / "out"))
    shutil.rmtree(copy.evaluation)
    with pytest.raises(UserError, match=r"evaluation is missing; run 'dvc repro'"):
        export_run(copy.rank_dir, str(tmp_path / "out"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]


def test_a_task_that_forgets_what_it_needs(table: Exported, tmp_path: Path, monkeypatch) -> None:
    _, run, _ = table
    monkeypatch.setattr(Tabular, "travelling", lambda self, prepared: {})
    with pytest.raises(UserError, match=r"would not load: the bundle/prepared/features.*what `bind` needs in Task"):
        export_run(run.rank_dir, str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_is(table: Exported, tmp_path: Path) -> None:
    _, run, bundle = table
    assert is_run(str(run.rank_dir))
    assert not is_run(str(bundle))
    assert not is_run(str(run.overfit("train")))
    assert not is_run("memory://runs/table")
    assert not is_run(str(tmp_path / "data" / "x" / "seed0" / "rank1"))
