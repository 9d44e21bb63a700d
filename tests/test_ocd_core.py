"""What `import ocd_core` gives, and what it costs."""

import os
import subprocess
import sys
from importlib.metadata import version

import pytest

import ocd_core
from ocd_core.calls.ocd import OCD
from ocd_core.predictor import Predictor
from ocd_core.store import OverfitStore


def in_a_new_process(code: str, **env: str) -> str:
    env = {**{k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}, **env}
    return subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout


def test_names_are_those_of_their_modules() -> None:
    assert ocd_core.Predictor is Predictor
    assert ocd_core.OverfitStore is OverfitStore
    assert ocd_core.__version__ == version("ocd-core")
    assert ocd_core.OCD is OCD
    assert set(ocd_core.__all__) == {"OCD", "OverfitStore", "Predictor", "__version__"}


def test_another_name_is_missing_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'ocd_core' has no attribute 'Nothing'"):
        _ = ocd_core.Nothing


def test_the_import_is_cheap_and_comes_before_torchs() -> None:
    code = "import os, sys, ocd_core; print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    assert in_a_new_process(code).split() == ["False", "PASSIVE"]
    assert in_a_new_process(code, OMP_WAIT_POLICY="ACTIVE").split() == ["False", "ACTIVE"]  # the user's own wins
