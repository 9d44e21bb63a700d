from itertools import pairwise

import numpy as np
import pytest

from ocd_core.artifacts import Artifacts, write_table, write_text
from ocd_core.errors import UserError
from ocd_core.report.run_plots import curves_figure, layer_scores_figure, plot_layer_scores


def test_layer_scores(tmp_path):
    (tmp_path / "scores.tsv").write_text("layer\tentropy\tstderr\nfc1\t1.5\t0.1\nfc2\t\t\n")
    steps = "layer\tdraws\tentropy\nfc1\t10\t1.25\nfc1\t20\t1.5\nfc2\t10\t\nfc2\t20\t\n"
    (tmp_path / "convergence.tsv").write_text(steps)
    plot_layer_scores(tmp_path / "scores.tsv", tmp_path / "convergence.tsv", tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="missing"):
        plot_layer_scores(tmp_path / "none.tsv", tmp_path / "convergence.tsv", tmp_path / "none.png")


@pytest.mark.parametrize("count", [1, 5, 30])
def test_names_of_layers_do_not_overlap_and_lie_inside(tmp_path, count):
    names = [f"encoder.layers.{k}.self_attn.out_proj" for k in range(count)]
    write_table(tmp_path / "s.tsv", [{"layer": n, "entropy": float(k), "stderr": 0.1} for k, n in enumerate(names)])
    write_table(tmp_path / "c.tsv", [{"layer": n, "draws": 10, "entropy": float(k)} for k, n in enumerate(names)])
    figure = layer_scores_figure(tmp_path / "s.tsv", tmp_path / "c.tsv")
    figure.draw_without_rendering()
    scores, convergence = figure.axes
    boxes = [label.get_window_extent() for label in scores.get_yticklabels()]
    assert [label.get_text() for label in scores.get_yticklabels()] == names
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))  # best on top
    assert all(box.x0 >= 0 and box.x1 <= scores.get_window_extent().x0 for box in boxes)
    colours = [label.get_color() for label in scores.get_yticklabels()]
    assert [line.get_color() for line in convergence.lines] == colours


def test_curves_show_the_noise_error_beside_the_released_plateau(tmp_path):
    run = Artifacts("toy", root=tmp_path)
    errors = [0.5, 0.01, 3e-4]
    rows = [{"update": 10.0 * k, "loss": 1.0, "val_loss": 2.0, "val_epsilon_mse": e} for k, e in enumerate(errors, 1)]
    write_table(run.base / "curve.tsv", [{"epoch": 1, "train_loss": 0.5, "val_loss": 0.6}])
    write_table(run.diffusion / "curve.tsv", rows)
    write_table(run.scale / "curve.tsv", [{"update": 1.0, "loss": -3.0, "val_loss": -2.0}])
    base, diffusion, noise, scale = curves_figure(run).axes
    curve, plateau = noise.lines
    np.testing.assert_array_equal(curve.get_xdata(), [10, 20, 30])
    np.testing.assert_array_equal(curve.get_ydata(), errors)
    assert list(plateau.get_ydata()) == [5e-4, 5e-4]
    assert "5e-4" in plateau.get_label()
    low, high = noise.get_ylim()
    assert low < 3e-4 < 5e-4 < 0.5 < high
    assert (noise.get_yscale(), scale.get_yscale()) == ("log", "linear")
    assert [len(a.lines) for a in (base, diffusion, scale)] == [2, 2, 2]
    write_text(run.scale / "curve.tsv", "update\tval_loss\n")
    *others, scale = curves_figure(run).axes
    assert [len(a.lines) for a in others] == [2, 2, 2]
    assert (scale.get_title(), scale.texts[0].get_text(), len(scale.lines)) == ("scale", "not trained: not used", 0)
