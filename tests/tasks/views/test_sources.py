"""Posed photographs as they are in their files, against numpy, and what is refused."""

import json
import math
import weakref

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from ocd_core.errors import UserError
from ocd_core.tasks.views import sources
from ocd_core.tasks.views.demo_scene import CAMERA_ANGLE_X, demo_poses
from ocd_core.tasks.views.sources import check_angle, check_pose, read_blender, read_npz
from tests.support.scenes import SIZE, rgba, write_blender, write_npz


def test_pictures_shrink_by_area_averaging_of_premultiplied_colours(tmp_path):
    pictures = rgba(3)
    write_blender(tmp_path, pictures)
    write_blender(tmp_path, pictures, "test")
    found = read_blender(tmp_path, 0.0, 4)["test"]
    premultiplied = pictures[..., :3] / 255 * (pictures[..., 3:] / 255)
    expected = premultiplied.reshape(3, 4, 4, 4, 4, 3).mean((2, 4))
    np.testing.assert_allclose(found.image_VHWC.numpy(), expected, atol=1e-6)
    assert found.focal == pytest.approx(2 / math.tan(CAMERA_ANGLE_X / 2))
    with pytest.raises(UserError, match=r"data\.size: 5 does not divide"):
        read_blender(tmp_path, 0.0, 5)


def test_photographs_that_shrink_are_not_held_at_full_size(tmp_path, monkeypatch):
    write_blender(tmp_path, rgba(6))
    write_blender(tmp_path, rgba(1), "test")
    read, alive, most = sources._read_photograph, weakref.WeakSet(), []

    def counted(path, background):
        most.append(len(alive))
        found = read(path, background)
        alive.add(found)
        return found

    monkeypatch.setattr(sources, "_read_photograph", counted)
    assert read_blender(tmp_path, 0.0, 4)["train"].image_VHWC.shape == (6, 4, 4, 3)
    assert max(most) <= 1


def nan_image():
    images = np.zeros((8, SIZE, SIZE, 3))
    images[3, 2, 1, 0] = np.nan
    return images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"focal": None}, "must hold the arrays"),
        ({"images": np.array([{"a": 1}])}, "not an .npz file of plain numbers"),
        ({"images": nan_image()}, "finite and in 0..1"),
        ({"images": np.full((8, 4, 4, 3), 255.0)}, "finite and in 0..1"),
        ({"images": np.zeros((8, 4, 4))}, "must be .views, height, width, 3."),
        ({"poses": np.zeros((7, 4, 4))}, "one per image"),
        ({"poses": np.zeros((8, 4, 4))}, "view 0: transform_matrix must be a rotation"),
        ({"focal": np.array(-1.0)}, "one positive number"),
    ],
)
def test_bad_npz_files_are_refused(tmp_path, changes, message):
    write_npz(tmp_path / "scene.npz", **changes)
    with pytest.raises(UserError, match=message):
        read_npz(tmp_path / "scene.npz")


def test_an_npz_file_that_is_missing_or_damaged(tmp_path):
    path = tmp_path / "scene.npz"
    with pytest.raises(UserError, match=r"data\.path: .*scene\.npz does not exist or is not a file"):
        read_npz(path)
    path.write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(UserError, match="is not an"):
        read_npz(path)


def test_a_missing_folder(tmp_path):
    with pytest.raises(UserError, match=r"data\.path: .*nowhere does not exist or is not a folder"):
        read_blender(tmp_path / "nowhere", 0.0, None)


def test_the_parts_of_a_scene(tmp_path):
    """val only if the scene has one; views keep their poses when some are chosen."""
    for part, count in (("train", 3), ("test", 2)):
        write_blender(tmp_path, rgba(count, seed=count), part)
    assert {part: len(views) for part, views in read_blender(tmp_path, 0.0, None).items()} == {"train": 3, "test": 2}
    write_blender(tmp_path, rgba(4, seed=4), "val")
    found = read_blender(tmp_path, 0.5, None)
    assert {part: len(views) for part, views in found.items()} == {"train": 3, "val": 4, "test": 2}
    rows = torch.tensor([2, 0])
    some = found["val"].select(rows)
    assert torch.equal(some.pose_V44, demo_poses("train", 4).float()[rows])
    colour, alpha = rgba(4, seed=4)[[2, 0], ..., :3] / 255, rgba(4, seed=4)[[2, 0], ..., 3:] / 255
    np.testing.assert_allclose(some.image_VHWC.numpy(), colour * alpha + 0.5 * (1 - alpha), atol=1e-6)


