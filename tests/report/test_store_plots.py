import numpy as np
import pytest

from ocd_core.drawing import png
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
