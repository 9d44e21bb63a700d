"""What a bundle holds, and whether it is whole.

    bundle.json     every file with its size and sha256; written last
    config.json     what prediction needs of the params
    README.md       the card, for people; they may edit it, so it has no hash
    prepared/       what the task needs of the prepared data (`Task.travelling`)
    base/, layers/, diffusion/, scale/, and tuned/ if the diffusion model was tuned

A bundle is data: nothing in it is run, see `ocd_core.registry.without_references`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.errors import UserError
from ocd_core.files import sha256_file
from ocd_core.strict import StrictModel

MANIFEST, PARAMS, CARD = "bundle.json", "config.json", "README.md"
FORMAT, VERSION = "ocd-bundle", 1
AGAIN = "get the whole bundle again, or make it again with 'ocd export'"
_WEIGHTS, _CONFIG, _MADE = "model.safetensors", "config.json", "manifest.json"


@dataclass(frozen=True)
class Part:
    """An artifact of a run, and the files of it that travel; optional: a run may lack it."""

    artifact: str
    files: tuple[str, ...]
    optional: bool = False


PARTS = (
    Part("base", (_WEIGHTS, _MADE)),
    Part("layers", ("layers.json", _MADE)),
    Part("diffusion", (_WEIGHTS, _CONFIG, _MADE)),
    Part("scale", (_WEIGHTS, _CONFIG, _MADE)),
    Part("tuned", (_WEIGHTS, _CONFIG, _MADE), optional=True),
)
PREPARED = "prepared"


@dataclass(frozen=True)
class BundledRun(Artifacts):
    """The paths of a run whose artifacts lie side by side in one folder, `root`."""

    @property
    def task_dir(self) -> Path:
        """See `Artifacts`."""
        return self.root

    @property
    def seed_dir(self) -> Path:
        """See `Artifacts`."""
        return self.root

    @property
    def rank_dir(self) -> Path:
        """See `Artifacts`."""
        return self.root

    def need(self, path: Path, stage: str) -> Path:
        """`path` if it exists.

        Raises:
            UserError: the bundle lacks it.
        """
        if not path.exists():
            raise UserError(f"{path} is missing; {AGAIN}")
        return path


class FileHash(StrictModel):
    """A file of a bundle."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: str


class Manifest(StrictModel):
    """`bundle.json`: what made the bundle, and {path in the bundle: its file}."""

    format: str
    version: int
    code_version: str
    files: dict[str, FileHash]


def parse_manifest(values: Any, where: str) -> Manifest:
    """A manifest that this version can read.

    Args:
        where: its location, for messages.

    Raises:
        UserError: it is damaged, foreign, of another version, or lacks what every bundle has.
    """
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UserError(f"{where} is not that of a bundle (its format is not {FORMAT!r}); {AGAIN}")
    if values.get("version") != VERSION:
        raise UserError(
            f"{where} has version {values.get('version')}, but this package reads {VERSION}; install the ocd-core that "
            f"made it ({values.get('code_version')})"
        )
    try:
        found = Manifest.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where} is damaged: {' '.join(str(error).split())[:200]}; {AGAIN}") from error
    for name in found.files:
        parts = PurePosixPath(name).parts
        if name != "/".join(parts) or name.startswith("/") or "\\" in name or {".", ".."} & {*parts}:
            raise UserError(f"{where} names a file outside of the bundle, {name!r}; do not use it")
    for name in _required():
        if name not in found.files:
            raise UserError(f"{where} does not list {name}, which every bundle has; {AGAIN}")
    return found


def check_bundle(folder: Path) -> Manifest:
    """The manifest of a bundle, after a check that every file is there and as it was written.

    Raises:
        UserError: a file is missing, changed or foreign; the message names the first one, and the remedy.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    if not path.is_file():
        run = " (it is a run's folder: 'ocd export' makes a bundle of it)" if (folder / "diffusion").is_dir() else ""
        raise UserError(f"{folder} is no bundle, because it has no {MANIFEST}{run}; {AGAIN}")
    try:
        values = read_json(path)
    except UserError as error:
        raise UserError(f"{path} is damaged: it is not JSON; {AGAIN}") from error
    manifest = parse_manifest(values, str(path))
    for name, expected in manifest.files.items():
        check_file(folder / name, expected)
    for found in _in_parts(folder):
        if found not in manifest.files:
            raise UserError(f"{folder / found} is not part of the bundle ({MANIFEST} does not list it); remove it")
    return manifest


def check_file(path: Path, expected: FileHash) -> None:
    """Check one file.

    Raises:
        UserError: it is missing, truncated or changed.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; {AGAIN}")
    size = path.stat().st_size
    if size != expected.bytes:
        raise UserError(f"{path} has {size} bytes instead of {expected.bytes}: it is truncated or replaced; {AGAIN}")
    if sha256_file(path) != expected.sha256:
        raise UserError(f"{path} was changed: its sha256 is not the one in {MANIFEST}; {AGAIN}")


def _required() -> Iterator[str]:
    yield PARAMS
    for part in PARTS:
        if not part.optional:
            yield from (f"{part.artifact}/{name}" for name in part.files)


def _in_parts(folder: Path) -> Iterator[str]:
    """The files in the folders from which prediction reads."""
    for name in (PREPARED, *(part.artifact for part in PARTS)):
        for path in sorted((folder / name).rglob("*")):
            if path.is_file():
                yield path.relative_to(folder).as_posix()