@pytest.mark.parametrize("value", [0, math.pi, -1.0, "0.5", True, None, math.nan])
def test_angles_that_are_none(value):
    with pytest.raises(UserError, match=r"here: camera_angle_x must be an angle in radians between 0 and pi, found"):
        check_angle(value, "here")
    assert check_angle(1, "here") == 1.0


@given(st.lists(st.floats(-math.pi, math.pi), min_size=3, max_size=3), st.floats(-1e3, 1e3))
def test_any_turn_with_a_shift_is_a_pose(angles, shift):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix()
    pose[:3, 3] = shift, -shift, 2 * shift
    np.testing.assert_allclose(check_pose(pose.tolist(), "here").numpy(), pose, rtol=1e-6, atol=1e-6)
    pose[:3, 0] *= 1.01
    with pytest.raises(UserError, match="here: transform_matrix must be a rotation and a shift"):
        check_pose(pose.tolist(), "here")


def edit_transforms(folder, change):
    path = folder / "transforms_train.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def set_matrix(value):
    return lambda folder: edit_transforms(folder, lambda v: v["frames"][1].update(transform_matrix=value))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "transforms_train.json").unlink(), r"transforms_train\.json does not exist"),
        (lambda f: (f / "transforms_train.json").write_text("{"), "not valid JSON"),
        (lambda f: (f / "transforms_train.json").write_text("[]"), "no list of frames"),
        (lambda f: edit_transforms(f, lambda v: v.pop("camera_angle_x")), "camera_angle_x must be an angle"),
        (lambda f: edit_transforms(f, lambda v: v["frames"][1].pop("file_path")), "frame 1: file_path is missing"),
        (set_matrix([[1, 0], [0, 1]]), "frame 1: transform_matrix is not a 4x4 matrix"),
        (set_matrix(None), "frame 1: transform_matrix is not a 4x4 matrix"),
        (set_matrix([[math.nan] * 4] * 4), "frame 1: transform_matrix is not a 4x4 matrix of finite"),
        (set_matrix((2 * np.eye(4)).tolist()), "frame 1: transform_matrix must be a rotation"),
        (set_matrix(np.diag([1.0, 1.0, -1.0, 1.0]).tolist()), "frame 1: transform_matrix must be a rotation"),
        (lambda f: (f / "train/r_1.png").unlink(), r"r_1\.png does not exist"),
        (lambda f: (f / "train/r_1.png").write_bytes(b"\x89PNG\r\n\x1a\n"), r"r_1\.png: the image cannot be decoded"),
        (
            lambda f: (f / "train/r_1.png").write_bytes((f / "train/r_1.png").read_bytes()[:-200]),
            r"r_1\.png: the image cannot be decoded",
        ),
        (lambda f: Image.new("RGBA", (SIZE, 8)).save(f / "train/r_1.png"), "frame 1: the photograph is 16x8 pixels"),
    ],
)
def test_bad_blender_folders_are_refused(tmp_path, damage, message):
    write_blender(tmp_path, rgba(3))
    write_blender(tmp_path, rgba(2), "test")
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        read_blender(tmp_path, 0.0, None)


def test_the_intrinsics_of_a_simple_camera_change_nothing(tmp_path):
    """As instant-ngp and nerfstudio write them, for all frames or for one, also of photographs that were shrunk."""
    write_blender(tmp_path, rgba(3))
    write_blender(tmp_path, rgba(2), "test")
    plain = read_blender(tmp_path, 0.0, None)["train"]
    size = 4 * SIZE
    focal = size / 2 / math.tan(CAMERA_ANGLE_X / 2)
    camera = {"camera_model": "OPENCV", "fl_x": focal, "fl_y": focal, "cx": size / 2, "cy": size / 2, "w": size,
              "h": size, "k1": 0, "k2": 0.0, "p1": 0, "p2": 0, "is_fisheye": False, "aabb_scale": 16,
              "camera_angle_x": CAMERA_ANGLE_X, "camera_angle_y": CAMERA_ANGLE_X}  # fmt: skip
    edit_transforms(tmp_path, lambda v: (v.update(camera), v["frames"][1].update(camera)))
    found = read_blender(tmp_path, 0.0, None)["train"]
    assert found.focal == plain.focal
    assert torch.equal(found.image_VHWC, plain.image_VHWC)


