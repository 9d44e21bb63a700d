"""The paths of a run's artifacts, and writing them: an artifact is complete or absent."""

import csv
import io
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocd_core.errors import UserError
from ocd_core.files import PARTIAL, flush, locked, make_folder, read_regular, remove, replace_file, utf8
from ocd_core.params_files import check_task_name

_OF_RUN = re.compile(r"seed(?P<seed>\d+)/rank(?P<rank>\d+)/(?P<name>[^/]+)")


@dataclass(frozen=True)
class Artifacts:
    """Paths of one run: a task, a seed and the rank of the layer that moves.

    Raises:
        UserError: a negative seed, a rank below 1, or a task whose name would lead elsewhere.
    """

    task: str
    seed: int = 0
    rank: int = 1
    root: Path = Path()

    def __post_init__(self) -> None:
        check_task_name(self.task)
        if self.seed < 0 or self.rank < 1:
            raise UserError(f"seed must be at least 0 and rank at least 1 (found seed {self.seed}, rank {self.rank})")

    @classmethod
    def from_folder(cls, folder: Path | str) -> "Artifacts":
        """The run whose rank folder this is: `…/data/<task>/seed<k>/rank<r>`."""
        path = Path(folder).resolve()
        seed, rank = path.parent.name, path.name
        if not (seed.removeprefix("seed").isdigit() and rank.removeprefix("rank").isdigit()):
            raise UserError(f"{folder} is not a run's folder; give data/<task>/seed<k>/rank<r>")
        return cls(
            path.parents[1].name, int(seed.removeprefix("seed")), int(rank.removeprefix("rank")), path.parents[3]
        )

    @property
    def task_dir(self) -> Path:
        """Everything of the task."""
        return self.root / "data" / self.task

    @property
    def prepared(self) -> Path:
        """The prepared data, the same for all seeds."""
        return self.task_dir / "prepared"

    def code(self, stage: str) -> Path:
        """The hashes of the source files that belong to a stage."""
        return self.task_dir / "code" / f"{stage}.json"

    @property
    def seed_dir(self) -> Path:
        """Everything of the seed."""
        return self.task_dir / f"seed{self.seed}"

    @property
    def base(self) -> Path:
        """The base network."""
        return self.seed_dir / "base"

    @property
    def layers(self) -> Path:
        """The ranking of the layers and the one used at each rank."""
        return self.seed_dir / "layers"

    @property
    def diagnosis(self) -> Path:
        """Whether OCD can help, from probes of the layers."""
        return self.seed_dir / "diagnosis"

    @property
    def rank_dir(self) -> Path:
        """Everything of the layer that moves."""
        return self.seed_dir / f"rank{self.rank}"

    def overfit(self, split: str) -> Path:
        """The overfit store of a split."""
        return self.rank_dir / "overfit" / f"{split}.zarr"

    @property
    def diffusion(self) -> Path:
        """The conditional diffusion model."""
        return self.rank_dir / "diffusion"

    @property
    def scale(self) -> Path:
        """The scale network."""
        return self.rank_dir / "scale"

    @property
    def tuned(self) -> Path:
        """The diffusion model after its further training on the task's loss."""
        return self.rank_dir / "tuned"

    @property
    def controls(self) -> Path:
        """The controls that could explain a gain without diffusion."""
        return self.rank_dir / "controls"

    @property
    def evaluation(self) -> Path:
        """Metrics on the test split."""
        return self.rank_dir / "evaluation"

    @property
    def pictures(self) -> Path:
        """The domain's own figures, if it has any."""
        return self.rank_dir / "pictures"

    @property
    def report(self) -> Path:
        """The report for human readers."""
        return self.root / "reports" / self.task

    @property
    def work(self) -> Path:
        """Work directories of stages that resume."""
        return self.root / "data" / ".work"

    def name_in_task(self, name: str) -> str:
        """The name of this run's artifact for any run of the task: `seed1/rank2/evaluation`."""
        return f"seed{self.seed}/rank{self.rank}/{name}"

    def path(self, name: str) -> Path:
        """An artifact by its name in `ocd_core.pipeline`, for example `base` or `overfit/train`.

        `seed1/rank2/evaluation` is that of another run of the task, see `name_in_task`.
        """
        if other := _OF_RUN.fullmatch(name):
            return Artifacts(self.task, int(other["seed"]), int(other["rank"]), self.root).path(other["name"])
        kind, _, split = name.partition("/")
        if kind == "overfit" and split in ("train", "val", "test"):
            return self.overfit(split)
        if split or not isinstance(getattr(Artifacts, kind, None), property):
            raise UserError(f"a run has no artifact {name!r}; what names it is damaged or of another version")
        found: Path = getattr(self, kind)
        return found

    def seconds(self, stage: str, split: str = "") -> Path:
        """How long a stage took (see `ocd_core.timing`); split: of the stage `overfit`."""
        parts = [stage, *(f"{name}{value}" for name, value in self._of(stage).items()), *filter(None, [split])]
        return self.task_dir / "seconds" / f"{'-'.join(parts)}.json"

    def command(self, stage: str) -> str:
        """The command that runs a stage of this run by hand."""
        options = {"task": self.task, **self._of(stage)}
        return " ".join([f"python -m stages.{stage}", *(f"--{name} {value}" for name, value in options.items())])

    def _of(self, stage: str) -> dict[str, int]:
        """What a stage of the task runs for: a seed, or a seed and a rank, or neither."""
        if stage in ("code", "prepare", "report"):
            return {}
        if stage in ("train_base", "score_layers", "diagnose"):
            return {"seed": self.seed}
        return {"seed": self.seed, "rank": self.rank}

    def need(self, path: Path, stage: str) -> Path:
        """`path` if it exists, else an error that names the stage that makes it."""
        if not path.exists():
            raise UserError(f"{path} is missing; run 'dvc repro' or '{self.command(stage)}'")
        return path


