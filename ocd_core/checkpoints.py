"""Weights on disk: safetensors, loaded strictly; nothing is ever unpickled into code."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocd_core.artifacts import replace_file
from ocd_core.errors import UserError

_NAMED = 3  # how many tensors an error names
_WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which training loops store the weights


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, atomically: `path` is complete or as it was before.

    Equal tensors give equal bytes (the format's own metadata would come in a random order, so there is none).
    """
    from safetensors.torch import save_file

    # copies, because safetensors refuses tensors that share memory (tied weights, views)
    whole = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    replace_file(path, lambda partial: save_file(whole, partial))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable safetensors file: {_one_line(error)}") from error


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a network's parameters and buffers as safetensors, atomically."""
    save_tensors(model.state_dict(), path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a network's parameters and buffers from safetensors or from a torch file that holds tensors only.

    Strict: every tensor of the network must be there with its shape, and no other.

    Raises:
        UserError: the file is missing or unreadable, holds pickled code, belongs to another architecture
            (the message names tensors), or has NaN or infinite weights.
    """
    found = _read_weights(path)
    wanted = model.state_dict()
    problems = [
        _named("missing", [n for n in wanted if n not in found]),
        _named("unexpected", [n for n in found if n not in wanted]),
        _named(
            "of another shape",
            [
                f"{n} ({tuple(found[n].shape)} in the file, {tuple(wanted[n].shape)} in the network)"
                for n in wanted
                if n in found and found[n].shape != wanted[n].shape
            ],
        ),
    ]
    text = "; ".join(p for p in problems if p)
    if text:
        raise UserError(
            f"{path} is a checkpoint of another architecture than {type(model).__name__}: {text}. "
            "Change base.model or give another base.checkpoint"
        )
    broken = [n for n, t in found.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if broken:
        raise UserError(f"{path} has NaN or infinite weights in {', '.join(broken[:_NAMED])}")
    model.load_state_dict(found, strict=True)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist or is not a file")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:] == b"{":  # eight bytes of length, then JSON: safetensors
        return read_tensors(path)
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is not a checkpoint of tensors alone (it holds pickled objects or is damaged); "
            "save model.state_dict(), best as safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path} is neither safetensors nor a readable torch file: {_one_line(error)}") from error
    return _state_dict(values, path)


def _state_dict(values: Any, path: Path) -> dict[str, Tensor]:
    """The weights in what torch.load gave, which may be wrapped once by the training loop that saved them."""
    if isinstance(values, dict):
        wrapped = [values[key] for key in _WRAPPERS if isinstance(values.get(key), dict)]
        for candidate in (values, *wrapped):
            if candidate and all(isinstance(v, Tensor) for v in candidate.values()):
                return {str(k): v for k, v in candidate.items()}
    raise UserError(f"{path} holds a {type(values).__name__} without weights; save model.state_dict()")


def _named(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{what} {', '.join(names[:_NAMED])}{more}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
