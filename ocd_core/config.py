"""The params of one task, typed: `params/<task>.yaml`, one group per stage.

Files are complete (every key is present), because DVC tracks groups and `-S` changes existing keys only.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError, model_validator

from ocd_core.errors import UserError
from ocd_core.params_files import params_path, read_params
from ocd_core.pipeline import GROUP_MODULES
from ocd_core.registry import only_references
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Task

if TYPE_CHECKING:
    from ocd_core.diffusion.params import DiffusionParams
    from ocd_core.diffusion.sampling_params import SamplingParams
    from ocd_core.diffusion.tuning_params import TuningParams
    from ocd_core.evaluation.params import ControlsParams, EvaluateParams
    from ocd_core.network.params import BaseParams
    from ocd_core.overfit.params import OverfitParams
    from ocd_core.scale.params import ScaleParams
    from ocd_core.scoring.params import LayerParams, ScoringParams

_SHOWN = 3  # problems of a params file that one message names
_UP_TO_SAMPLING = ("domain", "data", "base", "layer", "scoring", "overfit", "diffusion", "scale", "sampling")
GROUPS_UP_TO = {  # what determines each artifact, in the order of the pipeline: groups, or dotted keys of single params
    "prepare": ("domain", "data"),
    "base": ("domain", "data", "base"),
    "layers": ("domain", "data", "base", "layer", "scoring", "overfit"),
    "overfit": ("domain", "data", "base", "layer", "scoring", "overfit"),
    "diffusion": ("domain", "data", "base", "layer", "scoring", "overfit", "diffusion"),
    "scale": ("domain", "data", "base", "layer", "scoring", "overfit", "diffusion.representation.name", "scale"),
    "tuned": (*_UP_TO_SAMPLING[:-1], "sampling.renormalise", "tuning"),
    "controls": (*_UP_TO_SAMPLING, "tuning", "controls"),
    "evaluation": (*_UP_TO_SAMPLING, "tuning", "controls", "evaluate"),
    "pictures": (*_UP_TO_SAMPLING, "controls"),
}


class Params(StrictModel):
    """All params of one task."""

    domain: str
    data: StrictModel
    base: "BaseParams"
    layer: "LayerParams"
    scoring: "ScoringParams"
    overfit: "OverfitParams"
    diffusion: "DiffusionParams"
    scale: "ScaleParams"
    sampling: "SamplingParams"
    tuning: "TuningParams"
    controls: "ControlsParams"
    evaluate: "EvaluateParams"

    @model_validator(mode="after")
    def _possible(self) -> "Params":
        if self.overfit.optimizer == "adam" and self.diffusion.representation.name == "factored":
            raise ValueError(
                "overfit.optimizer adam does not leave Δ = u ⊗ i_L, which diffusion.representation.name factored "
                "needs; use sgd, or representation dense or pca"
            )
        refine, representation = self.overfit.refine, self.diffusion.representation
        if refine.steps and representation.name == "factored":
            raise ValueError(
                "overfit.refine does not leave Δ = u ⊗ i_L, which diffusion.representation.name factored needs; set "
                "overfit.refine.steps to 0, or use representation dense or pca"
            )
        if refine.steps and representation.name == "pca" and representation.components > refine.components:
            raise ValueError(
                f"diffusion.representation.components is {representation.components}, but Δ has only "
                f"{refine.components} after overfit.refine (overfit.refine.components); lower it, or raise the latter"
            )
        if self.sampling.sampler != "ancestral" and self.sampling.steps > self.diffusion.timesteps:
            raise ValueError(
                f"sampling.steps is {self.sampling.steps}, but the diffusion has only {self.diffusion.timesteps} "
                "timesteps (diffusion.timesteps); lower it"
            )
        if self.tuning.sampler_steps > self.diffusion.timesteps:
            raise ValueError(
                f"tuning.steps is {self.tuning.steps}, but the diffusion has only {self.diffusion.timesteps} timesteps "
                "(diffusion.timesteps); lower it"
            )
        self.controls.serve(self.evaluate.rows)
        if self.scale.gain == "validated" and "ocd_gain" not in self.controls.fit:
            raise ValueError("scale.gain is validated, which needs the control ocd_gain; add it to controls.fit")
        return self

    def build_task(self, prepared: Path | None = None) -> Task:
        """The task that these params describe, bound to its prepared data if given (see `Task.bind`)."""
        from ocd_core.tasks import task_class

        task = task_class(self.domain)(self.data, self.base.model.name, self.base.model.args)
        if prepared is not None:
            task.bind(prepared)
        return task

    def plain(self) -> dict[str, Any]:
        """All groups as plain values."""
        groups = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: g if isinstance(g, str) else g.model_dump(mode="json") for name, g in groups.items()}

    def effective(self, artifact: str) -> dict[str, Any]:
        """The params that determine an artifact (a key of `GROUPS_UP_TO`), as plain values in their groups."""
        values = self.plain()
        found: dict[str, Any] = {}
        for key in GROUPS_UP_TO[artifact]:
            *groups, last = key.split(".")
            source, dest = values, found
            for group in groups:
                source, dest = source[group], dest.setdefault(group, {})
            dest[last] = source[last]
        return found


def _group_classes() -> dict[str, type]:
    """The classes of the groups, imported by name: an import statement would make every stage depend on all of them."""
    targets = (target.split(":") for target in GROUP_MODULES.values())
    return {name: getattr(import_module(module), name) for module, name in targets}


Params.model_rebuild(_types_namespace=_group_classes())


def load_params(task: str, root: Path | str = ".") -> Params:
    """Read and check `params/<task>.yaml`.

    Raises:
        UserError: the task does not exist, the file is not YAML, or a value is unknown, missing, mistyped or
            impossible; the message names the file and the key.
    """
    return parse_params(read_params(task, root), str(params_path(task, root)))


def trusted(task: str, root: Path | str, where: str) -> AbstractContextManager[None]:
    """Inside the block, what a run stores may name only such code as the task's own params file names.

    A run's folder may come from a stranger, and any of its files may name code (a config, a network, a table's row).
    The params file of the folder in which the run lies is the user's.

    Args:
        where: the run, for messages.
    """
    own = _references(read_params(task, root)) if params_path(task, root).is_file() else ()
    return only_references(where, own)


def _references(values: Any) -> Iterator[str]:
    """The texts of the form `module:attribute` in plain values."""
    if isinstance(values, dict):
        for value in values.values():
            yield from _references(value)
    elif isinstance(values, list):
        for value in values:
            yield from _references(value)
    elif isinstance(values, str) and ":" in values:
        yield values


def parse_params(values: Any, where: str) -> Params:
    """Check plain values as `load_params` does; `where` names their origin in errors."""
    from ocd_core.tasks import task_class

    if not isinstance(values, dict):
        raise UserError(f"{where}: expected groups of params, found {type(values).__name__}")
    values = dict(values)
    if not all(isinstance(key, str) for key in values):
        raise UserError(f"{where}: a group's name is no text; the groups are {', '.join(Params.model_fields)}")
    domain = values.get("domain")
    if not isinstance(domain, str):
        raise UserError(f"{where}: domain: name the task's domain, such as 'images'")
    try:
        data_model = task_class(domain).Data
    except UserError as error:
        raise UserError(f"{where}: domain: {error}") from error
    try:
        values["data"] = data_model.model_validate(values.get("data"))
    except ValidationError as error:
        raise UserError(_readable(error, where, "data", values.get("data"))) from error
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError(_readable(error, where, "", values)) from error


def _short(value: Any) -> str:
    """A value as text, cut if it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = "a very long number"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _readable(error: ValidationError, where: str, prefix: str, values: Any) -> str:
    """One line for all problems, unknown keys first, because a misspelt key also counts as missing."""
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    missing = [problem["loc"] for problem in problems if problem["type"] == "missing"]
    texts: list[str] = []
    for problem in problems:
        loc = problem["loc"]
        if problem["type"] == "extra_forbidden":
            meant = _meant(loc, missing)
            text = "unknown key; remove it or correct its spelling"
            if meant is not None:
                missing.remove(meant)
                text = f"unknown key; did you mean {meant[-1]!r}?"
        elif problem["type"] == "missing":
            if loc not in missing:  # it is there, misspelt
                continue
            text = "missing; params files are complete, so add it"
        else:
            text = problem["msg"].removeprefix("Value error, ")
            if not isinstance(problem.get("input"), dict | StrictModel):
                text += f" (found {_short(problem.get('input'))})"
        key = ".".join([p for p in [prefix] if p] + [str(part) for part in loc])
        texts.append(": ".join([*([key] if key else []), text]))
    shown = "; also ".join(texts[:_SHOWN])
    more = f" (and {len(texts) - _SHOWN} more)" if len(texts) > _SHOWN else ""
    return f"{where}: {shown}{more}"


def _meant(unknown: tuple[int | str, ...], missing: list[tuple[int | str, ...]]) -> tuple[int | str, ...] | None:
    """The missing key of the same group whose name is most like that of an unknown one."""
    beside = {str(loc[-1]): loc for loc in missing if loc[:-1] == unknown[:-1]}
    near = get_close_matches(str(unknown[-1]), beside, 1)
    return beside[near[0]] if near else None
