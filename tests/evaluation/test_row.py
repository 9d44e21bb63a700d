"""What every row has without a line of its own, and what a fitted one reads back."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.evaluation.row import DrawnRow, Fit, FittedRow, MovedRow, Row, Saved


class Moves(MovedRow):
    title = "moves"

    def move(self, shared: object) -> Tensor:
        return torch.full((2, 3), 7.0)


class Fitted(Moves, FittedRow):
    def fit(self, fitting: object) -> Fit:
        return Fit({"loss": 1.0})

    def load(self, saved: Saved) -> None:
        saved.load_into(self.module)


def context(**groups: object) -> SimpleNamespace:
    """As much of a context as a row reads."""
    return SimpleNamespace(params=SimpleNamespace(controls=SimpleNamespace(of_row=groups.get)))


def saved(**changes: object) -> Saved:
    values = {"tensors": nn.Linear(3, 2).state_dict(), "config": {}, "where": Path("run/controls"), "prefix": "mine"}
    return Saved(**{**values, "space": None, **changes})


def test_a_row_holds_its_own_params() -> None:
    params = object()
    assert Moves("mine", context(mine=params, other=1)).params is params
    assert Moves("mine", context(other=1)).params is None


def test_a_variant_has_the_params_of_its_row_and_a_name_of_its_own() -> None:
    params = object()
    row = Moves("mine", context(mine=params), "7")
    assert (row.name, row.family, row.variant, row.params) == ("mine_7", "mine", "7", params)
    row = Moves("mine", context(mine=params))
    assert (row.name, row.family, row.variant) == ("mine", "mine", "")
    assert Moves.variants(None) == ("",)


@pytest.mark.parametrize(("draws", "variants"), [([5], ("",)), ([5, 20], ("5", "20"))])
def test_a_row_of_several_draws_has_a_variant_per_number(draws: list[int], variants: tuple[str, ...]) -> None:
    assert DrawnRow.variants(SimpleNamespace(evaluate=SimpleNamespace(draws=draws))) == variants


def test_a_moved_row_answers_with_the_layer_moved() -> None:
    shared = SimpleNamespace(outputs_with=lambda move: move + 1)
    assert torch.equal(Moves("mine", context()).outputs(shared), torch.full((2, 3), 8.0))


def test_what_a_row_need_not_say() -> None:
    row = Fitted("mine", context())
    assert (row.left_out(), row.details(), row.sees_labels) == (None, None, False)
    assert (row.fitted, Moves.fitted) == (True, False)
    assert (row.tensors(), row.config(), row.prefix, row.space) == ({}, {}, None, None)
    assert row.fit(None) == Fit({"loss": 1.0}, curve=[], flops=None)


@pytest.mark.parametrize(("kind", "lacks"), [(Row, "outputs"), (MovedRow, "move"), (FittedRow, "fit")])
def test_what_a_row_must_say(kind: type[Row], lacks: str) -> None:
    with pytest.raises(TypeError, match=rf"abstract method.*\b{lacks}\b.*\btitle\b"):
        kind("mine", context())


def test_saved_tensors_are_loaded_frozen_and_in_eval_mode() -> None:
    state = nn.Linear(3, 2).state_dict()
    row = Fitted("mine", context())
    row.module = nn.Linear(3, 2).train()
    row.load(saved(tensors=state))
    assert all(torch.equal(row.module.state_dict()[name], tensor) for name, tensor in state.items())
    assert not row.module.training
    assert not any(p.requires_grad for p in row.module.parameters())


def test_tensors_of_another_architecture_are_named_as_they_stand_in_the_file() -> None:
    with pytest.raises(UserError, match=r"run/controls: 'mine\.weight' has shape \(2, 3\), expected \(4, 3\)"):
        saved().load_into(nn.Linear(3, 4))
    with pytest.raises(UserError, match=r"run/controls lacks 'mine\.0\.weight'"):
        saved().load_into(nn.Sequential(nn.Linear(3, 2)))


def test_the_shared_space_must_be_saved() -> None:
    with pytest.raises(UserError, match="run/controls holds no space of Δ; run the stage train_controls again"):
        saved().shared_space()
    space = object()
    assert saved(space=space).shared_space() is space
