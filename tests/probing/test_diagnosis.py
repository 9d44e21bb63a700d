"""Verdicts by their thresholds, what the text says, and the temperature against a search by hand."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from ocd_core.artifacts import write_json, write_table
from ocd_core.errors import UserError
from ocd_core.probing.diagnosis import (
    Diagnosis,
    Temperature,
    Thresholds,
    gap_closed,
    relative,
    temperature_of,
    verdict_text,
)
from ocd_core.probing.picture import diagnosis_figure
from ocd_core.probing.probe import Probe
from ocd_core.rng import permutation
from ocd_core.tasks.classification import Classification
from tests.support.arrays import ArraySplit, ArrayTask

GAIN = Probe(
    "a", 200, 100, 3, 1.0, 1.1, 0.5, 0.1, 0.2, 0.3, 0.4, 0.2, 0.3, "kernel", 1.5, -0.05, -0.06, -0.04, -8.0, 100, 5_000
)
NONE = replace(GAIN, layer="b", change=0.0, low=-0.01, high=0.01, z=0.0, gain=0.0)


class Classes(Classification, ArrayTask):
    pass


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "likely"),
        ({"bound": 1.095}, "likely"),  # what is gained without the label needs no bound
        ({"bound": 1.2}, "likely"),
        ({"bound": 1.095, "z": -1.9}, "no gap"),
        ({"bound": 1.2, "z": -1.9}, "no gap"),
        ({"bound": 1.08, "z": -1.9}, "cannot tell"),
        ({"change": -0.004, "low": -0.005}, "unlikely"),  # too small, though it is no chance
        ({"change": -0.006, "low": -0.007}, "likely"),
        ({"z": -1.9}, "cannot tell"),
        ({"z": -1.9, "low": -0.021}, "unlikely"),  # the interval ends at 1.9 %
        ({"z": -1.9, "low": -0.023}, "cannot tell"),  # at 2.1 %
        ({"z": -2.0}, "likely"),
        ({"change": 0.05, "low": 0.04, "z": 8.0}, "unlikely"),
        ({"change": 0.0, "low": -0.01, "z": 0.0}, "unlikely"),
        ({"val_loss": 0.0, "bound": 0.0, "low": 0.0}, "unlikely"),
    ],
)
def test_the_verdict_of_one_layer(changes: dict[str, Any], verdict: str) -> None:
    probe = replace(GAIN, **changes)
    if probe.val_loss == 0:
        probe = replace(probe, change=0.0, z=0.0)
    assert Diagnosis([probe], "a", None).verdict == verdict


def test_the_verdict_counts_groups_not_samples() -> None:
    """z = −2.2 is beyond the quantile with 99 degrees of freedom, 1.98, not with 4, 2.78; one group has no interval."""
    probe = replace(GAIN, z=-2.2, bound=1.0)
    assert Diagnosis([probe], "a", None).verdict == "likely"
    assert Diagnosis([replace(probe, val_groups=5)], "a", None).verdict == "cannot tell"
    assert Diagnosis([replace(NONE, val_groups=1, low=0.0, high=0.0)], "b", None).verdict == "cannot tell"
    assert "100 validation samples. Whether" in verdict_text(Diagnosis([probe], "a", None))
    assert "100 validation samples of 5 groups. " in verdict_text(Diagnosis([replace(probe, val_groups=5)], "a", None))


def test_more_layers_ask_for_more() -> None:
    """With 100 samples, z = 2.2 has p = .030: below .05, above .05 / 2, and 2.3 has .024."""
    probe = replace(GAIN, z=-2.2)
    assert Diagnosis([probe], "a", None).verdict == "likely"
    two = Diagnosis([probe, NONE], "a", None)
    assert two.verdict == "cannot tell"
    assert Diagnosis([replace(probe, z=-2.3), NONE], "a", None).verdict == "likely"
    assert two.metrics()["layers"] == {"a": "cannot tell", "b": "unlikely"}


def test_the_most_promising_verdict_counts_and_names_its_layer() -> None:
    """The largest change is not the best layer if it may be chance and a smaller one is not."""
    wide = replace(GAIN, layer="wide", change=-0.06, low=-0.2, high=0.08, z=-0.8)
    found = Diagnosis([wide, GAIN, NONE], "a", None)
    assert [found.verdict_of(p) for p in found.probes] == ["cannot tell", "likely", "unlikely"]
    assert (found.verdict, found.best.layer) == ("likely", "a")
    closed = replace(NONE, layer="closed", bound=1.1)
    assert Diagnosis([closed, NONE, wide], "a", None).verdict == "cannot tell"
    assert Diagnosis([closed, NONE], "a", None).verdict == "unlikely"
    assert Diagnosis([closed], "a", None).verdict == "no gap"


def test_other_thresholds_give_other_verdicts() -> None:
    def verdict(probe: Probe, **changes: float) -> str:
        return Diagnosis([probe], "a", None, Thresholds(**changes)).verdict

    assert verdict(GAIN, gap=0.6) == "likely"
    assert verdict(NONE, gap=0.6) == "no gap"
    assert verdict(GAIN, change=0.05) == "cannot tell"
    assert verdict(GAIN, change=0.05, worth=0.06) == "unlikely"
    probe = replace(GAIN, z=-1.8)  # with 100 samples p = .075
    assert (verdict(probe), verdict(probe, confidence=0.9)) == ("cannot tell", "likely")


@pytest.mark.parametrize("temperature", [None, Temperature(1.5, 1.1, -0.02, -0.03, -0.01)])
def test_its_tables_hold_all_of_it(tmp_path, temperature: Temperature | None) -> None:
    whole = Diagnosis([GAIN, NONE], "b", temperature)
    write_table(tmp_path / "layers.tsv", whole.table())
    write_json(tmp_path / "metrics.json", whole.metrics())
    found = Diagnosis.read(tmp_path, "b")
    assert found == whole
    (tmp_path / "layers.tsv").write_text("layer\tsamples\na\t2\n")
    with pytest.raises(UserError, match="damaged"):
        Diagnosis.read(tmp_path, "b")


def test_shares() -> None:
    assert gap_closed(GAIN) == pytest.approx(0.05 / 0.6)
    assert gap_closed(replace(GAIN, bound=1.1)) is None
    assert relative(1.1, -0.11) == pytest.approx(-0.1)
    assert relative(-2.0, -0.1) == pytest.approx(-0.05)
    assert relative(0.0, 0.0) == 0.0


def test_the_text() -> None:
    temperature = Temperature(1.3, 1.0, -0.04, -0.05, -0.03)
    text = verdict_text(Diagnosis([GAIN, NONE], "b", temperature))
    for words in (
        "**Likely: OCD can help here.**",
        "In `a`, the best of 2 layers",
        "of 1.1 by -4.5 % (95 % interval -5.5 % to -3.6 %), 8 % of the way to the bound (0.5)",
        "R² is 0.30 and the mean cosine 0.40",
        "1 on training samples and 1.1 on validation",
        "0.1 and 0.2",
        "A temperature of 1.30 for the base network alone changes the mean loss",
        "all validation samples, 1, by -4.0 %",
        "Much of a gain could be had in this way",
        "The layer of rank 1 is `b`, for which the verdict is *unlikely*",
        "set `layer.select` to `a`",
        "| `b` | unlikely | +0.0 % |",
    ):
        assert words in text, words
    assert "stop its training" not in text
    fitted = verdict_text(Diagnosis([replace(GAIN, loss=0.4)], "a", None))
    assert "stop its training" in fitted
    assert "temperature" not in fitted
    assert "rank 1" not in fitted
    assert "`z`, was not probed" in verdict_text(Diagnosis([GAIN], "z", None))
    assert "No gap" in verdict_text(Diagnosis([replace(NONE, bound=1.1)], "a", None))
    beyond = verdict_text(Diagnosis([replace(GAIN, bound=1.095)], "a", None))
    assert "-3.6 %), more than all of the way to the bound (1.095)" in beyond
    assert "| more than all |" in beyond
    assert "Much of" not in verdict_text(Diagnosis([GAIN], "a", replace(temperature, high=0.01)))


def test_a_layers_name_is_only_text() -> None:
    name = "a`|<b>\x1b[2J"
    found = Diagnosis([replace(GAIN, layer="best"), replace(NONE, layer=name)], name, None)
    text = verdict_text(found)
    assert "The layer of rank 1 is `a'¦‹b›\\x1b[2J`" in text
    assert "| `a'¦‹b›\\x1b[2J` | unlikely |" in text
    assert name not in text


def test_the_table_and_the_metrics() -> None:
    found = Diagnosis([GAIN, NONE], "a", Temperature(1.0, 1.0, 0.0, 0.0, 0.0))
    (row, other), metrics = found.table(), found.metrics()
    assert (row["layer"], row["verdict"], other["verdict"]) == ("a", "likely", "unlikely")
    assert row["relative_low"] == pytest.approx(-0.06 / 1.1)
    assert metrics["verdict"] == "likely"
    assert metrics["temperature"]["value"] == 1.0


def test_the_picture_has_every_layer_and_the_temperature() -> None:
    gains, predicted = diagnosis_figure(Diagnosis([GAIN, NONE], "a", Temperature(1.3, 1.0, -0.04, -0.05, -0.03))).axes
    assert [label.get_text() for label in gains.get_yticklabels()] == ["a", "b", "temperature alone"]
    assert gains.get_title() == "verdict: likely"
    first: Any = gains.lines[0]
    assert list(first.get_xdata()) == pytest.approx([-100 * 0.06 / 1.1, -100 * 0.04 / 1.1])
    assert [label.get_text() for label in predicted.get_yticklabels()] == ["a", "b"]


def overconfident(count: int) -> ArraySplit:
    """Logits that are four times too large for their classes."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 3, generator=g)
    return ArraySplit(4 * logits, torch.distributions.Categorical(logits=logits).sample())


