"""Whole-method presets: a task with the method of the paper, or of the authors' released code, instead of ours.

Each `<name>.yaml` here holds `about` (the header of a params file made with it), `every_task` (params of every task,
group by group), `domains` (further params by domain) and `other_domains` (whether the preset also serves domains that
are not listed). A preset changes the method from overfitting onwards; the task keeps its data, base network, layer and
the rows of its table.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocd_core.artifacts import write_text
from ocd_core.config import Params, load_params, parse_params
from ocd_core.errors import UserError
from ocd_core.params_files import params_path, read_yaml
from ocd_core.presets.overrides import group_of, override, override_text, value_at

_FOLDER = Path(__file__).parent
_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class Change:
    """A param to which a preset gives another value.

    key: with dots (`diffusion.loss`). before: the task's own value. after: the preset's value.
    """

    key: str
    before: Any
    after: Any


def preset_names() -> list[str]:
    """The names of all presets."""
    return sorted(p.stem for p in _FOLDER.glob("*.yaml"))


def preset_values(preset: str, domain: str) -> dict[str, Any]:
    """The params that a preset sets for a task of this domain, {key with dots: value}.

    Raises:
        UserError: the preset does not exist, or does not serve the domain.
    """
    described = _read(preset)
    domains = described["domains"]
    if domain not in domains and not described["other_domains"]:
        raise UserError(f"preset {preset} is for the domains {', '.join(domains)}; this task's domain is {domain}")
    return {**dict(_leaves(described["every_task"])), **dict(_leaves(domains.get(domain, {})))}


def preset_of(params: Params) -> str:
    """The preset whose values these params have, or `default`."""
    values = params.plain()
    for preset in preset_names():
        try:
            wanted = preset_values(preset, params.domain)
        except UserError:  # not for this domain
            continue
        wanted = {key: value for key, value in wanted.items() if not _of_a_row_that_the_task_lacks(key, values)}
        if all(value_at(values, key) == value for key, value in wanted.items()):
            return preset
    return "default"


def apply_preset(preset: str, task: str, root: Path | str = ".") -> tuple[Params, list[Change]]:
    """The params of a task under a preset, and the changes to the task's own file, in the preset's order.

    Raises:
        UserError: the task or preset does not exist (see `preset_values`), or the values are not valid params.
    """
    path = params_path(task, root)
    domain = load_params(task, root).domain
    values = read_yaml(path)
    changes = []
    for key, after in preset_values(preset, domain).items():
        if _of_a_row_that_the_task_lacks(key, values):
            continue
        group, last = group_of(values, key)
        if group.get(last) != after:
            changes.append(Change(key, group.get(last), after))
        group[last] = after
    return parse_params(values, f"{path} with preset {preset}"), changes


def _of_a_row_that_the_task_lacks(key: str, values: Any) -> bool:
    """Params of a row may be absent where no row uses them; then a preset has nothing to change."""
    group, *rest = key.split(".")
    return group == "controls" and len(rest) > 1 and rest[0] not in values["controls"]


def write_preset(preset: str, task: str, root: Path | str = ".", force: bool = False) -> Path:
    """Write params/<task>_<preset>.yaml: the params of a separate task, with the comments of the original file.

    Raises:
        UserError: see `apply_preset`; or the file exists and `force` is not given.
    """
    from ruamel.yaml import YAML

    dest = params_path(f"{task}_{preset}", root)
    if dest.exists() and not force:
        raise UserError(f"{dest} already exists; give --force to overwrite it")
    _, changes = apply_preset(preset, task, root)
    yaml = YAML()  # keeps comments and the spelling of numbers
    yaml.width = 116
    none = lambda representer, _: representer.represent_scalar(_NULL, "null")  # noqa: E731
    yaml.representer.yaml_representers = {**yaml.representer.yaml_representers, type(None): none}
    values = yaml.load(params_path(task, root).read_text(encoding="utf-8"))
    values.ca.comment = None  # the header, which describes the original task
    for change in changes:
        group, last = group_of(values, change.key)
        if isinstance(change.after, list):
            group[last][:] = change.after  # in place, so that it stays on one line
        else:
            group[last] = change.after
    text = io.StringIO()
    yaml.dump(values, text)
    write_text(dest, f"{_header(preset, task, changes)}\n{text.getvalue()}")
    return dest


def override_arguments(task: str, changes: list[Change]) -> list[str]:
    """The arguments for `dvc exp run` that make these changes in params/<task>.yaml; no argument needs quotes."""
    return [f"-S {override(task, change.key, change.after)}" for change in changes]


def _read(preset: str) -> dict[str, Any]:
    if preset not in preset_names():
        raise UserError(f"unknown preset {preset!r}; known are {', '.join(preset_names())}")
    described: dict[str, Any] = read_yaml(_FOLDER / f"{preset}.yaml")
    return described


def _header(preset: str, task: str, changes: list[Change]) -> str:
    lines = [
        f"{task}_{preset}: {task} under the whole-method preset {preset},",
        f"as `ocd preset {preset} {task}` wrote it.",
        "",
        *_read(preset)["about"].splitlines(),
        "",
        f"What differs from {task}:",
        *(f"  {change.key}: {override_text(change.before)} -> {override_text(change.after)}" for change in changes),
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


def _leaves(tree: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value
