"""The page of test views and the flight around the scene: from their parts to a tiny run's report."""

import copy
import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from ocd_core.artifacts import Artifacts
from ocd_core.config import load_params
from ocd_core.predictor import Predictor
from ocd_core.store import OverfitStore
from ocd_core.tasks.views.demo_scene import CAMERA_ANGLE_X
from ocd_core.tasks.views.pictures import (
    FRAMES,
    error_maps,
    fly_round,
    fly_round_poses,
    page_figure,
    page_outputs,
    page_rows,
    side_by_side_gif,
)
from stages import illustrate
from tests.support.views import views_run

# --- the camera's path


def cameras(*places: tuple[float, float, float]) -> torch.Tensor:
    """Poses (V, 4, 4) at distance, elevation and azimuth in degrees; their rotation is of no importance here."""
    poses = torch.eye(4).repeat(len(places), 1, 1)
    for pose, (distance, elevation, azimuth) in zip(poses, places, strict=True):
        e, a = math.radians(elevation), math.radians(azimuth)
        pose[:3, 3] = distance * torch.tensor([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    return poses


def turn_z(angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_first_pose_of_the_flight_by_hand() -> None:
    """Medians: 4 away, 30° up. So the camera starts at (4 cos 30°, 0, 2); its right is +y, its up leans to the axis."""
    c, s = math.cos(math.pi / 6), 0.5
    expected = [[0, -s, c, 4 * c], [1, 0, 0, 0], [0, c, s, 4 * s], [0, 0, 0, 1]]
    poses = fly_round_poses(cameras((3, 80, 10), (4, 30, 200), (9, -10, 70)), 4)
    np.testing.assert_allclose(poses[0], expected, atol=1e-6)
    # a quarter further the camera is above +y and its right is −x
    np.testing.assert_allclose(poses[1], turn_z(math.pi / 2) @ np.array(expected), atol=1e-6)


def test_median_of_an_even_number_of_cameras() -> None:
    poses = fly_round_poses(cameras((3, 20, 0), (5, 40, 90)), 3)
    torch.testing.assert_close(poses[:, :3, 3].norm(dim=1), torch.full((3,), 4.0))
    torch.testing.assert_close(poses[:, 2, 3], torch.full((3,), 2.0))


def test_flight_is_a_closed_level_circle_that_looks_at_the_origin() -> None:
    frames = 7
    poses = fly_round_poses(cameras((4, 30, 200)), frames).double().numpy()
    for k, pose in enumerate(poses):
        np.testing.assert_allclose(poses[(k + 1) % frames], turn_z(2 * math.pi / frames) @ pose, atol=1e-6)
        assert np.linalg.norm(pose[:3, 3]) == pytest.approx(4)
        assert pose[2, 3] == pytest.approx(2)
        np.testing.assert_allclose(-pose[:3, 2], -pose[:3, 3] / 4, atol=1e-6)  # a camera looks along its own −z
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-6)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1, abs=1e-5)


# --- the page


@pytest.mark.parametrize(
    ("count", "rows"),
    [(30, [3, 9, 15, 21, 27]), (200, [20, 60, 100, 140, 180]), (7, [0, 2, 3, 4, 6]), (3, [0, 1, 2]), (1, [0])],
)
def test_page_shows_views_spread_over_the_split(count, rows) -> None:
    assert page_rows(count).tolist() == rows


def test_error_maps_equal_a_loop_over_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    output, target = torch.rand(2, 2, 3, 4, 3, generator=generator)
    found = error_maps(output, target)
    assert found.shape == (2, 3, 4)
    for n, h, w in np.ndindex(2, 3, 4):
        error = sum(abs(float(output[n, h, w, c]) - float(target[n, h, w, c])) for c in range(3)) / 3
        assert float(found[n, h, w]) == pytest.approx(error, rel=1e-5)


def test_page_puts_each_picture_and_its_error_where_the_titles_say() -> None:
    target = torch.linspace(0, 0.5, 2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    off = {"base": (0.1, 0.2), "OCD": (0.05, 0.01), "bound": (0.0, 0.002)}  # of the two views
    outputs = {name: target + torch.tensor(by).view(2, 1, 1, 1) for name, by in off.items()}
    figure = page_figure([3, 8], target, outputs)
    axes = np.array(figure.axes[:14]).reshape(2, 7)
    names = ["ground truth", "base", "OCD", "bound", "error of base", "error of OCD", "error of bound"]
    assert [axis.get_title() for axis in axes[0]] == names
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["test view 3", "test view 8"]
    for row in range(2):
        np.testing.assert_allclose(axes[row, 0].images[0].get_array(), target[row])
        for column, name in enumerate(off, 1):
            np.testing.assert_allclose(axes[row, column].images[0].get_array(), outputs[name][row])
            error = axes[row, column + 3].images[0].get_array()
            np.testing.assert_allclose(error, np.full((4, 6), off[name][row]), atol=1e-6)
    assert axes[0, 1].get_xlabel() == "MSE 0.01000 · 20.0 dB"
    assert axes[1, 1].get_xlabel() == "MSE 0.04000 · 14.0 dB"
    assert axes[1, 2].get_xlabel() == "MSE 0.00010 · 40.0 dB"
    assert axes[0, 3].get_xlabel() == "MSE 0.00000 · inf dB"
    scales = {axis.images[0].get_clim() for axis in axes[:, 4:].flat}
    assert len(scales) == 1  # or the maps could not be compared
    assert scales.pop() == (0, pytest.approx(0.2))
    (bar,) = figure.axes[14:]
    assert "absolute error" in bar.get_ylabel()


def test_page_shows_colours_that_are_slightly_out_of_range() -> None:
    target = torch.zeros(1, 2, 2, 3)
    figure = page_figure([0], target, {"base": target + 1.001})
    assert float(figure.axes[1].images[0].get_array().max()) == 1.0


# --- the GIF


def read_gif(data: bytes) -> tuple[list[np.ndarray], list[int], int]:
    """Frames as RGB, milliseconds of each, and how often it loops (0: for ever)."""
    frames, durations = [], []
    with Image.open(io.BytesIO(data)) as gif:
        loop = gif.info["loop"]
        for k in range(gif.n_frames):
            gif.seek(k)
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
            durations.append(gif.info["duration"])
    return frames, durations, loop


def test_gif_shows_each_frame_of_both_side_by_side_enlarged() -> None:
    levels = [0.0, 0.25, 0.5, 1.0]
    left = torch.stack([torch.full((30, 60, 3), v) for v in levels])
    right = left.flip(0).clone()
    right[:, :, :30] = torch.tensor([1.0, 0.0, 0.0])  # the left half of the right picture is red
    frames, durations, loop = read_gif(side_by_side_gif({"base": left, "OCD": right}))
    assert (len(frames), loop) == (4, 0)
    assert len(set(durations)) == 1
    height, width = 30 * 4, 60 * 4  # the smallest whole factor that makes the longer side 240
    strip = frames[0].shape[0] - height
    gap = frames[0].shape[1] - 2 * width
    assert 10 < strip < 40
    assert 0 < gap < 20
    for k, frame in enumerate(frames):
        pictures = frame[strip:]
        np.testing.assert_allclose(pictures[:, :width], 255 * levels[k], atol=8)
        np.testing.assert_allclose(pictures[:, width : width + gap], 255, atol=8)
        half = width + gap + width // 2
        np.testing.assert_allclose(pictures[:, width + gap : half], np.broadcast_to([255, 0, 0], (120, 120, 3)), atol=8)
        np.testing.assert_allclose(pictures[:, half:], 255 * levels[3 - k], atol=8)
        for left_edge in (0, width + gap):  # dark letters on white above each
            caption = frame[:strip, left_edge : left_edge + width]
            assert caption.min() < 100
            assert caption.max() > 245


def test_gif_does_not_shrink_large_pictures() -> None:
    frames, _, _ = read_gif(side_by_side_gif({"base": torch.rand(2, 250, 260, 3)}))
    assert frames[0].shape[1] == 260


# --- a tiny run


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Artifacts:
    return views_run(tmp_path_factory.mktemp("views"), "report")


@pytest.fixture(scope="module")
def predictor(run: Artifacts) -> Predictor:
    return Predictor.from_artifacts(run.rank_dir)


def test_page_outputs_are_the_rows_of_the_table(run: Artifacts, predictor: Predictor) -> None:
    test = predictor.task.open(run.prepared, "test")
    store = OverfitStore(run.overfit("test"))
    rows = torch.tensor([2, 0])
    found = page_outputs(predictor, test, store, rows)
    assert list(found) == ["base", "OCD", "bound"]
    with (run.evaluation / "samples.tsv").open() as file:
        measured = list(csv.DictReader(file, delimiter="\t"))
    for name, outputs in found.items():
        for i, row in enumerate(rows.tolist()):
            mse = float((outputs[i] - test.views.image_VHWC[row]).square().mean())
            assert mse == pytest.approx(float(measured[row][f"{name.lower()}_mse"]), rel=1e-5)
    # base and bound once more, with whole networks whose weights are set by hand
    for i, row in enumerate(rows.tolist()):
        inputs = test.batch(torch.tensor([row])).inputs
        for name, delta in (("base", 0.0), ("bound", torch.from_numpy(store.delta(row)))):
            net = copy.deepcopy(predictor.model.replay_network).float()
            net.get_submodule(predictor.model.layer_name).weight.data += delta
            with torch.no_grad():
                torch.testing.assert_close(found[name][i].float(), net(*inputs)[0], rtol=1e-4, atol=1e-5)


def test_flight_is_what_ocd_predict_says_of_such_a_camera(run: Artifacts, predictor: Predictor, tmp_path) -> None:
    task = predictor.task
    test = task.open(run.prepared, "test")
    poses = fly_round_poses(task.open(run.prepared, "train").views.pose_V44, 5)[[3, 1]]
    flight = fly_round(predictor, test, poses)
    assert flight["base"].shape == flight["OCD"].shape == (2, 12, 12, 3)
    for k, pose in enumerate(poses):
        camera = {"transform_matrix": pose.tolist(), "camera_angle_x": CAMERA_ANGLE_X, "width": 12, "height": 12}
        (tmp_path / "camera.json").write_text(json.dumps(camera))
        told = predictor.predict(task.read_input(tmp_path / "camera.json"), sample_id=torch.zeros(1, dtype=torch.int64))
        torch.testing.assert_close(flight["base"][k], told.base_output[0], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(flight["OCD"][k], told.output[0], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(flight["OCD"][k], flight["base"][k], atol=1e-4)


def test_frames_share_their_noise(run: Artifacts, predictor: Predictor) -> None:
    """One pose twice gives one picture, although draws under other names differ."""
    test = predictor.task.open(run.prepared, "test")
    flight = fly_round(predictor, test, test.views.pose_V44[[1, 1]])
    assert torch.equal(flight["OCD"][0], flight["OCD"][1])
    other = predictor.predict(test.batch(torch.tensor([1])).inputs, sample_id=torch.tensor([1])).output[0]
    assert not torch.allclose(flight["OCD"][0], other, rtol=1e-5, atol=1e-6)


def test_stage_writes_both_pictures_and_the_report_shows_them(run: Artifacts) -> None:
    made = {p.name: p for p in run.pictures.iterdir()}
    assert set(made) == {"views.png", "fly_round.gif", "config.json", "manifest.json"}
    assert json.loads(made["config.json"].read_text()) == load_params("views", run.root).effective("pictures")
    frames, _, _ = read_gif(made["fly_round.gif"].read_bytes())
    assert len(frames) == FRAMES
    with Image.open(made["views.png"]) as page:
        assert page.width > 1000
    for name in ("views.png", "fly_round.gif"):
        assert (run.report / name).read_bytes() == made[name].read_bytes()
    assert not (run.report / "config.json").exists()


def test_stage_is_repeatable_bit_for_bit(run: Artifacts, monkeypatch) -> None:
    monkeypatch.chdir(run.root)
    before = {p.name: p.read_bytes() for p in run.pictures.iterdir()}
    illustrate.main("views")
    assert {p.name: p.read_bytes() for p in run.pictures.iterdir()} == before
