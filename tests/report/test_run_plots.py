import numpy as np
import pytest

from ocd_core.artifacts import Artifacts, write_table
from ocd_core.drawing import new_figure, png, save_figure
from ocd_core.errors import UserError
from ocd_core.report.run_plots import curves_figure, plot_layer_scores
from ocd_core.report.store_geometry import mean_deltas, nearest_neighbours, singular_values
from ocd_core.report.store_plots import (
    deltas_figure,
    losses_figure,
    means_figure,
    neighbours_figure,
    norms_figure,
    overview_figure,
    plot_store,
    rows_by_norm,
    singular_figure,
)
from ocd_core.store.summary import read_rows
from tests.support.stores import class_store, value_store


@pytest.fixture
def store(tmp_path):
    return class_store(tmp_path / "a.zarr")


def test_same_data_same_bytes(tmp_path, store):
    class_store(tmp_path / "b.zarr")
    class_store(tmp_path / "c.zarr", rho=np.ones(30))
    for name in "abc":
        plot_store(tmp_path / f"{name}.zarr", tmp_path / "deep" / f"{name}.png")
    a, b, c = ((tmp_path / "deep" / f"{name}.png").read_bytes() for name in "abc")
    assert a[:8] == b"\x89PNG\r\n\x1a\n"
    assert a == b
    assert a != c
    assert b"Software" not in a


def test_a_picture_replaces_another_and_does_not_write_into_it(tmp_path):
    (tmp_path / "a.png").write_bytes(b"old")
    (tmp_path / "cached").hardlink_to(tmp_path / "a.png")  # as DVC's cache does
    save_figure(new_figure(1, 1, (1, 1))[0], tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "cached").read_bytes() == b"old"


def test_overview_counts_right_and_wrong(store):
    values = read_rows(store)
    figure = overview_figure(store, values)
    axis = figure.axes[0]
    right, wrong = (t.get_text() for t in axis.get_legend().get_texts())
    assert right == f"base is right ({values.correct.sum()})"
    assert wrong == f"base is wrong ({(~values.correct).sum()})"
    heights = sum(patch.get_height() for patch in axis.patches)
    assert heights == 30


def test_images_are_exact_and_their_scales_readable(store):
    delta = store.delta(7)
    figure = overview_figure(store, read_rows(store), sample=7)
    image = next(a for a in figure.axes if "row 7," in a.get_title()).images[0]
    assert image.get_interpolation() == "nearest"
    np.testing.assert_array_equal(image.get_array(), delta)
    figure.canvas.draw()
    for axis in figure.axes:
        assert axis.yaxis.get_offset_text().get_text() == ""
    limit = np.abs(delta).max()
    assert image.get_clim() == (-limit, limit)
    assert [t.get_text() for t in image.colorbar.ax.get_yticklabels()] == [f"{-limit:.2g}", "0", f"{limit:.2g}"]


def test_rows_at_quantiles_of_the_norm(store):
    values = read_rows(store)
    order = sorted(range(30), key=lambda i: values.rho[i])
    assert rows_by_norm(values, 4) == [order[7], order[14], order[21], order[29]]


def test_steps_and_points(store):
    values = read_rows(store)
    points, losses, steps = losses_figure(values).axes
    assert sum(len(line.get_xdata()) for line in points.lines[:2]) == 30
    median, mean = steps.lines
    np.testing.assert_allclose(median.get_ydata(), np.median(values.loss, 0))
    np.testing.assert_allclose(mean.get_ydata(), values.loss.mean(0))
    assert sum(p.get_height() for p in losses.patches) == 60


def test_means_and_neighbours(store):
    values = read_rows(store)
    means = mean_deltas(store, values)
    shown = [a for a in means_figure(means).axes if a.images]
    assert [a.get_title() for a in shown] == [f"class {k} ({means.rows[k]} rows)" for k in range(3)]
    np.testing.assert_array_equal(shown[1].images[0].get_array(), means.mean[1])
    found = nearest_neighbours(store, values)
    cosines, table = neighbours_figure(found).axes[:2]
    assert sum(p.get_height() for p in cosines.patches) == 60
    np.testing.assert_array_equal(np.asarray(table.images[0].get_array()), found.class_table())


def test_singular_values_are_relative(store):
    line = singular_figure(singular_values(store)).axes[0].lines[0]
    assert line.get_ydata()[0] == 1
    assert (line.get_ydata()[1:] < 1e-6).all()
    assert png(singular_figure(np.zeros((3, 4))))


@pytest.mark.parametrize("rows", [1, 12])
def test_stores_of_any_kind(tmp_path, rows):
    zero = {"delta": np.zeros((rows, 5, 6), np.float32), "rho": np.zeros(rows), "loss_before": np.zeros(rows)}
    store = value_store(tmp_path / "a.zarr", rows, **zero, loss_after=np.zeros((rows, 3)))
    values = read_rows(store)
    assert norms_figure(values).axes[0].get_legend() is None
    for figure in (overview_figure(store, values), deltas_figure(store, values)):
        assert len(png(figure)) > 1000


def test_layer_scores(tmp_path):
    (tmp_path / "scores.tsv").write_text("layer\tentropy\tstderr\nfc1\t1.5\t0.1\nfc2\t\t\n")
    steps = "layer\tdraws\tentropy\nfc1\t10\t1.25\nfc1\t20\t1.5\nfc2\t10\t\nfc2\t20\t\n"
    (tmp_path / "convergence.tsv").write_text(steps)
    plot_layer_scores(tmp_path / "scores.tsv", tmp_path / "convergence.tsv", tmp_path / "scores.png")
    assert (tmp_path / "scores.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(UserError, match="missing"):
        plot_layer_scores(tmp_path / "none.tsv", tmp_path / "convergence.tsv", tmp_path / "none.png")


def test_pictures_leave_the_callers_matplotlib_alone():
    import matplotlib as mpl

    before = mpl.get_backend(auto_select=False)
    png(new_figure(1, 1, (2, 2))[0])
    assert mpl.get_backend(auto_select=False) == before


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
