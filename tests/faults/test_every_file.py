"""Every file that any reader reads, damaged in every way: one line names it and the remedy, and nothing is accepted."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import cycle
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.files import remove
from ocd_core.pipeline import STAGES, maker
from ocd_core.predictor import Predictor
from ocd_core.provenance import MANIFEST
from ocd_core.report.comparison import read_runs
from ocd_core.report.run_export import export_run
from ocd_core.report.run_report import write_report
from ocd_core.report.store_export import export_store
from ocd_core.store import OverfitStore
from ocd_core.verify import NAMES, verify
from tests.faults.damages import DAMAGES, Damage, swapped
from tests.faults.support import copy_run

RUN = Artifacts("toy")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, plane_run: Path) -> Iterator[Artifacts]:
    """A copy of the toy run, as the current folder; tests put back what they damage."""
    root = copy_run(plane_run, tmp_path_factory.mktemp("run") / "copy")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        yield RUN


def files_of(name: str) -> list[Path]:
    return sorted(path for path in RUN.path(name).rglob("*") if path.is_file())


@contextmanager
def damaged(damage: Damage, path: Path) -> Iterator[None]:
    """The file damaged, and put back afterwards; another file of the folder, of other content, serves for swaps."""
    data = path.read_bytes()
    near = (p for folder in (path.parent, path.parents[1]) for p in sorted(folder.rglob("*")))
    other = next(p for p in near if p.is_file() and p.read_bytes() != data)
    kept = other.read_bytes()
    damage(path, other)
    try:
        yield
    finally:
        for file, content in ((path, data), (other, kept)):
            remove(file)
            file.write_bytes(content)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("overfit/val", "overfit/test")])
def test_verify_names_the_file_and_the_command(run: Artifacts, name: str) -> None:
    folder = run.path(name)
    assert verify(str(folder)) == []
    for path in files_of(name):
        for damage in DAMAGES:
            with damaged(damage, path):
                found = verify(str(folder))
            case = f"{path} {damage.__name__}"
            assert found, case
            part = path.parent.name if name.startswith("overfit/") else path.name
            # one of two files that changed places is named
            assert part in " ".join(problem.what for problem in found) or damage is swapped, f"{case}: {found}"
            assert all(f"python -m stages.{maker(name)} --task toy" in problem.remedy for problem in found), case
            assert all("\n" not in str(problem) for problem in found)
    assert verify(str(folder)) == []


def test_verify_knows_every_artifact_that_stages_make(run: Artifacts) -> None:
    """What lies in the run's folders is the proof: a stage whose artifact is not listed leaves a manifest elsewhere."""
    made = {path.parent for path in run.task_dir.rglob(MANIFEST)}
    made |= {path.parent for path in run.task_dir.rglob("*.zarr/zarr.json")}
    assert made == {run.path(name) for name in NAMES}


def stage(name: str) -> Callable[[], object]:
    return lambda: import_module(f"stages.{name}").main("toy")


READERS: dict[str, tuple[tuple[str, ...], Callable[[], object]]] = {
    **{name: (STAGES[name].inputs, stage(name)) for name in STAGES if STAGES[name].inputs and name != "illustrate"},
    "Predictor": (
        ("prepared", "evaluation", "diffusion", "scale", "base", "layers"),
        lambda: Predictor.from_artifacts(RUN.rank_dir),
    ),
    "report": (
        ("prepared", "base", "layers", "diagnosis", "diffusion", "scale", "controls", "evaluation", "pictures"),
        lambda: write_report("toy"),
    ),
    "compare": (("evaluation",), lambda: read_runs([str(RUN.rank_dir), "copy/data/toy/seed0/rank1"])),
    "export": (
        ("prepared", "base", "layers", "diffusion", "scale", "evaluation"),
        lambda: export_run(RUN.rank_dir, "bundle"),
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_no_reader_accepts_a_damaged_file(run: Artifacts, reader: str) -> None:
    """Each file in one way, another way each time."""
    inputs, read = READERS[reader]
    damages = cycle(DAMAGES)
    if reader == "compare":
        shutil.copytree("data", "copy/data", dirs_exist_ok=True)
    for name in inputs:
        if name.startswith("overfit/"):
            continue
        for path in files_of(name):
            damage = next(damages)
            with damaged(damage, path), pytest.raises(UserError) as refused:
                read()
            text = str(refused.value)
            assert path.name in text or damage is swapped, f"{path} {damage.__name__}: {text}"
            assert "run " in text, text
            assert "\n" not in text
    shutil.rmtree("copy", ignore_errors=True)


def read_whole(store: Path) -> None:
    opened = OverfitStore(store)
    for name in opened.schema.arrays():
        opened.read(name)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_no_reader_accepts_a_damaged_store(run: Artifacts, damage: Damage) -> None:
    store = run.overfit("train")
    for path in files_of("overfit/train"):
        if path.name == "zarr.json" and path.parent != store:
            continue  # readers take the group's copy of it; `verify` compares the two
        with damaged(damage, path), pytest.raises(UserError) as refused:
            read_whole(store)
        assert "\n" not in str(refused.value)
        with damaged(damage, path), pytest.raises(UserError):
            export_store(store, "exported")
        assert not Path("exported").exists()


def test_stores_in_each_others_place(run: Artifacts) -> None:
    train, test = run.overfit("train"), run.overfit("test")
    exchange(train, test)
    with pytest.raises(UserError, match=r"train.zarr is the store of another run: its split is 'test'; run "):
        stage("train_diffusion")()
    assert "its split is 'train'" in " ".join(problem.what for problem in verify(str(run.rank_dir)))
    exchange(train, test)
    assert verify(str(run.rank_dir)) == []


def exchange(first: Path, second: Path) -> None:
    first.rename("aside")
    second.rename(first)
    Path("aside").rename(second)