@pytest.mark.parametrize(
    ("where", "changes", "message"),
    [
        (
            "file",
            {"k1": -0.03},
            r"frame 0: the photographs are distorted \(k1 is -0\.03\); make the photographs those of",
        ),
        ("frame", {"p2": 1e-4}, r"frame 1: the photographs are distorted \(p2 is 0\.0001\)"),
        ("file", {"cx": 9.5}, r"frame 0: cx is 9\.5, but the centre of the image is at 8; make"),
        ("file", {"fl_x": 30.0}, r"frame 0: fl_x is 30, a focal length of 30 pixels, but camera_angle_x stands for"),
        ("frame", {"camera_angle_x": 1.0}, r"frame 1: camera_angle_x is 1, a focal length of 14\.\d+ pixels"),
    ],
)
def test_other_cameras_are_refused(tmp_path, where, changes, message):
    write_blender(tmp_path, rgba(3))
    write_blender(tmp_path, rgba(2), "test")
    edit_transforms(tmp_path, lambda v: (v if where == "file" else v["frames"][1]).update(changes))
    with pytest.raises(UserError, match=message):
        read_blender(tmp_path, 0.0, None)


def name_again(part, frame, other_part, other_frame, name=lambda n: n):
    def change(folder):
        path = folder / f"transforms_{part}.json"
        values, others = (
            json.loads(path.read_text()),
            json.loads((folder / f"transforms_{other_part}.json").read_text()),
        )
        values["frames"][frame]["file_path"] = name(others["frames"][other_frame]["file_path"])
        path.write_text(json.dumps(values))

    return change


def link_val_to_test(folder):
    (folder / "transforms_val.json").symlink_to("transforms_test.json")


def link_a_photograph(folder):
    (folder / "test/r_1.png").unlink()
    (folder / "test/r_1.png").symlink_to("../train/r_0.png")


@pytest.mark.parametrize(
    ("change", "where", "other"),
    [
        (name_again("train", 2, "train", 0), "train.json, frame 2", "train.json, frame 0"),
        (name_again("test", 1, "train", 0), "test.json, frame 1", "train.json, frame 0"),
        (name_again("test", 1, "train", 0, lambda n: f"{n[2:]}.png"), "test.json, frame 1", "train.json, frame 0"),
        (name_again("test", 1, "train", 0, lambda n: f"train/../{n}"), "test.json, frame 1", "train.json, frame 0"),
        (link_val_to_test, "test.json, frame 0", "val.json, frame 0"),
        (link_a_photograph, "test.json, frame 1", "train.json, frame 0"),
    ],
)
def test_a_photograph_that_is_named_twice_is_refused(tmp_path, change, where, other):
    write_blender(tmp_path, rgba(3))
    write_blender(tmp_path, rgba(2, seed=1), "test")
    change(tmp_path)
    with pytest.raises(UserError, match=f"{where}: .* is also the photograph of .*{other}; name each one once"):
        read_blender(tmp_path, 0.0, None)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_are_decoded_as_images_are(tmp_path, mode, orientation):
    image = Image.fromarray(rgba(1)[0]).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_blender(tmp_path, rgba(3))
    write_blender(tmp_path, rgba(1), "test")
    image.save(tmp_path / "test" / "r_0.png", exif=exif)
    found = read_blender(tmp_path, 0.0, None)["test"].image_VHWC[0].numpy()
    shown = np.rot90(np.asarray(image.convert("RGBA")), {1: 0, 3: 2, 6: -1, 8: 1}[orientation]) / 255
    np.testing.assert_allclose(found, shown[..., :3] * shown[..., 3:], atol=1e-6)


@pytest.mark.parametrize("mode", ["CMYK", "F", "I;16"])
def test_photographs_that_are_not_of_8_bits_are_refused(tmp_path, mode):
    write_blender(tmp_path, rgba(3))
    write_blender(tmp_path, rgba(1), "test")
    Image.new(mode, (SIZE, SIZE)).save(tmp_path / "test" / "r_0.png", "TIFF")
    with pytest.raises(UserError, match=r"r_0\.png: an image of"):
        read_blender(tmp_path, 0.0, None)
