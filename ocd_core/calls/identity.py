"""Fingerprints of a network and of a loss, from which a later run recognises them.

Weights and constants count by their values, code by its instructions; names of files and numbers of lines do not. A
function also counts by what its code refers to: helper functions, classes, constants and tensors, but code of installed
libraries only by itself. All is the same in another process.
"""

import argparse
import dis
import functools
import hashlib
import sys
import sysconfig
from collections import deque
from collections.abc import Iterator
from enum import Enum
from pathlib import Path, PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ocd_core.fingerprint import digest

# values whose `repr` says all, in every process
_PLAIN = (
    str | bytes | int | float | complex | range | slice | Enum | PurePath | np.generic | np.dtype | torch.dtype
    | torch.device | None
)  # fmt: skip
_DATA = (str, int, float, bool, tuple, Tensor, np.ndarray)
_STDLIB, _OWN = Path(sysconfig.get_path("stdlib")), Path(__file__).parents[1]
_INSTALLED = {"site-packages", "dist-packages"}
_FROZEN = "<frozen"  # the file of what Python brings along without one
_HEAP_TYPE = 1 << 9  # of a class's flags: it was made by a `class` statement or its like
_OF_MODULES = {*vars(nn.Module()), "_compiled_call_impl"}  # attributes that every nn.Module has


def tensor_digest(*tensors: Tensor) -> str:
    """A hash of the dtype, shape and values of some tensors."""
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        plain = tensor.detach().cpu()
        plain = (plain if plain.layout == torch.strided else plain.to_dense()).contiguous()
        found.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return found.hexdigest()


def network_digest(network: nn.Module) -> str:
    """A hash of a network's structure, code, weights and attributes."""
    return _Digests().of(network)


def function_digest(function: Any) -> str:
    """A hash of what a function or another object does: its code, its attributes, and the values around it."""
    return _Digests().of(function)


