"""The picture of a diagnosis."""

from dataclasses import replace

import pytest

from ocd_core.probing.diagnosis import Diagnosis
from ocd_core.probing.picture import diagnosis_figure
from tests.probing.test_diagnosis import GAIN, NONE


def test_every_layer_has_its_change_and_its_regression() -> None:
    found = Diagnosis([GAIN, replace(NONE, layer="c")], "a", None)
    gains, predicted = diagnosis_figure(found).axes
    assert [label.get_text() for label in gains.get_yticklabels()] == ["a", "c"]
    assert [label.get_text() for label in predicted.get_yticklabels()] == ["a", "c"]
    points = [line.get_xdata()[0] for line in gains.lines if line.get_marker() == "o"]
    assert points == pytest.approx([100 * GAIN.change / GAIN.val_loss, 0.0])
    assert "likely" in gains.get_title()
    best = [max(GAIN.r2, GAIN.network_r2)] * 2 + [max(GAIN.cosine, GAIN.network_cosine)] * 2
    assert [bar.get_width() for bar in predicted.patches] == best
