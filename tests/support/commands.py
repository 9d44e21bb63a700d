"""The `ocd` command in this process, and a run for it; fixtures of tests/conftest.py."""

import importlib
import os
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ocd_core.cli import main
from tests.support.toy import PLANE as PARAMS
from tests.support.toy import STAGES


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory) -> Path:
    """A folder in which every stage but the report has run on the toy task; tests must not change it."""
    root = tmp_path_factory.mktemp("toy")
    (root / "params").mkdir()
    with (root / "params" / "toy.yaml").open("w") as file:
        YAML().dump(PARAMS, file)
    (root / "params" / "broken.yaml").write_text("domain: nothing\n")
    before = Path.cwd()
    os.chdir(root)
    try:
        for stage in STAGES[:-1]:
            importlib.import_module(f"stages.{stage}").main(task="toy")
    finally:
        os.chdir(before)
    return root


class Done:
    def __init__(self, status, output) -> None:
        self.status, self.out, self.err = status, output.out, output.err

    def refused(self, *words: str) -> None:
        """One line on standard error that holds these words."""
        assert self.status == 1
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1, self.err
        for word in words:
            assert word in self.err


@pytest.fixture
def ocd(monkeypatch, capsys):
    """Run `ocd` in this process, as its entry point does."""

    def run(*arguments) -> Done:
        monkeypatch.setattr(sys, "argv", ["ocd", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code or 0, capsys.readouterr())

    return run


@pytest.fixture
def in_run(toy_run, monkeypatch) -> Path:
    monkeypatch.chdir(toy_run)
    return toy_run / "data/toy/seed0/rank1/overfit/test.zarr"
