"""Record what every artifact was made from, and refuse artifacts that are damaged or out of date.

An artifact's folder holds `manifest.json`, written last: the stage, the params and the code that made it, the content
of the artifacts that it was made from, and the sha256 of each file. An overfit store keeps the same in its attributes,
and its shards have their own checksums.

Inputs are identified by content, not by manifest: if a stage runs again and makes the same bytes, later artifacts stay
current.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ocd_core.artifacts import Artifacts, read_json, replaced_folder
from ocd_core.config import Params, load_params
from ocd_core.errors import UserError
from ocd_core.files import read_regular, sha256_file, sha256_files
from ocd_core.fingerprint import digest
from ocd_core.params_files import flat
from ocd_core.pipeline import CONTENT, STAGES, maker
from ocd_core.sealed import read_sealed, write_sealed
from ocd_core.stage_code import stage_digest

MANIFEST = "manifest.json"
PAGE = "page.json"  # of a report: the hashes of its files that hold times, which DVC does not keep (.dvcignore)
TIMED = ("index.html", "runtime.md")
AGAIN = "run the stage that makes it again ('dvc repro')"
_MADE = {"stage", "params", "code", "inputs"}


@dataclass(frozen=True)
class Lineage:
    """A run's artifacts with the present params, for stages: checked when read, described when written."""

    artifacts: Artifacts
    params: Params
    _codes: dict[str, str] = field(default_factory=dict)
    _begun: dict[str, dict[str, Any]] = field(default_factory=dict)  # by stage: what `check` found

    @classmethod
    def of(cls, task: str, seed: int = 0, rank: int = 1, root: Path | str = ".") -> "Lineage":
        """The run of a task in a folder, with the params of its file."""
        return cls(Artifacts(task, seed, rank, Path(root)), load_params(task, root))

    @cached_property
    def values(self) -> dict[str, Any]:
        """The params as plain values."""
        return self.params.plain()

    def read(self, name: str) -> Path:
        """The path of an artifact that is complete and current.

        Args:
            name: as in `ocd_core.pipeline`, for example `base` or `overfit/train`.

        Raises:
            UserError: it is missing, damaged, or was made from params, code or inputs other than the present ones; the
                message says which, and how to fix it.
        """
        path = self.artifacts.need(self.artifacts.path(name), maker(name))
        made = self._made(name, path)
        self._refuse(name, path, self._stale(name, made))
        return path

    def outdated(self, name: str) -> str | None:
        """Why an artifact must be made (again): it is missing, damaged, or out of date; None if it is current."""
        path = self.artifacts.path(name)
        if not path.exists():
            return "it is missing"
        if not path.is_dir():
            return "it is not a folder"
        try:
            return self._stale(name, self._made(name, path))
        except UserError as error:
            return str(error)

    def made_by(self, stage: str) -> dict[str, Any]:
        """What a stage's artifact is made from, stored with it: stage, params, code, inputs."""
        return {
            "stage": stage,
            "params": _chosen(self.values, STAGES[stage].params),
            "code": self._code(stage),
            "inputs": {name: found for name in STAGES[stage].inputs if (found := self.content(name)) is not None},
        }

    def check(self, stage: str) -> None:
        """`read` every input of a stage, at its start; what it is made from then is what `write` records.

        Raises:
            UserError: see `read`.
        """
        for name in STAGES[stage].inputs:
            self.read(name)
        self._begun[stage] = self.made_by(stage)

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """A new folder that replaces the artifact, with a manifest, if the block ends without an error."""
        stage = maker(name)
        made = self._begun.pop(stage, None) or self.made_by(stage)
        with replaced_folder(self.artifacts.path(name)) as dest:
            yield dest
            write_manifest(dest, made, sha256_files(dest))

    def content(self, name: str) -> str | None:
        """See `content`."""
        return content(self.artifacts, name)

    def _code(self, stage: str) -> str:
        if stage not in self._codes:
            self._codes[stage] = stage_digest(stage, self.values)
        return self._codes[stage]

    def _made(self, name: str, path: Path) -> Mapping[str, Any]:
        if not path.is_dir():
            raise UserError(f"{path} is not a folder; {self._remedy(name)}")
        if not name.startswith("overfit/"):
            return check_files(path, self._remedy(name), maker(name))
        return made_of_store(self.artifacts, name, self._remedy(name))

    def _stale(self, name: str, made: Mapping[str, Any]) -> str | None:
        """The reason why an artifact is out of date; None if it is current."""
        stage = maker(name)
        today = self.made_by(stage)
        for key, value in flat(today["params"]).items():
            before = flat(made["params"]).get(key)
            if before != value:
                return f"{key} was {before!r} and is {value!r} now"
        if made["code"] != today["code"]:
            return f"the code of the stage {stage} has changed"
        for needed, content in today["inputs"].items():
            if made["inputs"].get(needed) != content:
                return f"it was made from a different {self.artifacts.path(needed)} than the present one"
        return None

    def _refuse(self, name: str, path: Path, why: str | None) -> None:
        if why is not None:
            raise UserError(f"{path} is out of date: {why}; {self._remedy(name)}")

    def _remedy(self, name: str) -> str:
        return f"run 'dvc repro' or '{self.artifacts.command(maker(name))}'"


