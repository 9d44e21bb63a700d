"""A bundle that is truncated, edited, foreign or partly missing is refused in one line that names file and remedy."""

import json
import shutil
from pathlib import Path

import pytest

from ocd_core.bundles.fetch import bundle_folder
from ocd_core.bundles.layout import PARTS, BundledRun, FileHash, check_bundle, check_file, parse_manifest
from ocd_core.errors import UserError
from tests.bundles.support import rehash

WEIGHTS = "diffusion/model.safetensors"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder("mnist5k-conv2"), tmp_path / "bundle"))


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        check_bundle(folder)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_whole_bundle_names_its_files(bundle: Path) -> None:
    manifest = check_bundle(bundle)
    there = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert there == {*manifest.files, "bundle.json", "README.md"}
    assert manifest.files[WEIGHTS].bytes == (bundle / WEIGHTS).stat().st_size


def test_a_truncated_file(bundle: Path) -> None:
    path = bundle / WEIGHTS
    path.write_bytes(path.read_bytes()[:-10])
    assert f"{path} has " in (text := refusal(bundle))
    assert "truncated" in text
    assert "get the whole bundle again" in text


def test_a_flipped_bit_and_an_edited_config(bundle: Path) -> None:
    path = bundle / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert f"{path} was changed: its sha256 is not the one in bundle.json" in refusal(bundle)
    shutil.copy(bundle_folder("mnist5k-conv2") / WEIGHTS, path)
    (bundle / "config.json").write_text((bundle / "config.json").read_text().replace("ddim", "dpmm"))
    assert "config.json was changed" in refusal(bundle)


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "layers/layers.json"])
def test_a_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert f"{bundle / name} is missing; get the whole bundle again" in refusal(bundle)


def test_a_missing_or_truncated_manifest(bundle: Path) -> None:
    path = bundle / "bundle.json"
    path.write_text(path.read_text()[:50])
    assert f"{path} is damaged: it is not JSON" in refusal(bundle)
    path.unlink()
    text = refusal(bundle)
    assert "no bundle, because it has no bundle.json" in text
    assert "'ocd export' makes a bundle of it" in text  # it looks like a run
    (bundle / "empty").mkdir()
    assert "it is a run" not in refusal(bundle / "empty")
    assert "there is no folder" in refusal(bundle / "none")


def test_a_foreign_file_among_the_parts(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("beside the parts, nothing reads it")
    (bundle / "README.md").write_text("edited")
    check_bundle(bundle)
    extra = bundle / "diffusion" / "curve.tsv"
    extra.write_text("x")
    assert f"{extra} is not part of the bundle" in refusal(bundle)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "ocd-overfit-export"}, "is not that of a bundle"),
        ({"version": 2}, "has version 2, but this package reads 1; install the ocd-core that made it (0.0.9)"),
        ({"files": {}}, "does not list config.json, which every bundle has"),
        ({"files": {"config.json": {"bytes": "many", "sha256": ""}}}, "is damaged: "),
        ({"files": {"../x": {"bytes": 1, "sha256": ""}}}, "names a file outside of the bundle, '../x'"),
        ({"files": {"/etc/x": {"bytes": 1, "sha256": ""}}}, "outside of the bundle"),
        ({"files": {"a\\b": {"bytes": 1, "sha256": ""}}}, "outside of the bundle"),
        ({"files": {"a/./b": {"bytes": 1, "sha256": ""}}}, "outside of the bundle"),
    ],
)
def test_a_foreign_manifest(bundle: Path, changes: dict[str, object], words: str) -> None:
    rehash(bundle, **changes)
    assert words in refusal(bundle)


def test_a_list_is_no_manifest() -> None:
    with pytest.raises(UserError, match=r"there/bundle\.json is not that of a bundle"):
        parse_manifest([], "there/bundle.json")


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.artifact)
def test_every_part_has_its_place(part, tmp_path: Path) -> None:
    """Side by side in a bundle; `Artifacts` knows the same name."""
    run = BundledRun("toy", root=tmp_path)
    assert run.path(part.artifact) == tmp_path / part.artifact
    with pytest.raises(UserError, match=rf"{part.artifact} is missing; get the whole bundle again"):
        run.need(run.path(part.artifact), "any")


def test_a_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of FIPS 180-2
    check_file(path, FileHash(bytes=3, sha256=sha))
    with pytest.raises(UserError, match="has 3 bytes instead of 4"):
        check_file(path, FileHash(bytes=4, sha256=sha))


def test_no_file_is_needed_that_the_manifest_does_not_list(bundle: Path) -> None:
    """A file that prediction reads must have a hash, or it could be exchanged unnoticed."""
    values = json.loads((bundle / "bundle.json").read_text())
    for name in list(values["files"]):
        fewer = {**values, "files": {k: v for k, v in values["files"].items() if k != name}}
        with pytest.raises(UserError, match=rf"does not list {name}"):
            parse_manifest(fewer, "bundle.json")
