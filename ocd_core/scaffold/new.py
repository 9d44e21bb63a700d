"""Write the params file of a new task, complete and with comments, and for a domain of one's own a class to fill in."""

import io
import re
from collections.abc import Mapping
from importlib import invalidate_caches
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError

from ocd_core.artifacts import write_text
from ocd_core.config import parse_params
from ocd_core.errors import UserError
from ocd_core.params_files import params_path, read_yaml
from ocd_core.scaffold import FOLDER
from ocd_core.tasks import task_class

_OWN = "own"


def domains() -> list[str]:
    """The domains that have a template; any other is given as `module:Class`."""
    return sorted(path.stem for path in (FOLDER / "domains").glob("*.yaml") if path.stem != _OWN)


def new_params(name: str, domain: str) -> str:
    """The text of a params file, checked.

    Raises:
        UserError: the domain is unknown, or its class cannot be imported.
    """
    own = ":" in domain
    if not own and domain not in domains():
        raise UserError(
            f"unknown domain {domain!r}; known are {', '.join(domains())}, or give your own as module:Class"
        )
    path = FOLDER / "domains" / f"{_OWN if own else domain}.yaml"
    head, _, _ = path.read_text(encoding="utf-8").partition("\n# what differs from method.yaml\n")
    about, _, groups = head.partition("\n")
    if own:
        groups = re.sub(r"(?m)^domain: .*$", f"domain: {domain}", groups, count=1)
        groups = re.sub(r"(?m)^data: \{\}.*\n", _data_of(domain), groups, count=1)
    method = _with_changes((FOLDER / "method.yaml").read_text(encoding="utf-8"), read_yaml(path)["method"])
    text = f"""# {name}. {about.removeprefix("# ")}
#
# Check it with 'ocd check {name}', then run it with 'ocd run {name}', or append {name} to tasks in params.yaml for
# 'dvc repro'. Every key is needed.

{groups.strip()}

{method}"""
    parse_params(_read(text), f"params/{name}.yaml{f' with the defaults of {domain}' if own else ''}")
    return text


def new_task(name: str, domain: str, *, root: Path | str = ".", with_class: bool = False) -> list[Path]:
    """Write params/<name>.yaml and return the files written.

    Args:
        with_class: for a domain `module:Class`, write `<module>.py` with a class to fill in, and its test.

    Raises:
        UserError: a file exists, or the domain cannot be used.
    """
    path, written = params_path(name, root), []
    if path.exists():
        raise UserError(f"{path} exists; choose another name or remove it")
    if with_class:
        written = _write_class(name, domain, Path(root))
    try:
        text = new_params(name, domain)
    except UserError:
        for file in written:
            file.unlink()
        raise
    write_text(path, text)
    return [path, *written]


def _write_class(name: str, domain: str, root: Path) -> list[Path]:
    module, _, cls = domain.partition(":")
    if not (module.isidentifier() and cls.isidentifier()):
        raise UserError(f"--class needs --domain module:Class, two names, not {domain!r}")
    files = {root / f"{module}.py": "class.txt", root / f"test_{module}.py": "test.txt"}
    for file in files:
        if file.exists():
            raise UserError(f"{file} exists; leave out --class, or choose another module")
    for file, template in files.items():
        text = (FOLDER / template).read_text(encoding="utf-8")
        for word, value in (("CLASS", cls), ("MODULE", module), ("NAME", name)):
            text = text.replace(word, value)
        write_text(file, text)
    invalidate_caches()  # or Python may not see a file that is new
    return list(files)


def _data_of(domain: str) -> str:
    """The group `data` for the fields of a class's `Data`: their defaults, as plain values.

    Raises:
        UserError: a field has no default, or one that is no value of YAML.
    """
    model = task_class(domain).Data
    fields = model.model_fields
    if not fields:
        return "data: {}\n"
    missing = [name for name, field in fields.items() if field.is_required()]
    if missing:
        raise UserError(
            f"{domain}: {', '.join(missing)} of its Data {'has' if len(missing) == 1 else 'have'} no default, so no "
            "value can be proposed; give defaults, or write the params file yourself (docs/your-own-task.md)"
        )
    try:
        values = model.model_construct().model_dump(mode="json", include=set(fields))
    except PydanticSerializationError as error:
        raise UserError(
            f"{domain}: a default of its Data is no plain value ({' '.join(str(error).split())}); give numbers, texts, "
            "paths, lists or groups of them"
        ) from error
    return _dumped({"data": values})


def _with_changes(text: str, changes: Mapping[str, Any]) -> str:
    """YAML with other values; comments stay."""
    yaml = _yaml()
    values = yaml.load(text)
    _merge(values, changes)
    out = io.StringIO()
    yaml.dump(values, out)
    return out.getvalue()


def _merge(values: Any, changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), Mapping):
            _merge(values[key], value)
        else:
            values[key] = value


def _dumped(values: Mapping[str, Any]) -> str:
    out = io.StringIO()
    _yaml().dump(values, out)
    return out.getvalue()


def _read(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)


def _yaml() -> Any:
    from ruamel.yaml import YAML

    yaml = YAML()
    yaml.width = 120
    yaml.representer.add_representer(
        type(None), lambda representer, _value: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return yaml