def write_manifest(folder: Path, made: Mapping[str, Any], files: Mapping[str, str]) -> None:
    """Write the manifest of a folder.

    Args:
        made: what the folder was made from, as `Lineage.made_by` describes it.
        files: the sha256 of each file, by its path in the folder.
    """
    write_sealed(folder / MANIFEST, {**made, "files": dict(files)})


def read_manifest(folder: Path, remedy: str = AGAIN) -> dict[str, Any]:
    """An artifact's manifest.

    Raises:
        UserError: the manifest is missing or damaged.
    """
    path = folder / MANIFEST
    found = read_json(path)
    if isinstance(found, dict) and set(found) != _MADE | {"files"}:  # one without a seal is of an earlier version
        found = read_sealed(path, remedy)
    if not (is_made(found) and set(found) == _MADE | {"files"} and _are_hashes(found["files"])):
        raise UserError(f"{path} is damaged: it does not say what made the folder; {remedy}")
    return dict(found)


def is_made(values: Any) -> bool:
    """Whether these are the plain values that say what an artifact was made from."""
    kinds = {"stage": str, "params": dict, "code": str, "inputs": dict}
    return isinstance(values, dict) and all(isinstance(values.get(key), kind) for key, kind in kinds.items())


def _are_hashes(values: Any) -> bool:
    """Whether these are the sha256 of files within a folder, by their paths in it."""
    return isinstance(values, dict) and all(
        isinstance(sha, str) and name and not name.startswith("/") and ".." not in name.split("/")
        for name, sha in values.items()
    )


def check_files(folder: Path, remedy: str = AGAIN, stage: str | None = None) -> dict[str, Any]:
    """The manifest of a folder, after a check that all its files are as they were written.

    Args:
        stage: that must have made the folder.

    Raises:
        UserError: a file is missing or changed, or a link leads to something else; the message names the first one.
    """
    manifest = read_manifest(folder, remedy)
    if stage is not None and manifest["stage"] != stage:
        raise UserError(f"{folder} is not what the stage {stage} makes, but {manifest['stage']}; {remedy}")
    for path, problem in faults(folder, manifest["files"]):
        raise UserError(f"{path} {problem}; {remedy}")
    return manifest