def test_a_temperature_for_a_base_that_is_too_sure() -> None:
    torch.manual_seed(0)
    val = overconfident(400)
    found = temperature_of(nn.Identity(), Classes(), val, 0)
    assert found is not None
    assert found.loss == pytest.approx(float(F.cross_entropy(val.x, val.y)), rel=1e-5)
    losses = {t: float(F.cross_entropy(val.x / t, val.y)) for t in torch.linspace(1, 8, 141).tolist()}
    assert found.value == pytest.approx(min(losses, key=lambda t: losses[t]), abs=0.06)
    best = min(losses.values()) - float(F.cross_entropy(val.x, val.y))
    assert best < found.change < 0.9 * best  # chosen on other samples, so a little less
    assert found.low < found.change < found.high < 0


def test_without_classes_there_is_no_temperature() -> None:
    assert temperature_of(nn.Identity(), ArrayTask(), ArraySplit(torch.zeros(8, 2), torch.zeros(8, 2)), 0) is None


def test_the_interval_of_a_temperature_is_that_of_its_groups() -> None:
    """Each group in one half, whose temperature is chosen on the other; then a paired t test of the groups' means."""
    val = overconfident(60)
    val.groups = torch.arange(60) % 6
    found = temperature_of(nn.Identity(), Classes(), val, 3)
    assert found is not None
    half = (permutation(6, 3, "halves of a temperature") % 2)[val.groups]
    before = F.cross_entropy(val.x, val.y, reduction="none").double()
    after = before.clone()
    grid = torch.logspace(-1.3, 1.3, 4001).tolist()
    for one in (0, 1):
        other = half != one
        best = min(grid, key=lambda t: float(F.cross_entropy(val.x[other] / t, val.y[other])))
        after[half == one] = F.cross_entropy(val.x / best, val.y, reduction="none")[half == one].double()
    means = [torch.stack([v[val.groups == g].mean() for g in range(6)]).numpy() for v in (after, before)]
    interval = stats.ttest_rel(*means).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(interval), abs=2e-3)
    val.groups = torch.zeros(60, dtype=torch.int64)
    assert temperature_of(nn.Identity(), Classes(), val, 3) is None
