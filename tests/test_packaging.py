"""The wheel: it holds the whole library, and works in an environment of its own."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from ocd_core import __version__
from tests.support.repository import REPO, repository_files

pytest.importorskip("build")

PREDICT = """
import sys
import ocd_core
from ocd_core import Predictor
from safetensors.torch import load_file, save_file

print(ocd_core.__file__)
found = Predictor.from_pretrained("mnist5k-conv2").predict(load_file(sys.argv[1])["x"], draws=5)
save_file({"base": found.base_output, "first": found.draws[0].contiguous(), "all": found.output}, sys.argv[2])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source archive of what git tracks, with what is installed here."""
    folder = tmp_path_factory.mktemp("build")
    for name in repository_files():
        if name.startswith("ocd_core/") or name in ("pyproject.toml", "README.md", "LICENSE"):
            place = folder / "source" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, place)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "source"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    (found,) = (folder / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with nothing in it but the wheel.

    So that torch and the like need not be installed again, a .pth file lends it the packages of this environment. Lent
    folders come last in the path, and their own .pth files, of which one may lead to this repository, are not read:
    `ocd_core` can only be the wheel's.
    """
    folder = tmp_path_factory.mktemp("empty") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    found = folder / "bin" / "python"
    packages = Path(_in(found, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    lent = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (packages / "lent.pth").write_text("".join(f"{path}\n" for path in lent))
    install = [sys.executable, "-m", "pip", "--python", str(found), "install", "--quiet", "--no-deps", "--no-index"]
    # pip would find what is lent installed already, so the wheel comes first and is taken whatever else is there
    subprocess.run([*install, "--ignore-installed", str(wheel)], check=True)
    return found


def _in(python: Path, *arguments: str, cwd: Path | None = None) -> str:
    """Standard output of that interpreter, or of a script beside it, without this repository in its path."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(python), *arguments], env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_file_of_the_library_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    missing = [name for name in repository_files() if name.startswith("ocd_core/") and name not in names]
    assert not missing
    assert "ocd_core/py.typed" in names  # type checkers of users read the library's own types
    foreign = [name for name in names if not name.startswith(("ocd_core/", f"ocd_core-{__version__}.dist-info/"))]
    assert not foreign


def test_it_predicts_in_an_empty_environment(python: Path, mnist5k_prepared: Path, tmp_path: Path) -> None:
    """With the bundle that it carries, and the losses that the bundle's run wrote."""
    from ocd_core.config import load_params

    batch = load_params("mnist5k", REPO).build_task().open(mnist5k_prepared, "test").batch(torch.arange(20))
    save_file({"x": batch.inputs[0].contiguous()}, tmp_path / "x.safetensors")
    arguments = [str(tmp_path / name) for name in ("x.safetensors", "y.safetensors")]
    where = _in(python, "-c", PREDICT, *arguments, cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(python.parent.parent)
    found = load_file(tmp_path / "y.safetensors")
    expected = json.loads((REPO / "tests" / "bundles" / "mnist5k-conv2.json").read_text())
    keys = {"base": "base_cross_entropy", "first": "ocd_cross_entropy", "all": "ocd_ensemble_cross_entropy"}
    for name, key in keys.items():
        loss = F.cross_entropy(found[name].double(), batch.target, reduction="none")
        torch.testing.assert_close(loss, torch.tensor(expected[key][:20], dtype=torch.float64), rtol=1e-3, atol=1e-5)


def test_its_command_runs(python: Path, tmp_path: Path) -> None:
    assert _in(python.with_name("ocd"), "--version", cwd=tmp_path) == f"ocd {__version__}\n"
    written = _in(python.with_name("ocd"), "new", "mine", "--domain", "images", cwd=tmp_path)
    assert (tmp_path / written.strip()).is_file()  # its templates are data of the package