def faults(folder: Path, files: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """The `damaged_files` of an artifact's folder, then the links that its manifest does not list.

    These may lead to anything on this machine. A link to a listed file (into a cache) is as good as its hash.
    """
    yield from damaged_files(folder, files)
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and path.relative_to(folder).as_posix() not in {*files, MANIFEST}:
            yield path, f"is a link that {MANIFEST} does not list"


def listed_bytes(folder: Path, name: str, files: Mapping[str, str], remedy: str = AGAIN) -> bytes:
    """The content of a file of a folder, which must be the one that the manifest lists: for what is copied elsewhere.

    Raises:
        UserError: it is missing, not listed, or has another content.
    """
    path = folder / name
    if name not in files:
        raise UserError(f"{path} is not one of the files of {folder / MANIFEST}; {remedy}")
    try:
        data = read_regular(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {remedy}") from error
    if hashlib.sha256(data).hexdigest() != files[name]:
        raise UserError(f"{path} is damaged: its content does not match {MANIFEST}; {remedy}")
    return data


def damaged_files(folder: Path, files: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """The files of a folder that are not as they were written, and what is wrong with each.

    files: the sha256 of each, by its path in the folder.
    """
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            yield path, "is damaged: it is no longer a file" if path.exists() else "is missing"
        elif sha256_file(path) != expected:
            yield path, f"is damaged: its content does not match {MANIFEST}"


def write_report_manifests(folder: Path, made: Mapping[str, Any]) -> None:
    """Write the manifest of a report, and apart from it that of the files that DVC does not keep with the rest."""
    files = sha256_files(folder)
    timed = {name: files.pop(name) for name in TIMED}
    write_sealed(folder / PAGE, {"inputs": made["inputs"], "files": timed})
    write_manifest(folder, made, files)


def damaged_page(folder: Path, remedy: str = AGAIN) -> str | None:
    """Why the page of a report is not that of its other files; None if it is, or if there is neither it nor times.

    DVC may have put another report in this one's place, or brought it without them (`dvc pull`).
    """
    there = [name for name in (*TIMED, PAGE) if (folder / name).exists() or (folder / name).is_symlink()]
    if not there:
        return None
    try:
        page = read_sealed(folder / PAGE, remedy)
    except UserError as error:
        return str(error).removesuffix(f"; {remedy}")
    files = page.get("files")
    if not (isinstance(files, dict) and _are_hashes(files) and set(files) == set(TIMED)):
        return f"{folder / PAGE} is damaged: it does not hold the hashes of {' and '.join(TIMED)}"
    for path, problem in damaged_files(folder, files):
        return f"{path} {problem.replace(MANIFEST, PAGE)}"
    if page.get("inputs") != read_manifest(folder, remedy)["inputs"]:
        return f"{folder / TIMED[0]} shows other evaluations than the files beside it"
    return None


def content(run: Artifacts, name: str) -> str | None:
    """A fingerprint of an artifact's content, from its manifest; None if it does not exist."""
    path = run.path(name)
    if name.startswith("overfit/"):
        return store_fingerprint(path)
    if not (path / MANIFEST).is_file():
        return None
    return content_of(name, read_manifest(path)["files"])


def content_of(name: str, files: Mapping[str, str]) -> str:
    """A fingerprint of an artifact's content, from the sha256 of its files."""
    kept = CONTENT.get(name, tuple(files))
    return digest({file: sha for file, sha in files.items() if file in kept})


def store_attributes(path: Path) -> dict[str, Any]:
    """The group attributes of an overfit store; empty if there is none.

    They are read as plain JSON, so that stages do not depend on the code of stores.
    """
    found = read_json(path / "zarr.json") if (path / "zarr.json").is_file() else {}
    attributes = found.get("attributes") if isinstance(found, dict) else None
    return attributes if isinstance(attributes, dict) else {}


def made_of_store(run: Artifacts, name: str, remedy: str) -> dict[str, Any]:
    """What a run's store says that it was made from.

    Raises:
        UserError: it does not say, or is the store of another split or run.
    """
    path, attributes = run.path(name), store_attributes(run.path(name))
    made = attributes.get("made")
    if not isinstance(made, dict) or not is_made(made):
        raise UserError(f"{path} does not say what it was made from, or is damaged; {remedy}")
    own = {"task": run.task, "split": name.partition("/")[2], "seed": run.seed, "rank": run.rank}
    for key, value in own.items():
        if attributes.get(key) != value:
            raise UserError(f"{path} is the store of another run: its {key} is {attributes.get(key)!r}; {remedy}")
    return dict(made)


def store_fingerprint(path: Path) -> str | None:
    """The fingerprint of what determines a store's content; None if there is none."""
    found = store_attributes(path).get("fingerprint")
    return None if found is None else str(found)


def _chosen(values: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """The values of some dotted keys."""
    found = {}
    for key in keys:
        value: Any = values
        for part in key.split("."):
            value = value[part]
        found[key] = value
    return found
