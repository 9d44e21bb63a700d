"""Domains by name: a domain `name` is the class that `ocd_core.tasks.<name>.task` calls TASK.

Domains are found by folder name and imported only on demand, so that a new domain is one folder and changes no shared
file. Your own package can add one with an entry point in the group `ocd.tasks`:

    [project.entry-points."ocd.tasks"]
    mydomain = "mypackage.mytask:MyTask"
"""

from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from ocd_core.errors import UserError
from ocd_core.registry import check_reference
from ocd_core.samples import Batch, Condition, Split, SplitName
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task

__all__ = [
    "Batch",
    "Condition",
    "Metric",
    "Split",
    "SplitName",
    "StrictModel",
    "Task",
    "domain_names",
    "domain_target",
    "task_class",
]

ENTRY_POINT_GROUP = "ocd.tasks"


def domain_names() -> dict[str, str]:
    """All domains, name -> `module:Class`: ours and those of installed packages, which cannot hide ours."""
    ours = {m.name: f"{__name__}.{m.name}.task:TASK" for m in iter_modules(__path__) if m.ispkg}
    return {**{p.name: p.value for p in entry_points(group=ENTRY_POINT_GROUP)}, **ours}


def domain_target(domain: str) -> str:
    """The `module:Class` of a domain (a name of the form `module:Class` is returned unchanged)."""
    target = check_reference("domain", domain) if ":" in domain else domain_names().get(domain)
    if target is None:
        raise UserError(
            f"unknown domain {domain!r}; known are {', '.join(sorted(domain_names()))}. "
            f"Register your own with an entry point in the group {ENTRY_POINT_GROUP!r}, or give 'module:Class'"
        )
    return target


def task_class(domain: str) -> type[Task]:
    """The class of a domain.

    Raises:
        UserError: unknown name, its module cannot be imported, or it is not a Task.
    """
    target = domain_target(domain)
    module, cls = target.split(":", 1)
    try:
        found = getattr(import_module(module), cls)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise UserError(f"cannot import domain {domain!r} ({target}): {error}") from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UserError(f"{target} is not a subclass of ocd_core.tasks.Task")
    return found
