"""What samples of other splits must have in common with those of train."""

from typing import Any

import pytest
import torch

from ocd_core.calls.data import Parts
from ocd_core.calls.form import Form
from ocd_core.errors import UserError

X, Y = torch.zeros(4, 3), torch.zeros(4, 1)


def parts(value: Any) -> Parts:
    return Parts.of(value, "it")


FORM = Form.of(parts(X), parts(Y))
NAMED = Form.of(parts({"a": X, "b": X}), parts({"c": Y}))


def test_other_sizes_of_inputs_and_other_counts_are_taken() -> None:
    FORM.refuse_others(parts(torch.zeros(7, 5)), parts(torch.zeros(7, 1)), "val")
    FORM.refuse_others(parts(X), None, "x")
    NAMED.refuse_others(parts({"a": X, "b": X}), parts({"c": Y}), "val")
    assert (FORM.names, NAMED.names) == (["x0"], ["a", "b"])


@pytest.mark.parametrize(
    ("form", "inputs", "target", "words"),
    [
        (FORM, X, torch.zeros(4), r"val: its targets are \(y0: shape \(\) .* train are \(y0: shape \(1,\) a sample"),
        (FORM, X, torch.zeros(4, 3), r"val: its targets are \(y0: shape \(3,\) a sample, floating-point numbers\)"),
        (FORM, X, torch.zeros(4, 1, dtype=torch.int64), "val: its targets are .*whole numbers"),
        (FORM, X, (Y, Y), "val: its targets are .*y1"),
        (FORM, torch.zeros(4, 3, 1), Y, r"val: its inputs are \(x0: shape \(3, 1\)"),
        (FORM, torch.zeros(4, 3, dtype=torch.int64), Y, "val: its inputs are .*whole numbers"),
        (FORM, (X, X), Y, "val: its inputs are .*x1"),
        (FORM, {"x0": X}, Y, "val: give its inputs without names, as in train"),
        (FORM, X, {"y0": Y}, "val: give its targets without names, as in train"),
        (NAMED, {"b": X, "a": X}, {"c": Y}, r"val: its inputs are \(b: .*; a: .*train are \(a: "),
    ],
)
def test_another_form_is_refused(form: Form, inputs: Any, target: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        form.refuse_others(parts(inputs), parts(target), "val")
