"""Run a task's stages one after another, without DVC, and say which ones are done."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from typing import Any, Literal

from ocd_core.errors import UserError
from ocd_core.pipeline import STAGES
from ocd_core.provenance import Lineage, check_files, content, damaged_page
from ocd_core.running.following import Follow, with_bar
from ocd_core.samples import SPLITS
from ocd_core.timing import recorded

State = Literal["done", "stale", "missing"]


@dataclass(frozen=True)
class StageState:
    """One stage of a run. split: of the stage `overfit`, otherwise empty. why: not done; empty if it is."""

    stage: str
    split: str
    state: State
    why: str

    @property
    def name(self) -> str:
        """The stage, with its split."""
        return f"{self.stage} {self.split}".rstrip()


def stage_states(lineage: Lineage) -> list[StageState]:
    """What is done of a run, in the order of the stages; what is damaged counts as stale.

    A stage whose inputs will be made again may turn out to be current, if they come out the same; until then it is
    stale.
    """
    found: list[StageState] = []
    waiting: dict[str, str] = {}  # {artifact that is not current: its stage}
    for stage, described in STAGES.items():
        for split, why in _states_of(lineage, stage):
            artifact = f"{described.makes}/{split}" if split else described.makes
            exists = lineage.artifacts.path(artifact).exists()
            before = next((waiting[name] for name in described.inputs if name in waiting), None)
            if stage == "report" and waiting:
                before = next(iter(waiting.values()))
            if before is not None and (why is None or not exists):
                why = f"{before} comes first"
            if why is not None:
                waiting[artifact] = f"{stage} {split}".rstrip()
            found.append(
                StageState(stage, split, "done" if why is None else "stale" if exists else "missing", why or "")
            )
    return found


def _report_outdated(lineage: Lineage) -> str | None:
    """Why a report must be made again: it is damaged, or does not show the evaluations that its manifest names.

    Times of files say nothing, clocks and DVC set them.
    """
    run = lineage.artifacts
    if not (run.report / "index.html").is_file():
        return "it is missing"
    try:
        shown = check_files(run.report, stage="report")["inputs"]
    except UserError as error:
        return str(error)
    if shown.get(run.name_in_task("evaluation")) != content(run, "evaluation"):
        return "it does not show the present evaluation"
    return damaged_page(run.report)


def run_stages(
    lineage: Lineage,
    stages: Sequence[str] = tuple(STAGES),
    device: str = "cpu",
    follow: Follow = with_bar,
    splits: Sequence[Any] = SPLITS,
    told: Callable[[str, str | None], None] = lambda _stage, _why: None,
) -> list[str]:
    """Run those of some stages that are not current, in the order of the pipeline, and return their names.

    Args:
        device: cpu or cuda, for the stages that train, draw or evaluate.
        follow: how trainings show their progress.
        splits: of which the stage `overfit` makes stores.
        told: called with each stage before it runs, and why it must; None: it is current, and does not run.

    Raises:
        UserError: a stage cannot run; those before it are done.
    """
    ran = []
    for stage in (name for name in STAGES if name in stages):
        todo = [state for state in _states_of(lineage, stage) if state[1] is not None and state[0] in ("", *splits)]
        told(stage, todo[0][1] if todo else None)
        if todo:
            run_stage(lineage, stage, device, follow, [split for split, _ in todo if split])
            ran.append(stage)
    return ran


def _states_of(lineage: Lineage, stage: str) -> list[tuple[str, str | None]]:
    """(split, why it must run or None) of one stage, whose inputs are as they are now."""
    if stage == "report":
        return [("", _report_outdated(lineage))]
    made = STAGES[stage].makes
    parts = [(split, f"{made}/{split}") for split in SPLITS] if stage == "overfit" else [("", made)]
    return [(split, lineage.outdated(name)) for split, name in parts]


def run_stage(
    lineage: Lineage, stage: str, device: str = "cpu", follow: Follow = with_bar, splits: Sequence[Any] = SPLITS
) -> None:
    """Run one stage whether it is current or not, and record how long it took."""
    if stage not in STAGES:
        raise UserError(f"unknown stage {stage!r}; known are {', '.join(STAGES)}")
    run = import_module(f"ocd_core.running.{stage}").run
    options: dict[str, Any] = {"device": device, "follow": follow, "splits": splits}
    taken = {name: value for name, value in options.items() if name in signature(run).parameters}
    if stage in ("overfit", "report"):  # overfit records each split itself
        run(lineage, **taken)
    else:
        recorded(lambda: run(lineage, **taken), lineage.artifacts, stage, taken.get("device", "cpu"))
