"""The stages of the pipeline, run for objects that are given in Python."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO

from ocd_core.artifacts import Artifacts, read_json, write_json, write_text
from ocd_core.calls.identity import function_digest
from ocd_core.calls.task import DOMAIN
from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.files import read_regular, sha256_file
from ocd_core.params_files import params_path
from ocd_core.provenance import Lineage
from ocd_core.running.runner import run_stage, run_stages
from ocd_core.samples import SplitName
from ocd_core.tasks.base import Metric

_METRICS = "evaluation_metrics.json"  # with which metrics the table beside it was made


@dataclass(frozen=True)
class Stages:
    """Those of one run; device: cpu or cuda."""

    artifacts: Artifacts
    device: str

    def run(self, params: Params, stages: Sequence[str], splits: Sequence[SplitName] = ("train", "val")) -> None:
        """Run the stages that are not current; the params file is written first.

        Raises:
            UserError: see `write_params`, and the stages.
        """
        write_params(params, self.artifacts)
        run_stages(Lineage(self.artifacts, params), stages, self.device, splits=splits)

    def evaluate(self, params: Params, metrics: Sequence[Metric]) -> None:
        """Overfit the test rows, fit the controls, and measure if that is not current or had other metrics.

        The metrics are no part of the fingerprint of what was given, because nothing else depends on them.

        Raises:
            UserError: see the stages.
        """
        from ocd_core.running import overfit

        lineage = Lineage(self.artifacts, params)
        # whether the store is of these rows, only its stage can say
        overfit.run(lineage, ("test",), self.device)
        self.run(params, ("train_controls",))
        table, beside = self.artifacts.evaluation / "table.json", self.artifacts.rank_dir / _METRICS
        digest = function_digest(metrics)

        def of_table() -> dict[str, str]:
            return {"metrics": digest, "table": sha256_file(table)}

        if not (table.is_file() and beside.is_file() and read_json(beside) == of_table()):
            run_stage(lineage, "evaluate", self.device)
            write_json(beside, of_table())
        elif run_stages(lineage, ("evaluate",), self.device):
            write_json(beside, of_table())


@contextmanager
def stdout_apart() -> Iterator[None]:
    """What stages print is for a terminal; here it goes where the progress bars are."""
    with redirect_stdout(sys.stderr):
        yield


def write_params(params: Params, artifacts: Artifacts) -> None:
    """The params as a file, with which `ocd` commands work on the run (`--root`).

    Raises:
        UserError: the name belongs to a params file that no `OCD` wrote.
    """
    from ruamel.yaml import YAML

    path, text = params_path(artifacts.task, artifacts.root), StringIO()
    YAML().dump(params.plain(), text)
    if path.exists() or path.is_symlink():
        there = read_regular(path).decode(errors="replace")
        # a part of it: an earlier version was killed while it wrote
        if f"domain: {DOMAIN}" not in there.splitlines() and not text.getvalue().startswith(there):
            raise UserError(f"{path} is the params file of another task; give another out=..., or move the file")
    write_text(path, text.getvalue())
