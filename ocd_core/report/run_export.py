"""Publishing a trained run as a bundle (`ocd_core.bundles.layout`), at a folder or an fsspec URL."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from ocd_core._version import __version__
from ocd_core.artifacts import Artifacts, json_text, read_json, write_json, write_text
from ocd_core.bundles.layout import CARD, FORMAT, MANIFEST, PARTS, PREPARED, VERSION, FileHash, Manifest
from ocd_core.bundles.layout import PARAMS as BUNDLE_PARAMS
from ocd_core.bundles.params import BundleParams
from ocd_core.config import Params, parse_params, trusted
from ocd_core.errors import UserError
from ocd_core.files import filesystem, put_file, sha256_files
from ocd_core.params_files import params_path, read_params
from ocd_core.pipeline import maker
from ocd_core.predictor import Predictor
from ocd_core.provenance import MANIFEST as MADE
from ocd_core.provenance import check_files, listed_bytes, read_manifest, write_manifest
from ocd_core.report.exporting import check_alone, write_whole
from ocd_core.report.run_card import run_card


def is_run(source: str) -> bool:
    """Whether a path is a run's folder, `data/<task>/seed<k>/rank<r>`."""
    try:
        return Path(source).is_dir() and Artifacts.from_folder(source).rank_dir.is_dir()
    except UserError:
        return False


def export_run(folder: Path | str, dest: str) -> Manifest:
    """Check a run and write its bundle, completely or not at all; returns what `bundle.json` says.

    Args:
        folder: of the run, `data/<task>/seed<k>/rank<r>`, whose pipeline has reached the evaluation.
        dest: a path or fsspec URL at which nothing is yet.

    Raises:
        UserError: something of the run is missing or damaged; the bundle would lack what its task needs; `dest` exists
            or cannot be written.
    """
    run = Artifacts.from_folder(folder)
    # the run may come from a stranger: in the proof below, too, it names no other code than the user's params file
    with trusted(run.task, run.root, str(run.rank_dir)):
        predictor = Predictor.from_artifacts(folder)
        where = run.evaluation / "config.json"
        params = parse_params(read_json(where), str(where))
        return export_parts(run, params, predictor, dest)


def export_parts(run: Artifacts, params: Params, predictor: Predictor, dest: str) -> Manifest:
    """The same for a run whose predictor is loaded, with or without an evaluation."""
    return write_whole(dest, MANIFEST, lambda to: _write(run, params, predictor, to))


def _write(run: Artifacts, params: Params, predictor: Predictor, dest: str) -> Manifest:
    """Made on this machine and loaded as a proof before anything goes to `dest`."""
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        manifest = _make(run, params, predictor, work)
        try:
            Predictor.from_pretrained(work, trust_remote_code=True, tuned=bool(params.tuning.updates))
        except UserError as error:
            reason = str(error).replace(str(work), "the bundle")
            raise UserError(
                f"the bundle of {run.rank_dir} would not load: {reason}. If the task is your own, name what `bind` "
                "needs in Task.travelling"
            ) from error
        fs, root = filesystem(dest)
        for name in (*manifest.files, CARD, MANIFEST):
            if name == MANIFEST:
                check_alone(dest, (*manifest.files, CARD))
            data = (work / name).read_bytes()
            put_file(fs, f"{root}/{name}", data)
            if fs.cat_file(f"{root}/{name}") != data:
                raise UserError(f"{dest}/{name} did not arrive whole; export again")
    return manifest


def _make(run: Artifacts, params: Params, predictor: Predictor, work: Path) -> Manifest:
    for part in PARTS:
        source = run.path(part.artifact)
        if part.artifact == "tuned" and not params.tuning.updates:  # the untuned model again
            continue
        made = check_files(run.need(source, maker(part.artifact)))
        for name in part.files:
            if name != MADE:
                _put(work / part.artifact / name, listed_bytes(source, name, made["files"]))
        kept = {name: sha for name, sha in made["files"].items() if name in part.files}
        write_manifest(work / part.artifact, {key: value for key, value in made.items() if key != "files"}, kept)
    for name, data in _travelling(run, params, predictor):
        _put(work / PREPARED / name, data)
    described = BundleParams(
        task=run.task,
        seed=run.seed,
        rank=run.rank,
        domain=params.domain,
        data=params.plain()["data"],
        model=params.base.model,
        precision=params.evaluate.precision,
        sampling=params.sampling,
        gain=predictor.gain,
        tuned=params.tuning.sampling(params.sampling) if params.tuning.updates else None,
    )
    write_json(work / BUNDLE_PARAMS, described.model_dump(mode="json", exclude_defaults=True))
    manifest = Manifest(
        format=FORMAT,
        version=VERSION,
        code_version=__version__,
        files={
            name: FileHash(bytes=(work / name).stat().st_size, sha256=sha) for name, sha in sha256_files(work).items()
        },
    )
    write_text(work / CARD, run_card(run, params, predictor, manifest))
    write_text(work / MANIFEST, json_text(manifest.model_dump()))
    return manifest


def _travelling(run: Artifacts, params: Params, predictor: Predictor) -> Iterator[tuple[str, bytes]]:
    """The files that the task needs, by their names in the bundle.

    A run's own params may name any file of this machine, so one outside of the prepared data travels only if the params
    of its data are those of the user's params file.
    """
    prepared = run.prepared.absolute()
    for name, source in predictor.task.travelling(prepared).items():
        place = Path(os.path.abspath(source))  # noqa: PTH100 - without `..`, but links stay
        if place.is_relative_to(prepared):
            files = read_manifest(prepared)["files"]
            yield name, listed_bytes(prepared, place.relative_to(prepared).as_posix(), files)
        elif not _is_users(params, run):
            raise UserError(
                f"{source} is outside of the run, and the params of the run's data are not those of "
                f"{params_path(run.task, run.root)}; if that file is to be published, write them there"
            )
        elif not source.is_file():
            raise UserError(f"{source} is missing, which the bundle needs")
        else:
            yield name, source.read_bytes()


def _is_users(params: Params, run: Artifacts) -> bool:
    """Whether the user's params file has the same `data`."""
    if not params_path(run.task, run.root).is_file():
        return False
    values = read_params(run.task, run.root)
    try:
        return isinstance(values, dict) and type(params.data).model_validate(values.get("data")) == params.data
    except ValidationError:
        return False


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
