"""The table of stages: every input is made before it is read, every group and artifact exists."""

from importlib import import_module

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.config import Params
from ocd_core.params_files import flat, read_params
from ocd_core.pipeline import CONTENT, GROUP_MODULES, STAGES, maker, params_module
from tests.support.repository import REPO


def test_every_input_is_made_by_an_earlier_stage() -> None:
    made: set[str] = set()
    for stage in STAGES.values():
        assert {name.split("/")[0] for name in stage.inputs} <= made
        made.add(stage.makes)
    assert len(made) == len(STAGES)
    assert set(CONTENT) <= made


@pytest.mark.parametrize("name", STAGES)
def test_the_maker_of_an_artifact(name: str) -> None:
    assert maker(STAGES[name].makes) == name
    assert maker(f"{STAGES[name].makes}/train") == name


def test_every_artifact_has_a_place_of_its_own() -> None:
    run = Artifacts("task", 3, 2)
    names = [stage.makes for stage in STAGES.values() if stage.makes != "overfit"]
    names += [f"overfit/{split}" for split in ("train", "val", "test")]
    paths = [run.path(name) for name in names]
    for path in paths:
        assert not any(path != other and path.is_relative_to(other) for other in paths)
    assert len(set(paths)) == len(paths)


def test_the_keys_that_stages_read_are_in_the_params_files() -> None:
    values = read_params("mnist5k", REPO)
    known = {".".join(key.split(".")[:depth]) for key in flat(values) for depth in (1, 2, 3)}
    read = {key for stage in STAGES.values() for key in stage.params}
    assert read <= known
    assert {key.split(".")[0] for key in read} == set(values)


def test_every_group_has_its_class() -> None:
    for key, target in GROUP_MODULES.items():
        found = Params
        for part in key.split("."):
            found = found.model_fields[part].annotation
        module, name = target.split(":")
        assert found is getattr(import_module(module), name)
    assert {*(k for k in GROUP_MODULES if "." not in k), "domain", "data"} == set(Params.model_fields)


@pytest.mark.parametrize(
    ("key", "module"),
    [
        ("base.model", "ocd_core.network.params"),
        ("diffusion", "ocd_core.diffusion.params"),
        ("diffusion.representation.name", "ocd_core.codes.params"),
        ("data", None),
    ],
)
def test_a_key_is_described_by_the_class_of_its_group_or_part(key: str, module: str | None) -> None:
    assert params_module(key) == module


def test_training_never_reads_the_test_store() -> None:
    readers = {name for name, stage in STAGES.items() if "overfit/test" in stage.inputs}
    assert readers == {"evaluate", "illustrate"}
