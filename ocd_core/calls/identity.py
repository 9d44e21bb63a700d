"""Fingerprints of a network and of a loss, from which a later run recognises them.

Weights and constants count by their values, code by its instructions; names of files and numbers of lines do not.
"""

import functools
import hashlib
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from ocd_core.fingerprint import digest


def tensor_digest(*tensors: Tensor) -> str:
    """A hash of the dtype, shape and values of some tensors."""
    found = hashlib.blake2b(digest_size=16)
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return found.hexdigest()


def network_digest(network: nn.Module) -> str:
    """A hash of a network's structure, code and weights."""
    state = {name: tensor_digest(value) for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    code = {type(m).__qualname__: _code(getattr(type(m).forward, "__code__", None)) for m in network.modules()}
    numbers = {name: _settings(module) for name, module in network.named_modules()}
    return digest({"structure": repr(network), "state": state, "code": code, "numbers": numbers})


def _settings(module: nn.Module) -> dict[str, str]:
    """A module's plain attributes, such as a loss's `reduction`, which its `repr` may leave out."""
    found = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    return {name: repr(value) for name, value in found.items() if isinstance(value, str | int | float | bool | tuple)}


def function_digest(function: Any) -> str:
    """A hash of what a function does: its code, defaults and the plain values around it; of a module, its weights."""
    if isinstance(function, nn.Module):
        return network_digest(function)
    if isinstance(function, functools.partial):
        parts = [function_digest(function.func), *map(_value, function.args)]
        return digest([*parts, *(f"{name}={_value(value)}" for name, value in function.keywords.items())])
    code = getattr(function, "__code__", None)
    if code is None:
        return digest([type(function).__qualname__, getattr(function, "__qualname__", "")])
    around = [_value(cell.cell_contents) for cell in function.__closure__ or ()]
    return digest([_code(code), *around, *map(_value, function.__defaults__ or ())])


def _code(code: CodeType | None) -> Any:
    if code is None:
        return None
    constants = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), constants]


def _value(value: Any) -> str:
    if isinstance(value, Tensor):
        return tensor_digest(value)
    if callable(value):
        return function_digest(value)
    plain = isinstance(value, str | int | float | bool | tuple | list | dict | None)
    return repr(value) if plain else type(value).__qualname__
