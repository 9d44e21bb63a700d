"""What is damaged at a path, whatever `ocd` made there, and the command that makes each damaged part again.

A path is an overfit store, the folder of a stage, a run with everything that it rests on, a task's report, a bundle or
an export. Nothing is loaded or run: files are hashed, and the shards of stores decoded.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.bundles.layout import AGAIN, check_bundle
from ocd_core.bundles.layout import MANIFEST as BUNDLE
from ocd_core.errors import UserError
from ocd_core.files import is_url, sha256_file
from ocd_core.pipeline import STAGES, maker
from ocd_core.provenance import (
    MANIFEST,
    content,
    damaged_page,
    faults,
    made_of_store,
    read_manifest,
)
from ocd_core.samples import SPLITS
from ocd_core.store import verify_store

EXPORT = "MANIFEST.json"  # of `ocd export` of a store
_ANOTHER = "get it again from its source, or make it again with 'ocd export'"
# a run's artifacts in the order in which the stages make them; the report belongs to a task's runs together
NAMES = tuple(
    name
    for stage in STAGES.values()
    for name in ([f"overfit/{split}" for split in SPLITS] if stage.makes == "overfit" else [stage.makes])
    if name != "report"
)


@dataclass(frozen=True)
class Problem:
    """Something damaged. what: names the file. remedy: how to get it back."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def verify(location: str) -> list[Problem]:
    """What is damaged at a path or URL, in the order in which it is to be mended; empty if everything is sound.

    Raises:
        UserError: there is nothing at the path, or nothing that can be verified.
    """
    if is_url(location):
        return _of_store(location, _ANOTHER)
    path = Path(location)
    if not path.exists():
        broken = " (it is a link to nothing)" if path.is_symlink() else ""
        raise UserError(f"there is nothing at {location}{broken}")
    if not path.is_dir():
        raise UserError(f"{location} is not a folder; name a store, a stage's folder, a run or a bundle")
    if (path / BUNDLE).exists():
        return _of_bundle(path)
    if EXPORT in {each.name for each in path.iterdir()}:  # some file systems take manifest.json for the same name
        return list(_of_export(path))
    place = _place(path)
    if place is not None:
        run, name = place
        return list(_of_run(run)) if name is None else list(_of_artifact(run, name, path))
    if (path / MANIFEST).exists():
        return list(_of_folder(path, "run the stage that makes it again ('dvc repro')"))
    if (path / "zarr.json").exists() or path.suffix == ".zarr":
        return _of_store(location, _ANOTHER)
    raise UserError(
        f"{location} is not an overfit store, a stage's folder, a run (data/<task>/seed<k>/rank<r>), a report, a "
        "bundle or an export; nothing says what it should hold"
    )


def _place(path: Path) -> tuple[Artifacts, str | None] | None:
    """The run in which a folder lies, and which artifact it is (None: the run itself); None if it is neither."""
    whole = path.resolve()
    for above in (whole, *whole.parents[:4]):
        for run, names in _runs_at(above):
            if run.rank_dir == whole:
                return run, None
            for name in names:
                if run.path(name) == whole:
                    return run, name
    return None


def _runs_at(folder: Path) -> Iterator[tuple[Artifacts, tuple[str, ...]]]:
    """The run, of any seed and rank that the path names, in whose tree a folder lies, with the artifacts it may be."""
    try:
        if folder.name.startswith("rank"):
            yield Artifacts.from_folder(folder), NAMES
        elif folder.name.startswith("seed") and folder.name.removeprefix("seed").isdigit():
            yield Artifacts.from_folder(folder / "rank1"), NAMES
        elif folder.parent.name == "data":
            yield Artifacts(folder.name, root=folder.parents[1]), NAMES
        elif folder.parent.name == "reports":
            yield Artifacts(folder.name, root=folder.parents[1]), ("report",)
    except UserError:  # a name that no run has
        return


def _of_run(run: Artifacts) -> Iterator[Problem]:
    """A run and what it rests on; what is not made yet is no problem, unless something was made from it."""
    there = [name for name in NAMES if run.path(name).is_symlink() or run.path(name).exists()]
    if not there:
        raise UserError(f"{run.rank_dir} is empty; run 'dvc repro'")
    needed = {source for name in there for source in STAGES[maker(name)].inputs}
    for name in NAMES:
        path = run.path(name)
        if name in there:
            yield from _of_artifact(run, name, path)
        elif name in needed:
            yield Problem(f"{path} is missing", _command(run, name))


def _of_artifact(run: Artifacts, name: str, path: Path) -> Iterator[Problem]:
    remedy = _command(run, name)
    if not path.is_dir():
        yield Problem(f"{path} is not a folder", remedy)
        return
    store = name.startswith("overfit/")
    found = _of_store(str(path), remedy, placed=True) if store else list(_of_folder(path, remedy, maker(name)))
    yield from found
    if found:
        return
    if name == "report" and (why := damaged_page(path, remedy)) is not None:
        yield Problem(why, remedy)
    try:
        made = made_of_store(run, name, remedy) if store else read_manifest(path, remedy)
    except UserError as error:
        yield Problem(str(error).removesuffix(f"; {remedy}"), remedy)
        return
    for source, expected in made["inputs"].items():
        try:
            present = content(run, source)
        except UserError:  # damaged itself
            continue
        if present is not None and present != expected:
            yield Problem(f"{path} was made from another {run.path(source)} than the present one", remedy)


def _command(run: Artifacts, name: str) -> str:
    kind, _, split = name.partition("/")
    command = run.command("report" if kind == "report" else maker(name))
    return f"run '{command}{f' --split {split}' if split else ''}'"


def _of_store(location: str, remedy: str, *, placed: bool = False) -> list[Problem]:
    """placed: the folder must be a store, because of its place in a run."""
    try:
        return [Problem(f"{location}: {damage}", remedy) for damage in verify_store(location)]
    except UserError as error:
        if not placed:
            raise
        return [Problem(str(error), remedy)]


def _of_folder(folder: Path, remedy: str, stage: str | None = None) -> Iterator[Problem]:
    try:
        manifest = read_manifest(folder, remedy)
    except UserError as error:
        yield Problem(str(error).removesuffix(f"; {remedy}"), remedy)
        return
    if stage is not None and manifest["stage"] != stage:
        yield Problem(f"{folder} is not what the stage {stage} makes, but {manifest['stage']}", remedy)
    for path, problem in faults(folder, manifest["files"]):
        yield Problem(f"{path} {problem}", remedy)


def _of_bundle(folder: Path) -> list[Problem]:
    try:
        check_bundle(folder)
    except UserError as error:
        return [Problem(str(error).removesuffix(f"; {AGAIN}"), AGAIN)]
    return []


def _of_export(folder: Path) -> Iterator[Problem]:
    """A published store, with its card and base network."""
    values = read_json(folder / EXPORT)
    files = values.get("files") if isinstance(values, dict) else None
    if not isinstance(files, dict) or not all(isinstance(file, dict) for file in files.values()):
        yield Problem(f"{folder / EXPORT} is damaged: it does not list the files", _ANOTHER)
        return
    for name, file in files.items():
        path = folder / name
        if name.startswith("/") or ".." in name.split("/"):
            yield Problem(f"{folder / EXPORT} names a file outside of the folder, {name!r}", "do not use it")
        elif not path.is_file():
            yield Problem(f"{path} is missing", _ANOTHER)
        elif sha256_file(path) != file.get("sha256"):
            yield Problem(f"{path} is damaged: its content does not match {EXPORT}", _ANOTHER)
