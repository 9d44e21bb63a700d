"""Record what every artifact was made from, and refuse artifacts that are damaged or out of date.

An artifact's folder holds `manifest.json`, written last: the stage, the params and the code that made it, the content
of the artifacts that it was made from, and the sha256 of each file. An overfit store keeps the same in its attributes,
and its shards have their own checksums.

Inputs are identified by content, not by manifest: if a stage runs again and makes the same bytes, later artifacts stay
current.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ocd_core.artifacts import Artifacts, read_json, replaced_folder, write_json
from ocd_core.config import Params, load_params
from ocd_core.errors import UserError
from ocd_core.files import sha256_file, sha256_files
from ocd_core.fingerprint import digest
from ocd_core.params_files import flat
from ocd_core.pipeline import CONTENT, STAGES, maker
from ocd_core.stage_code import stage_digest

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Lineage:
    """A run's artifacts with the present params, for stages: checked when read, described when written."""

    artifacts: Artifacts
    params: Params
    _codes: dict[str, str] = field(default_factory=dict)

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
        """`read` every input of a stage.

        Raises:
            UserError: see `read`.
        """
        for name in STAGES[stage].inputs:
            self.read(name)

    @contextmanager
    def write(self, name: str) -> Iterator[Path]:
        """A new folder that replaces the artifact, with a manifest, if the block ends without an error."""
        made = self.made_by(maker(name))
        with replaced_folder(self.artifacts.path(name)) as dest:
            yield dest
            write_json(dest / MANIFEST, {**made, "files": sha256_files(dest)})

    def content(self, name: str) -> str | None:
        """A fingerprint of an artifact's content, from its manifest; None if it does not exist."""
        path = self.artifacts.path(name)
        if name.startswith("overfit/"):
            return store_fingerprint(path)
        if not (path / MANIFEST).is_file():
            return None
        return content_of(name, read_manifest(path)["files"])

    def _code(self, stage: str) -> str:
        if stage not in self._codes:
            self._codes[stage] = stage_digest(stage, self.values)
        return self._codes[stage]

    def _made(self, name: str, path: Path) -> Mapping[str, Any]:
        if not name.startswith("overfit/"):
            return check_files(path, self._remedy(name))
        made = store_attributes(path).get("made")
        if not isinstance(made, dict):
            raise UserError(f"{path} does not say what it was made from; {self._remedy(name)}")
        return made

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


def read_manifest(folder: Path) -> dict[str, Any]:
    """An artifact's manifest.

    Raises:
        UserError: the manifest is missing or damaged.
    """
    path = folder / MANIFEST
    found = read_json(path)
    if not isinstance(found, dict) or not {"stage", "params", "code", "inputs", "files"} <= set(found):
        raise UserError(f"{path} is damaged; run the stage that makes it again ('dvc repro')")
    return found


def check_files(folder: Path, remedy: str = "run the stage that makes it again ('dvc repro')") -> dict[str, Any]:
    """The manifest of a folder, after a check that all its files are as they were written.

    Raises:
        UserError: a file is missing or changed; the message names the first one.
    """
    manifest = read_manifest(folder)
    for name, expected in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing; {remedy}")
        if sha256_file(path) != expected:
            raise UserError(f"{path} is damaged: its content does not match {MANIFEST}; {remedy}")
    return manifest


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
