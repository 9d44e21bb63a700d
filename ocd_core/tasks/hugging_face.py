"""Tables from the Hugging Face hub or from a local folder, through `datasets`; for any domain.

Files in a folder are Parquet, or JSON lines or CSV in UTF-8 if their names end so.
"""

import codecs
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.hub import local_folder
from ocd_core.tasks.data_files import Patterns, local_files, refuse_repeated

Names = dict[str, list[str]]
_PARQUET = "parquet"
_FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv"}  # every other ending: Parquet
_SPECIAL = {*"[]{}*?!:"}
_BLOCK = 1 << 20  # bytes


@dataclass(frozen=True)
class Origin:
    """The source of tables.

    files: those of each part in the order in which they are read, relative to the data set; empty for data without
    files. licence: as stated in the data set's card, or None. left_out: columns that only say which row is which.
    """

    files: Names
    licence: str | None
    left_out: list[str] = field(default_factory=list)


@contextlib.contextmanager
def opened(path: str, patterns: Patterns) -> Iterator[tuple[Any, Origin]]:
    """The parts of a data set, as a mapping from part to `datasets.Dataset`, valid inside the context.

    The rows of a part are those of its files, in the order of the patterns; files of one pattern are sorted by path.

    Args:
        path: a hub id such as `ylecun/mnist`, or a folder. A folder needs no network and leaves no cache behind; a hub
            id uses the user's own Hugging Face cache and settings (`HF_HOME`, `HF_TOKEN`).
        patterns: part -> file names or patterns inside `path`.

    Raises:
        UserError: a folder, data set or file does not exist or is not readable, or a file is named twice.
    """
    folder = local_folder(path, "data.path")
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_datasets())
        if folder is not None:
            cache = stack.enter_context(tempfile.TemporaryDirectory())
            tables, files = _load_folder(folder, patterns, cache)
            card: str | None = str(folder / "README.md") if (folder / "README.md").is_file() else None
        else:
            tables, files = _load_from_hub(path, patterns)
            card = path
        yield tables, Origin(files, None if card is None else stated_licence(card))


def _load_folder(folder: Path, patterns: Patterns, cache: str) -> tuple[Any, Names]:
    """The library receives the files themselves, so it has nothing to match or to leave out."""
    from datasets import load_dataset
    from datasets.data_files import DataFilesDict, DataFilesList

    found = local_files(folder, patterns)
    kind = _format(found)
    check = _check_parquet if kind == _PARQUET else _check_text
    for part, files in found.items():
        check(part, files, patterns[part], folder)
    absolute = {part: [_plain_name(file.absolute(), Path(cache)) for file in files] for part, files in found.items()}
    data_files = DataFilesDict({part: DataFilesList(files, []) for part, files in absolute.items()})
    # the library would read a text such as "NA" or "null" as missing
    options: dict[str, Any] = {"keep_default_na": False} if kind == "csv" else {}
    with _named(str(folder)):
        loaded = load_dataset(kind, data_files=data_files, cache_dir=cache, **options)
    return loaded, {part: [file.relative_to(folder).as_posix() for file in files] for part, files in found.items()}


def _plain_name(file: Path, cache: Path) -> str:
    """A name of a file that the library takes for nothing else: not for a pattern, and not for a chain of URLs."""
    if not _SPECIAL & {*str(file)}:
        return str(file)
    links = cache / "links"
    links.mkdir(exist_ok=True)
    link = links / f"{len(list(links.iterdir())):06}{file.suffix}"
    link.symlink_to(file)
    return str(link)


def _check_parquet(part: str, files: Sequence[Path], patterns: Sequence[str], folder: Path) -> None:
    """Name the file that is damaged or the part that is empty; the library's own errors do not."""
    import pyarrow
    from pyarrow.parquet import read_metadata

    rows = 0
    for file in files:
        try:
            rows += read_metadata(file).num_rows
        except (pyarrow.ArrowException, OSError) as error:
            if is_shortage(error):
                raise
            raise UserError(f"data.{part}_files: {file} is not a readable Parquet file") from error
    _need_rows(rows > 0, part, patterns, folder)


def _check_text(part: str, files: Sequence[Path], patterns: Sequence[str], folder: Path) -> None:
    """Name the file that is not UTF-8 or the part that is empty."""
    something = False
    for file in files:
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            with file.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    something = bool(decoder.decode(block).strip()) or something
            decoder.decode(b"", final=True)
        except (UnicodeDecodeError, OSError) as error:
            if is_shortage(error):
                raise
            raise UserError(f"data.{part}_files: {file} is not readable as text in UTF-8: {error}") from error
    _need_rows(something, part, patterns, folder)


def _need_rows(there: bool, part: str, patterns: Sequence[str], folder: Path) -> None:
    if not there:
        raise UserError(f"data.{part}_files: {', '.join(patterns)} in {folder} holds no rows")


def _format(found: dict[str, list[Path]]) -> str:
    """The name that the library has for the files' format."""
    named = {_FORMATS.get(file.suffix.lower(), _PARQUET): file.name for files in found.values() for file in files}
    if len(named) > 1:
        raise UserError(
            f"data.path: {' and '.join(sorted(named.values()))} have different formats; use one for all parts"
        )
    return next(iter(named))


def _load_from_hub(path: str, patterns: Patterns) -> tuple[Any, Names]:
    """The library resolves the patterns on the hub; the files are checked before anything is downloaded."""
    from datasets import load_dataset_builder

    with _named(path):
        builder = load_dataset_builder(path, data_files={part: list(names) for part, names in patterns.items()})
    # 'hf://datasets/<id>@<commit>/<file>'
    names = {
        part: [url.split("@", 1)[1].split("/", 1)[1] for url in urls]
        for part, urls in builder.config.data_files.items()
    }
    refuse_repeated({part: [(name, name) for name in names[part]] for part in names}, patterns)
    with _named(path):
        builder.download_and_prepare()
        return builder.as_dataset(), names


@contextlib.contextmanager
def _named(path: str) -> Iterator[None]:
    """Turn errors of the library into one line."""
    try:
        yield
    except Exception as error:  # it raises dozens of kinds, from pyarrow's to the network's
        for origin in (error.__cause__, error):
            if origin is not None and is_shortage(origin):
                raise origin from None
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise UserError(
            f"data.path: cannot read {path!r}, as a folder or from the Hugging Face hub: "
            f"{type(error).__name__}: {reason}"
        ) from error


def stated_licence(card: str) -> str | None:
    """The licence stated in a data set's card (a README.md, or that of a hub id), or None."""
    from huggingface_hub import DatasetCard

    try:
        stated = DatasetCard.load(card).data.get("license")
    except Exception as error:  # there is no card, or it is not readable
        if is_shortage(error):
            raise
        return None
    return ", ".join(map(str, stated)) if isinstance(stated, list) else stated and str(stated)


def integer_labels(table: Any, column: str, where: str) -> Tensor:
    """A column of a part as labels, int64 (N,).

    Raises:
        UserError: a label is missing, or the column holds something else; the message begins with `where`.
    """
    values = table.data.column(column)
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise UserError(f"{where}: the label in row {row} is missing ({values.null_count} such rows)")
    array = values.to_numpy()
    if array.dtype.kind not in "iu":
        raise UserError(f"{where}: column {column!r} holds {values.type}, not integer labels")
    return torch.from_numpy(array.astype(np.int64))


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """Turn off the library's own progress bars and log lines; ours replace them."""
    import datasets

    shown = datasets.utils.are_progress_bars_disabled()
    level = datasets.utils.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.utils.logging.set_verbosity(level)
        if not shown:
            datasets.enable_progress_bars()