def is_main_process() -> bool:
    """Whether this is the process that writes artifacts, of those that `torchrun` started (or the only one)."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def replaced_folder(dest: Path, *, only_new: bool = False) -> Iterator[Path]:
    """A new folder to write into; it replaces `dest` only if the block ends without an error.

    `dest` is at any time the old folder or the new one, except between two renames, when it is absent; if the process
    is killed just then, the next call puts the old one back. A lock, which ends with the process, keeps others away;
    only folders that a killed process of this function left are swept.

    only_new: never replace an existing folder.

    Raises:
        UserError: another process is writing `dest`; or, with `only_new`, it exists when the block ends.
    """
    make_folder(dest.parent)
    with locked(dest.with_name(f".{dest.name}.lock"), str(dest)):
        old = dest.with_name(f".{dest.name}.ocd-replaced")
        _recover(dest, old)
        work = Path(tempfile.mkdtemp(prefix=f".{dest.name}.ocd-", suffix=PARTIAL, dir=dest.parent))
        work.chmod(0o755)
        try:
            yield work
            if os.path.lexists(dest):
                if only_new:
                    raise UserError(f"{dest} was created in the meantime; choose another path or remove it")
                dest.rename(old)
            work.rename(dest)
            flush(dest.parent)
            remove(old)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _recover(dest: Path, old: Path) -> None:
    """Clean up after a process that was killed in `replaced_folder`; the caller holds the lock."""
    if os.path.lexists(old):
        if os.path.lexists(dest):
            remove(old)
        else:
            old.rename(dest)
    left = re.compile(rf"\.{re.escape(dest.name)}\.ocd-[a-z0-9_]{{8}}{re.escape(PARTIAL)}")
    for path in dest.parent.iterdir():
        if left.fullmatch(path.name):
            remove(path)


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, as UTF-8 (see `ocd_core.files.utf8`)."""
    data = utf8(text)
    replace_file(path, lambda partial: partial.write_bytes(data))


def json_text(values: Any) -> str:
    """Plain values as the text of a JSON file, without NaN."""
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, values: Any) -> None:
    """Write plain values as JSON, atomically, without NaN."""
    write_text(path, json_text(values))


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        UserError: the file is missing or is not JSON, or something else has its name.
    """
    try:
        return json.loads(read_regular(path).decode())
    except UserError as error:
        raise UserError(f"{error} and run 'dvc repro'") from error
    except NotADirectoryError as error:
        raise UserError(
            f"{path} is missing, because {path.parent} is no folder; delete it and run 'dvc repro'"
        ) from error
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run the stage that makes it ('dvc repro')") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); delete it and run 'dvc repro'") from error


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of plain values as a TSV, which `dvc plots` reads; a missing or undefined value is left empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def cell(value: Any) -> str:
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        return repr(value) if isinstance(value, float) else str(value)

    text = io.StringIO()  # quotes only what needs it: a layer's name may hold a tab, a line break or a quote
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerows([columns, *([cell(row.get(c)) for c in columns] for row in rows)])
    write_text(path, text.getvalue())


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows that `write_table` wrote, as text; a missing value is empty.

    Raises:
        UserError: the file is missing or is no table.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing; run 'dvc repro'")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, delimiter="\t"))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is damaged: it is no table ({error}); delete it and run 'dvc repro'") from error