class _Digests:
    """Hashes of objects that refer to each other. Each is looked at once, so that circles end."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[Any, str]] = {}  # with the object, so that no other one gets its id

    def of(self, value: Any) -> str:
        if isinstance(value, _PLAIN):
            return repr(value)
        if id(value) not in self._found:
            self._found[id(value)] = value, f"within a {type(value).__qualname__}"  # for a circle that leads back here
            self._found[id(value)] = value, digest(self._parts(value))
        return self._found[id(value)][1]

    def _parts(self, value: Any) -> Any:
        kind = type(value).__qualname__
        if isinstance(value, Tensor):
            return [kind, tensor_digest(value)]
        if isinstance(value, np.ndarray):
            content = self.of(value.tolist()) if value.dtype.hasobject else _bytes_digest(value)
            return [kind, str(value.dtype), value.shape, content]
        if isinstance(value, dict):
            return [kind, sorted([self.of(key), self.of(item)] for key, item in value.items())]
        if isinstance(value, set | frozenset):  # their order depends on the process
            return [kind, sorted(map(self.of, value))]
        if isinstance(value, list | tuple | deque):
            return [kind, [self.of(item) for item in value]]
        if isinstance(value, functools.partial):
            return [kind, self.of(value.func), self.of(value.args), self.of(value.keywords)]
        if isinstance(value, ModuleType):
            return [kind, value.__name__]
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, nn.Module):
            return self._network(value)
        return self._callable(value) or self._instance(value)

    def _callable(self, value: Any) -> Any:
        """The parts of a function or method, or of what holds one; None if it is none of them."""
        if isinstance(value, MethodType):
            return [self.of(value.__func__), self.of(value.__self__)]
        if isinstance(value, BuiltinFunctionType):  # also a method, such as that of a tensor
            return [str(value.__module__), value.__qualname__, self.of(value.__self__)]
        if isinstance(value, torch.jit.ScriptFunction):
            return [value.code]
        if isinstance(value, property):
            return [self.of(part) for part in (value.fget, value.fset)]
        if isinstance(value, staticmethod | classmethod):
            return [type(value).__qualname__, self.of(value.__func__)]
        if isinstance(value, functools.cached_property):
            return [self.of(value.func)]
        attributes = getattr(value, "__dict__", {})
        if isinstance(value, FunctionType):
            compiled = attributes.get("_torchdynamo_orig_callable")  # of torch.compile
            return self._function(value) if compiled is None else [self.of(compiled)]
        if "__wrapped__" in attributes and _is_library_class(type(value)):  # of functools.lru_cache
            return [type(value).__qualname__, self.of(attributes["__wrapped__"])]
        return None

    def _function(self, function: FunctionType) -> Any:
        code = function.__code__
        around = []
        for cell in function.__closure__ or ():
            try:
                around.append(self.of(cell.cell_contents))
            except ValueError:  # nothing was assigned yet
                around.append("")
        found = [self._code(code), around, self.of(function.__defaults__), self.of(function.__kwdefaults__)]
        if _is_library(code.co_filename):
            return [function.__module__, function.__qualname__, *found]
        return [*found, self._globals(function)]

    def _globals(self, function: FunctionType) -> dict[str, str]:
        """The global values that a function reads; what it also writes is a result."""
        read: set[str] = set()
        written: set[str] = set()
        named: set[str] = set()
        for code in _with_inner(function.__code__):
            named.update(code.co_names)
            for step in dis.get_instructions(code):
                if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                    read.add(step.argval)
                elif step.opname == "STORE_GLOBAL":
                    written.add(step.argval)
        there = function.__globals__
        return {name: self._read(there[name], named, ()) for name in sorted(read - written) if name in there}

    def _read(self, value: Any, named: set[str], above: tuple[Any, ...]) -> str:
        """A global value; of a user's own module or of parsed arguments, what the code names of it."""
        if not _is_namespace(value):
            return self.of(value)
        parts = [name for name in sorted(named & set(vars(value))) if not any(vars(value)[name] is x for x in above)]
        return digest({name: self._read(vars(value)[name], named, (*above, value)) for name in parts})

    def _code(self, code: CodeType) -> Any:
        constants = [self._code(c) if isinstance(c, CodeType) else self.of(c) for c in code.co_consts]
        return [code.co_code.hex(), list(code.co_names), constants]

    def _class(self, cls: type) -> Any:
        entry = "forward" if issubclass(cls, nn.Module) else "__call__"
        called = next((vars(c)[entry] for c in cls.__mro__ if entry in vars(c)), None)
        found: list[Any] = [cls.__qualname__, self.of(called)]
        for c in cls.__mro__:
            if _is_library_class(c):
                found.append(f"{c.__module__}.{c.__qualname__}")
            else:
                members = {name: value for name, value in vars(c).items() if _is_counted(name, value)}
                found.append({name: self.of(value) for name, value in members.items()})
        return found

    def _instance(self, value: Any) -> Any:
        cls, name = type(value), str(getattr(value, "__qualname__", getattr(value, "__name__", "")))
        library = _is_library_class(cls)
        if library and _is_stdlib_class(cls) and not isinstance(value, argparse.Namespace | SimpleNamespace):
            return [cls.__module__, cls.__qualname__, name]  # a logger, a lock, a file
        found = {name: item for name, item in _attributes(value) if not (library and name.startswith("_"))}
        return [self.of(cls), name, {name: self.of(found[name]) for name in sorted(found)}]

    def _network(self, network: nn.Module) -> Any:
        tensors = {**network.state_dict(), **dict(network.named_buffers())}  # not all buffers are in the state
        state = {name: tensor_digest(value) for name, value in tensors.items() if isinstance(value, Tensor)}
        modules = dict(network.named_modules())
        code = {name: self.of(type(module)) for name, module in modules.items()}
        settings = {name: self._settings(module) for name, module in modules.items()}
        scripted = network.code if isinstance(network, torch.jit.ScriptModule) else ""
        return {"structure": repr(network), "state": state, "code": code, "settings": settings, "script": scripted}

    def _settings(self, module: nn.Module) -> dict[str, str]:
        """A module's attributes, such as a loss's `reduction`, which its `repr` may leave out."""
        library = _is_library_class(type(module))
        found = {name: value for name, value in vars(module).items() if name not in _OF_MODULES}
        return {
            name: self.of(value)
            for name, value in found.items()
            if not name.startswith("_") or (not library and isinstance(value, _DATA))
        }


def _bytes_digest(array: np.ndarray[Any, Any]) -> str:
    return hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()


def _with_inner(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_inner(constant)


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(value, "__dict__", {}).items()
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)


def _is_counted(name: str, value: Any) -> bool:
    """Whether a member of a class says what it does; annotations, documentation and the like do not."""
    return not (name.startswith("__") and name.endswith("__")) or isinstance(value, FunctionType)


def _is_namespace(value: Any) -> bool:
    if isinstance(value, ModuleType):
        return not _is_library(_file_of(value))
    return isinstance(value, argparse.Namespace | SimpleNamespace)


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or _FROZEN


def _is_library_class(cls: type) -> bool:
    if cls.__module__ == "builtins":  # also the module of what `exec` made
        return not cls.__flags__ & _HEAP_TYPE
    module = sys.modules.get(cls.__module__)
    return module is not None and cls.__module__ != "__main__" and _is_library(_file_of(module))


def _is_stdlib_class(cls: type) -> bool:
    if cls.__module__ == "builtins":
        return True
    path = Path(_file_of(sys.modules[cls.__module__]))
    return path.name.startswith(_FROZEN) or (path.is_relative_to(_STDLIB) and not _INSTALLED & {*path.parts})


@functools.cache
def _is_library(file: str) -> bool:
    """Whether a file belongs to Python, to this package, or to another one that was installed."""
    path = Path(file)
    return (
        file.startswith(_FROZEN)
        or bool(_INSTALLED & {*path.parts})
        or any(path.is_relative_to(place) for place in (_STDLIB, _OWN))
    )
