"""Members of a package, by name: the member `name` is the attribute with a fixed name of the module `<package>.<name>`.

Members are found by file name and imported only on demand, so a new member is one file and changes no shared file. Your
own package can add members with entry points; a `module:attribute` can be used as a name directly, except in what comes
from someone else (`without_references`).
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any

from ocd_core.errors import UserError

_ONLY: ContextVar[tuple[str, frozenset[str]] | None] = ContextVar("only", default=None)


@contextmanager
def only_references(where: str, allowed: Iterable[str]) -> Iterator[None]:
    """Inside the block, a name of the form `module:attribute` is refused if it is not one of these.

    Data must not choose which code runs. Names of this package and of installed packages' entry points are still found.
    What an outer block refuses stays refused.

    Args:
        where: the data that holds the names, for messages.
    """
    outer, names = _ONLY.get(), frozenset(allowed)
    token = _ONLY.set((where, names if outer is None else names & outer[1]))
    try:
        yield
    finally:
        _ONLY.reset(token)


def without_references(where: str) -> AbstractContextManager[None]:
    """Inside the block, every `module:attribute` is refused; see `only_references`."""
    return only_references(where, ())


def check_reference(kind: str, reference: str) -> str:
    """A `module:attribute`, if it may be imported now.

    Raises:
        UserError: see `only_references`.
    """
    only = _ONLY.get()
    if only is not None and reference not in only[1]:
        raise UserError(
            f"{only[0]} names code of its own, the {kind} {reference!r}, which is not imported; if you trust whoever "
            "made it, and have that package, pass trust_remote_code=True (--trust-remote-code)"
        )
    return reference


@dataclass(frozen=True)
class Registry:
    """The members of one package.

    kind: what a member is, in one word, for messages. package: its dotted name. attribute: the name of the member in
    its module. group: of entry points, which cannot hide the package's own members. shared: the module that the members
    share, which is not a member; None if there is none.
    """

    kind: str
    package: str
    attribute: str
    group: str
    shared: str | None = "base"

    def own(self) -> list[str]:
        """The members that come with this package, by file name; modules with a leading underscore are not members."""
        modules = iter_modules(import_module(self.package).__path__)
        return sorted(m.name for m in modules if not (m.ispkg or m.name == self.shared or m.name.startswith("_")))

    def names(self) -> list[str]:
        """All members, including those of installed packages."""
        return sorted({*self.own(), *(point.name for point in entry_points(group=self.group))})

    def target(self, name: str) -> str:
        """The `module:attribute` of a member; a name of the form `module:attribute` is returned unchanged.

        Raises:
            UserError: unknown name, or a `module:attribute` that is refused (see `only_references`).
        """
        if ":" in name:
            return check_reference(self.kind, name)
        if name in self.own():
            return f"{self.package}.{name}:{self.attribute}"
        for point in entry_points(group=self.group):
            if point.name == name:
                return point.value
        raise UserError(
            f"unknown {self.kind} {name!r}; known are {', '.join(self.names())}, or name your own as 'module:name'"
        )

    def check(self, name: str) -> str:
        """The name, if it is known; for the validation of params.

        Raises:
            UserError: unknown name.
        """
        self.target(name)
        return name

    def load(self, name: str) -> Any:
        """A member, imported.

        Raises:
            UserError: unknown name, or its module cannot be imported or lacks the attribute.
        """
        target = self.target(name)
        module, attribute = target.split(":", 1)
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError, SyntaxError) as error:
            raise UserError(f"cannot import {self.kind} {target!r}: {error}") from error
