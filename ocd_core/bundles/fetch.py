"""A bundle by its name: a folder, an fsspec URL, a Hugging Face hub id, or one that comes with the package."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ocd_core.artifacts import replaced_folder
from ocd_core.bundles.layout import AGAIN, CARD, MANIFEST, Manifest, check_bundle, check_file, parse_manifest
from ocd_core.errors import UserError
from ocd_core.files import filesystem, is_of_place, is_shortage, is_url
from ocd_core.hub import local_folder

CACHE = "OCD_CACHE"  # the environment variable with the folder of downloaded bundles
_OWN = Path(__file__).parent
_MANIFEST_BYTES = 2**24  # of a manifest, at most
_PIECE_BYTES = 2**20


def own_bundles() -> list[str]:
    """The names of the bundles that come with the package."""
    return sorted(path.parent.name for path in _OWN.glob(f"*/{MANIFEST}"))


def bundle_folder(location: Path | str, revision: str | None = None) -> Path:
    """The folder of a bundle on this machine, downloaded if necessary; it is not checked yet.

    Args:
        location: a folder, a URL that fsspec knows, a hub id `owner/name`, or a name in `own_bundles`.
        revision: of a hub id: a branch, a tag or a commit.

    Raises:
        UserError: there is no such folder or bundle, or it cannot be downloaded.
    """
    if isinstance(location, Path):
        return location
    if is_url(location):
        return _from_url(location.rstrip("/"))
    folder = local_folder(location, "bundle")
    if folder is not None:
        return folder
    if location in own_bundles():
        return _OWN / location
    if "/" not in location:
        known = ", ".join(own_bundles())
        raise UserError(f"there is no folder {location}, and no such bundle comes with the package (it has {known})")
    return _from_hub(location, revision)


def _from_hub(name: str, revision: str | None) -> Path:
    """The hub's own cache keeps the files; only those of the bundle are downloaded."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        path = Path(hf_hub_download(name, MANIFEST, revision=revision))
        manifest = parse_manifest(_json(path.read_bytes(), f"{name}/{MANIFEST}"), f"{name}/{MANIFEST}")
        return Path(snapshot_download(name, revision=revision, allow_patterns=[MANIFEST, CARD, *manifest.files]))
    except UserError:
        raise
    except Exception as error:  # the library raises many kinds
        if is_shortage(error):
            raise
        if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
            raise UserError(f"{name} on the Hugging Face hub is no bundle, because it has no {MANIFEST}") from error
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"there is no folder {name}, and the Hugging Face hub does not give it: {type(error).__name__}: {reason}; "
            "check the name, the network and 'hf auth whoami'"
        ) from error


def _from_url(url: str) -> Path:
    """A folder of the cache, named after the content."""
    from fsspec.implementations.local import LocalFileSystem

    fs, root = filesystem(url)
    if isinstance(fs, LocalFileSystem):
        return Path(root)
    no_bundle = f"{url} is no bundle, because it has no {MANIFEST}; {AGAIN}"
    text = b"".join(_pieces(fs, f"{root}/{MANIFEST}", _MANIFEST_BYTES, no_bundle))
    manifest = parse_manifest(_json(text, f"{url}/{MANIFEST}"), f"{url}/{MANIFEST}")
    cache = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "ocd")
    folder = cache / hashlib.sha256(text).hexdigest()[:32]
    try:
        if not _sound(folder):
            _refuse_too_large(manifest, url, cache)
            with replaced_folder(folder) as work:
                _download(fs, root, url, manifest, work)
                (work / MANIFEST).write_bytes(text)
    except OSError as error:
        if not is_of_place(error, cache):
            raise
        raise UserError(f"{cache}: {error.strerror or error}; set {CACHE} to a folder that can be written") from error
    return folder


def _refuse_too_large(manifest: Manifest, url: str, cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    needed, free = sum(file.bytes for file in manifest.files.values()), shutil.disk_usage(cache).free
    if needed > free:
        raise UserError(f"{url} has {needed} bytes, but the disk of {cache} only {free} free; set {CACHE} to another")


def _download(fs: Any, root: str, url: str, manifest: Manifest, dest: Path) -> None:
    """No file may be longer than the manifest says, which its hash alone would show too late."""
    for name, expected in manifest.files.items():
        path = dest / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for piece in _pieces(fs, f"{root}/{name}", expected.bytes, f"{url}/{name} is missing; {AGAIN}"):
                file.write(piece)
        try:
            check_file(path, expected)
        except UserError as error:
            raise UserError(str(error).replace(str(dest), url)) from error


def _pieces(fs: Any, path: str, most: int, missing: str) -> Iterator[bytes]:
    """A file's content piece by piece; `missing` is the message if it does not exist, `most` its greatest length."""
    left = most
    # without it, fsspec asks for parts of files, which many servers do not give
    streamed = {"block_size": 0} if "http" in fs.protocol else {}
    try:
        with fs.open(path, "rb", **streamed) as file:
            while piece := file.read(min(_PIECE_BYTES, left + 1)):
                left -= len(piece)
                if left < 0:
                    raise UserError(f"{path} has more than {most} bytes: it is replaced; {AGAIN}")
                yield piece
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(missing) from error
    except Exception as error:  # each file system raises its own kinds
        if is_shortage(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read: {type(error).__name__}: {reason}") from error


def _json(text: bytes, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is damaged: it is not JSON; {AGAIN}") from error


def _sound(folder: Path) -> bool:
    """Whether a folder of the cache is whole; the disk may have damaged it since."""
    try:
        check_bundle(folder)
    except UserError:
        return False
    return True
