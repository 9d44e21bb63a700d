"""Params that suit the layer and the data, and whose errors are those of params files."""

from typing import Any

import pytest

from ocd_core.calls.defaults import check_options, given_params, merge
from ocd_core.config import Params
from ocd_core.errors import UserError
from tests.calls.test_task import data


def params(options: dict[str, Any] | None = None, *facts: Any) -> Params:
    return given_params(data(), "fc1", options or {}, *facts)


def test_factored_where_it_is_exact_and_pca_otherwise() -> None:
    assert params({}, True).diffusion.representation.name == "factored"
    found = params({}, False, 7)
    assert (found.diffusion.representation.name, found.diffusion.representation.components) == ("pca", 7)
    assert found.controls.components == 7
    assert params({}, False, 400).diffusion.representation.components == 40
    assert params({"overfit": {"optimizer": "adam"}}, True).diffusion.representation.name == "pca"
    assert params({}, True, None, 2**31).overfit.layout == "factored"
    assert params({}, True, None, 2**20).overfit.layout == "dense"


def test_options_win() -> None:
    found = params({"diffusion": {"representation": {"name": "dense"}, "updates": 5}}, True)
    assert (found.diffusion.representation.name, found.diffusion.updates) == ("dense", 5)
    assert found.diffusion.batch_size == params({}, True).diffusion.batch_size


def test_wrong_options() -> None:
    with pytest.raises(UserError, match="unknown option 'difusion'; did you mean 'diffusion'"):
        check_options({"difusion": {}})
    with pytest.raises(UserError, match=r"OCD: overfit\.stepps: unknown key"):
        params({"overfit": {"stepps": 1}})
    with pytest.raises(UserError, match="adam does not leave"):
        params({"overfit": {"optimizer": "adam"}, "diffusion": {"representation": {"name": "factored"}}})


def test_merge_keeps_other_keys() -> None:
    values = {"a": {"b": 1, "c": {"d": 2, "e": 3}}}
    merge(values, {"a": {"c": {"d": 9}}, "f": 4})
    assert values == {"a": {"b": 1, "c": {"d": 9, "e": 3}}, "f": 4}
