"""Members of a package by name: a member `name` is what the module `<package>.<name>` calls by a fixed word.

Found by their file's name and imported only when asked for, so a new member is one file and changes no shared one. A
package of yours adds members by entry points, and a `module:attribute` of yours is a name of its own.
"""

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any

from ocd_core.errors import UserError


@dataclass(frozen=True)
class Registry:
    """The members of one package.

    kind: what a member is, in one word, for messages. package: its dotted name. attribute: what each member's module
    calls it. group: of entry points, which cannot hide the package's own members. shared: a module that is no member
    but what the members share; None if there is none.
    """

    kind: str
    package: str
    attribute: str
    group: str
    shared: str | None = "base"

    def own(self) -> list[str]:
        """The members that come with this package, by file name; modules with a leading underscore are none."""
        modules = iter_modules(import_module(self.package).__path__)
        return sorted(m.name for m in modules if not (m.ispkg or m.name == self.shared or m.name.startswith("_")))

    def names(self) -> list[str]:
        """All members, those of installed packages included."""
        return sorted({*self.own(), *(point.name for point in entry_points(group=self.group))})

    def target(self, name: str) -> str:
        """`module:attribute` of a member; a `module:attribute` is its own target.

        Raises:
            UserError: unknown name.
        """
        if ":" in name:
            return name
        if name in self.own():
            return f"{self.package}.{name}:{self.attribute}"
        for point in entry_points(group=self.group):
            if point.name == name:
                return point.value
        raise UserError(
            f"unknown {self.kind} {name!r}; known are {', '.join(self.names())}, or give 'module:name' of your own"
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
            UserError: unknown name, or a module that does not import or lacks it.
        """
        target = self.target(name)
        module, attribute = target.split(":", 1)
        try:
            return getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise UserError(f"cannot import {self.kind} {target!r}: {error}") from error
