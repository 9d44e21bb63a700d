"""Publishing a store: a sound copy of it with its card and base weights, at a folder or an fsspec URL.

    DEST/<split>.zarr        the store
    DEST/<split>.card/       its card
    DEST/base/               the base network's weights and config
    DEST/MANIFEST.json       every file with its size and sha256; written last

A local DEST is complete or absent. Elsewhere nothing can be renamed in one step: there MANIFEST.json says that the
export is complete.
"""

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from ocd_core._version import __version__
from ocd_core.errors import UserError
from ocd_core.files import filesystem, is_url, put_file, read_regular, utf8
from ocd_core.provenance import listed_bytes, read_manifest
from ocd_core.report.exporting import check_alone, write_whole
from ocd_core.report.store_card import card_files
from ocd_core.store import OverfitStore, copy_store
from ocd_core.store.copying import own_files
from ocd_core.store.source import Source, read_node, schema_of

MANIFEST = "MANIFEST.json"
_WEIGHTS = "model.safetensors"
_BASE_FILES = (_WEIGHTS, "config.json", "metrics.json")
Files = dict[str, bytes]


def export_store(store: Path | str, dest: str, base: Path | str | None = None) -> dict[str, Any]:
    """Verify a store and copy it with its card and base weights; returns the manifest.

    Args:
        store: a path or fsspec URL.
        dest: a path or fsspec URL at which nothing is yet.
        base: the folder of the base network; by default that of the run, or of the export, in which the store lies.

    Raises:
        UserError: the store is damaged, its base network's weights are missing or of another store, `dest` exists or
            cannot be written.
    """
    source = Source(store)
    attributes = read_node(source)["attributes"]
    from_fs, from_root = filesystem(str(store))
    place = PurePosixPath(from_root)
    card = {name: utf8(text) for name, text in card_files(OverfitStore(store)).items()}
    checkpoint = _base(from_fs, place, attributes, base)
    if source.local and not is_url(dest) and Path(dest).resolve().is_relative_to(Path(place).resolve()):
        raise UserError(f"{dest} is inside the store itself; choose another place")
    return write_whole(dest, MANIFEST, lambda to: _write(source, to, place.name, card, checkpoint))


def _write(source: Source, dest: str, name: str, card: Files, checkpoint: Files) -> dict[str, Any]:
    copy_store(source.location, f"{dest}/{name}")
    source.check_same()  # the card was made before
    fs, root = filesystem(dest)
    stem = PurePosixPath(name).stem
    extras = {f"{stem}.card/{key}": data for key, data in card.items()}
    extras |= {f"base/{key}": data for key, data in checkpoint.items()}
    for key, data in extras.items():
        put_file(fs, f"{root}/{key}", data)
        if fs.cat_file(f"{root}/{key}") != data:
            raise UserError(f"{dest}/{key} did not arrive whole; export again")
    copied = Source(dest)
    check_alone(dest, [*(f"{name}/{key}" for key in own_files(schema_of(read_node(source)))), *extras])
    manifest = {
        "format": "ocd-overfit-export",
        "store": name,
        "card": f"{stem}.card",
        "base": f"base/{_WEIGHTS}",
        "code_version": __version__,
        "files": {
            key: {"bytes": size, "sha256": hashlib.sha256(copied.read(key)).hexdigest()}
            for key, size in sorted(copied.sizes().items())
        },
    }
    put_file(fs, f"{root}/{MANIFEST}", (json.dumps(manifest, indent=2) + "\n").encode())
    return manifest


def _base(fs: Any, store: PurePosixPath, attributes: dict[str, Any], given: Path | str | None) -> Files:
    """The files of the base network that the store was made with."""
    if given is not None:
        other, root = filesystem(str(given))
        places = {str(given): _files(other, PurePosixPath(root))}
    else:  # .../seed0/rank1/overfit/train.zarr has .../seed0/base; in an export it lies beside the store
        folders = {parents[i] / "base" for i in (0, 2) if len(parents := store.parents) > i}
        places = {str(folder): _files(fs, folder) for folder in sorted(folders)}
    found = {place: files for place, files in places.items() if _WEIGHTS in files}
    if not found:
        raise UserError(
            f"the base weights are missing: no {_WEIGHTS} in {' or '.join(places)}; name its folder by --base"
        )
    expected = attributes.get("base_sha256")
    for files in found.values():
        if hashlib.sha256(files[_WEIGHTS]).hexdigest() == expected:
            return files
    raise UserError(
        f"{' and '.join(found)} holds another checkpoint than the store was made with (sha256 {expected}); "
        "name the right folder by --base"
    )


def _files(fs: Any, folder: PurePosixPath) -> Files:
    """The known files of a base network's folder, by name; none if it is not there. Its other files stay where they
    are.

    Raises:
        UserError: something else has the name of one: a folder, a pipe, or a link to another place than the manifest
            of the folder says.
    """
    if not isinstance(fs, LocalFileSystem):
        return {name: fs.cat_file(f"{folder}/{name}") for name in _BASE_FILES if fs.isfile(f"{folder}/{name}")}
    found = {}
    for name in _BASE_FILES:
        path = Path(folder) / name
        if path.is_symlink() and name != _WEIGHTS:  # the weights are those whose hash is in the store
            try:
                found[name] = listed_bytes(path.parent, name, read_manifest(path.parent)["files"])
            except UserError as error:
                reason = "a link that no manifest beside it lists"
                raise UserError(f"{path} is {reason}; put the file itself there, or remove it") from error
        elif os.path.lexists(path):
            found[name] = read_regular(path)
    return found
