"""Which of a task's runs belong in one table: those that differ in their seed and rank alone.

A run of an earlier try may still be there (a seed that `params.yaml` no longer names, a stage that was started with
other params). Its numbers and those of the present runs have no common mean.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.params_files import flat
from ocd_core.pipeline import maker
from ocd_core.provenance import MANIFEST, content, read_manifest
from ocd_core.stage_code import stage_digest

Made = dict[str, Any]  # what a run was made from: params by dotted keys, codes by artifact, the prepared data
_MADE_BY_CODE = ("base", "layers", "diffusion", "scale", "tuned", "controls", "evaluation")


def made_from(run: Artifacts) -> Made:
    """What an evaluated run was made from, apart from its seed and rank."""
    config = run.evaluation / "config.json"
    found: Made = dict(flat(read_json(config))) if config.is_file() else {}
    for name in _MADE_BY_CODE:
        folder = run.path(name)
        if (folder / MANIFEST).is_file():
            found[f"code of {name}"] = read_manifest(folder)["code"]
    found["prepared data"] = read_manifest(run.evaluation)["inputs"].get("prepared")
    return found


def alike(runs: Sequence[Artifacts]) -> tuple[list[Artifacts], list[str]]:
    """The runs that agree with the present params and data, then code, or else with most; and a sentence about each
    other one.

    Args:
        runs: of one task, at least one.
    """
    made = [made_from(run) for run in runs]
    present = _present(runs[0])

    def rank(each: Made) -> tuple[int, ...]:
        return (*(sum(each.get(key) == value for key, value in part.items()) for part in present), made.count(each))

    best = max(made, key=rank)  # the first of them
    pairs = list(zip(runs, made, strict=True))
    kept = [run for run, each in pairs if each == best]
    return kept, [_why(run, each, best) for run, each in pairs if each != best]


def _present(run: Artifacts) -> tuple[Made, Made]:
    """The present params with the prepared data, and the present code."""
    data = content(run, "prepared")
    found: Made = {} if data is None else {"prepared data": data}
    try:
        params = load_params(run.task, run.root)
    except UserError:  # the params file is gone, or is being edited
        return found, {}
    found |= flat(params.effective("evaluation"))
    try:
        values = params.plain()
        return found, {f"code of {name}": stage_digest(maker(name), values) for name in _MADE_BY_CODE}
    except UserError:  # a file of code is gone, or is being edited
        return found, {}


def _why(run: Artifacts, made: Made, kept: Made) -> str:
    names = [name for name in {**kept, **made} if made.get(name) != kept.get(name)]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    rank = f" --rank {run.rank}" if run.rank > 1 else ""
    return (
        f"Seed {run.seed}, rank {run.rank} is left out: it was made with another {', '.join(names[:3])}{more}; run its "
        f"stages again ('ocd run {run.task} --seed {run.seed}{rank}'), or delete {run.evaluation}."
    )


def tables_alike(tables: Sequence[dict[str, Any]], root: Path | str) -> list[dict[str, Any]]:
    """The tables of such runs; the first one's remarks name the others."""
    by_run = {Artifacts(table["task"], table["seed"], table["rank"], Path(root)): table for table in tables}
    kept, left_out = alike(list(by_run))
    found = [by_run[run] for run in kept]
    if left_out:
        found[0] = {**found[0], "remarks": [*found[0].get("remarks", []), *left_out]}
    return found
