"""Where bundles come from: folders, URLs with a cache, the hub (a client of our own in place of the real one)."""

import json
import shutil
from pathlib import Path
from typing import Any

import fsspec
import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from ocd_core import Predictor
from ocd_core.bundles.fetch import bundle_folder, own_bundles
from ocd_core.errors import UserError
from ocd_core.files import sha256_files
from tests.bundles.support import rehash
from tests.support.web import served

URL = "memory://bundles/digits"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The digits at a URL, and an empty cache."""
    monkeypatch.setenv("OCD_CACHE", str(tmp_path / "cache"))
    fs = fsspec.filesystem("memory")
    for path in bundle_folder("mnist5k-conv2").rglob("*"):
        if path.is_file():
            fs.pipe_file(f"/bundles/digits/{path.relative_to(bundle_folder('mnist5k-conv2'))}", path.read_bytes())
    yield fs
    fs.rm("/bundles", recursive=True)


class Hub:
    """`huggingface_hub` with the repositories below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, []

    def hf_hub_download(self, name: str, file: str, *, revision: str | None = None) -> str:
        self.asked.append((name, file, revision))
        if name == "owner/offline":
            raise LocalEntryNotFoundError("Cannot find the requested files in the cache.\nCheck the connection.")
        if not (self.folder / name).is_dir():
            raise ConnectionError("401 Client Error.\nRepository Not Found")
        if not (self.folder / name / file).is_file():
            raise EntryNotFoundError("404 Client Error: no such file")
        return str(self.folder / name / file)

    def snapshot_download(self, name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append((name, "snapshot", revision))
        dest = self.folder / "snapshots" / name
        for file in allow_patterns:
            (dest / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / name / file, dest / file)
        return str(dest)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    found = Hub(tmp_path)
    shutil.copytree(bundle_folder("mnist5k-conv2"), tmp_path / "owner" / "digits")
    (tmp_path / "owner" / "digits" / "large.bin").write_text("of no use here")
    for name in ("hf_hub_download", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub, name, getattr(found, name))
    return found


def answer(location: Any, **options: Any) -> torch.Tensor:
    x = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return Predictor.from_pretrained(location, **options).predict(x, draws=2).output


def test_folders_by_any_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(bundle_folder("mnist5k-conv2"), tmp_path / "deep" / "mine"))
    monkeypatch.chdir(tmp_path)
    for location in (folder, str(folder), "deep/mine", "./deep/mine/"):
        assert bundle_folder(location).resolve() == folder.resolve()
    assert bundle_folder(f"file://{folder}") == folder
    with pytest.raises(UserError, match=r"bundle: there is no folder \./none"):
        bundle_folder("./none")


