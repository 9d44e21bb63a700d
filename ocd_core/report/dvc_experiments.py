"""Files of evaluated runs in DVC experiments, without changing the workspace.

An experiment is a commit of git that no branch holds, below `refs/exps`. Its dvc.lock says which runs it has; DVC gets
their files from its cache or a remote. DVC is run as a program, because the library does not depend on it.
"""

import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ocd_core.errors import UserError
from ocd_core.evaluation.table import checked_table

_TABLE = "evaluation/table.json"


@dataclass(frozen=True)
class Experiment:
    """An experiment, or any other commit. name: as the user gave it. commit: its sha."""

    name: str
    commit: str

    @classmethod
    def named(cls, name: str) -> "Experiment":
        """An experiment by its name, or a branch, tag or commit, of the repository around the current folder.

        Raises:
            UserError: there is none of this name, or several experiments have it.
        """
        refs = _git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").splitlines()
        found = {ref.split(" ")[0] for ref in refs if ref.rpartition("/")[2] == name}
        if len(found) > 1:
            raise UserError(
                f"there are {len(found)} experiments named {name!r}; give one as its commit (dvc exp show --sha)"
            )
        if found:
            return cls(name, found.pop())
        try:
            return cls(name, _git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip())
        except UserError as error:
            raise UserError(
                f"{name} is neither a run's folder nor a DVC experiment here ('dvc exp list' shows them)"
            ) from error

    def runs(self) -> list[str]:
        """The folders of its evaluated runs, data/<task>/seed<k>/rank<r>, by its dvc.lock."""
        from ruamel.yaml import YAML

        try:
            text = _git("show", f"{self.commit}:./dvc.lock")
        except UserError as error:
            raise UserError(
                f"experiment {self.name} has no dvc.lock in this folder, so nothing has run in it"
            ) from error
        stages = YAML(typ="safe", pure=True).load(io.StringIO(text)).get("stages") or {}
        paths = [out["path"] for stage in stages.values() for out in stage.get("outs", [])]
        return [str(PurePosixPath(path).parents[1]) for path in paths if path.endswith(f"/{_TABLE}")]

    def read_run(self, folder: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The table and the params of one of its runs.

        Raises:
            UserError: it has no such run, or DVC cannot get its files.
        """
        runs = self.runs()
        if folder not in runs:
            known = ", ".join(runs) or "none"
            raise UserError(f"experiment {self.name} has no evaluated run {folder}; it has {known}")
        table, config = (self._read(f"{folder}/evaluation/{name}") for name in ("table.json", "config.json"))
        return checked_table(table, f"table.json of experiment {self.name}"), config

    def _read(self, path: str) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as place:
            copy = Path(place) / "file.json"
            command = [
                sys.executable,
                "-m",
                "dvc",
                "get",
                "--quiet",
                ".",
                path,
                "--rev",
                self.commit,
                "--out",
                str(copy),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not copy.is_file():
                reason = " ".join(done.stderr.split())[-200:]
                raise UserError(
                    f"DVC cannot get {path} of experiment {self.name}: {reason}. Its files may be on another machine: "
                    "try 'dvc exp push' there and 'dvc exp pull' here"
                )
            found: dict[str, Any] = json.loads(copy.read_text(encoding="utf-8"))
            return found


def chosen_run(experiment: Experiment, folders: Sequence[str]) -> str:
    """The run that a bare name of an experiment stands for: the same as the first folder beside it, or its only run.

    Raises:
        UserError: it has several runs, and there is no folder to go by.
    """
    if folders:
        parts = Path(folders[0]).resolve().parts
        return str(PurePosixPath("data", *parts[-3:]))
    runs = experiment.runs()
    if len(runs) != 1:
        raise UserError(
            f"experiment {experiment.name} has {len(runs)} evaluated runs; name one, such as "
            f"{runs[0] if runs else 'data/mnist5k/seed0/rank1'}@{experiment.name}"
        )
    return runs[0]


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError("git is not installed, which experiments need; give folders of runs") from error
    if done.returncode:
        raise UserError(f"git {arguments[0]}: {' '.join(done.stderr.split())[:200] or 'nothing found'}")
    return done.stdout
