"""The table of stages: every input is made before it is read, every group and artifact exists."""

from importlib import import_module

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.config import Params
from ocd_core.params_files import flat, read_params
from ocd_core.pipeline import CONTENT, GROUP_MODULES, STAGES, Stage, maker
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
    known = {".".join(key.split(".")[:depth]) for key in flat(values) for depth in (1, 2)}
    read = {key for stage in STAGES.values() for key in stage.params}
    assert read <= known
    assert {key.split(".")[0] for key in read} == set(values)


def test_every_group_has_its_class() -> None:
    for group, target in GROUP_MODULES.items():
        module, name = target.split(":")
        assert Params.model_fields[group].annotation is getattr(import_module(module), name)
    assert {*GROUP_MODULES, "domain", "data"} == set(Params.model_fields)


def test_training_never_reads_the_test_store() -> None:
    readers = {name for name, stage in STAGES.items() if "overfit/test" in stage.inputs}
    assert readers == {"evaluate", "illustrate"}


def test_groups_are_named_once_in_their_order() -> None:
    assert Stage("x", ("b.one", "a", "b.two.three")).groups == ("b", "a")
    assert Stage("x", ()).groups == ()