def test_a_folder_comes_before_a_bundle_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mnist5k-conv2" in own_bundles()
    assert bundle_folder("mnist5k-conv2").parent.name == "bundles"
    (tmp_path / "mnist5k-conv2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert bundle_folder("mnist5k-conv2") == Path("mnist5k-conv2")
    with pytest.raises(UserError, match=r"there is no folder numbers, and no such bundle .*it has mnist5k-conv2"):
        bundle_folder("numbers")


def test_a_url_is_downloaded_once(remote: Any, tmp_path: Path) -> None:
    first = answer(f"{URL}/")
    assert torch.equal(first, answer("mnist5k-conv2"))
    (cached,) = (path for path in (tmp_path / "cache").iterdir())
    remote.rm("/bundles/digits/diffusion/model.safetensors")
    assert torch.equal(answer(URL), first)
    (cached / "config.json").write_text("{}")  # the disk, or somebody, has damaged the copy
    with pytest.raises(UserError, match=f"{URL}/diffusion/model.safetensors is missing"):
        answer(URL)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [cached.name]


def test_a_damaged_copy_is_downloaded_again(remote: Any) -> None:
    folder = bundle_folder(URL)
    (folder / "base" / "model.safetensors").write_bytes(b"")
    assert torch.equal(answer(URL), answer("mnist5k-conv2"))


def test_http_without_parts_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCD_CACHE", str(tmp_path / "cache"))
    folder = Path(shutil.copytree(bundle_folder("mnist5k-conv2"), tmp_path / "mine"))
    large = folder / "prepared" / "large.bin"
    large.parent.mkdir()
    large.write_bytes(bytes(range(256)) * 2**15)  # more than fsspec reads at once
    rehash(folder)
    with served(tmp_path) as url:
        found = bundle_folder(f"{url}/mine")
        assert sha256_files(found) == {name: sha for name, sha in sha256_files(folder).items() if name != "README.md"}
        with large.open("ab") as file:
            file.write(b"more")
        shutil.rmtree(tmp_path / "cache")
        with pytest.raises(UserError, match=r"prepared/large.bin has more than 8388608 bytes"):
            bundle_folder(f"{url}/mine")
        large.unlink()
        with pytest.raises(UserError, match=rf"{url}/mine/prepared/large.bin is missing"):
            bundle_folder(f"{url}/mine")
        with pytest.raises(UserError, match=rf"{url}/none is no bundle"):
            bundle_folder(f"{url}/none")


def test_what_is_wrong_at_a_url_is_named_there(remote: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"memory://bundles/none is no bundle, because it has no bundle.json"):
        answer("memory://bundles/none")
    data = remote.cat_file("/bundles/digits/base/model.safetensors")
    remote.pipe_file("/bundles/digits/base/model.safetensors", data[:-1])
    with pytest.raises(UserError, match=f"{URL}/base/model.safetensors has 247567 bytes instead of 247568"):
        answer(URL)
    remote.pipe_file("/bundles/digits/base/model.safetensors", data + bytes(2**22))
    with pytest.raises(UserError, match=r"base/model.safetensors has more than 247568 bytes"):
        answer(URL)
    manifest = json.loads(remote.cat_file("/bundles/digits/bundle.json"))
    manifest["files"]["base/model.safetensors"]["bytes"] = 10**15
    remote.pipe_file("/bundles/digits/bundle.json", json.dumps(manifest).encode())
    with pytest.raises(UserError, match=rf"{URL} has 1000\d* bytes, but the disk of .* free; set OCD_CACHE"):
        answer(URL)
    remote.pipe_file("/bundles/digits/bundle.json", b"{")
    with pytest.raises(UserError, match=f"{URL}/bundle.json is damaged: it is not JSON"):
        answer(URL)
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(UserError, match="Protocol not known"):
        answer("nosuch://bundle")


def test_a_hub_id(hub: Hub) -> None:
    assert torch.equal(answer("owner/digits", revision="v1"), answer("mnist5k-conv2"))
    assert hub.asked == [("owner/digits", "bundle.json", "v1"), ("owner/digits", "snapshot", "v1")]
    assert not (hub.folder / "snapshots" / "owner" / "digits" / "large.bin").exists()


def test_an_edited_bundle_of_the_hub_is_refused(hub: Hub) -> None:
    path = hub.folder / "owner" / "digits" / "config.json"
    path.write_text(path.read_text().replace('"steps": 10', '"steps": 11'))
    with pytest.raises(UserError, match=r"config\.json was changed"):
        answer("owner/digits")


def test_what_the_hub_does_not_have(hub: Hub) -> None:
    (hub.folder / "owner" / "other").mkdir()
    with pytest.raises(UserError, match=r"owner/other on the Hugging Face hub is no bundle"):
        answer("owner/other")
    with pytest.raises(UserError, match=r"no folder owner/none, and the .*ConnectionError: 401 Client Error\. Repo"):
        answer("owner/none")
    with pytest.raises(UserError, match=r"LocalEntryNotFoundError: Cannot find .* the network"):
        answer("owner/offline")
    (hub.folder / "owner" / "other" / "bundle.json").write_text(json.dumps({"format": "else"}))
    with pytest.raises(UserError, match=r"owner/other/bundle\.json is not that of a bundle"):
        answer("owner/other")
