"""Weights on disk: safetensors, loaded strictly; no pickled code is ever run.

A trained network is a folder of two files, `model.safetensors` and `config.json`, complete or absent. The config names
the sha256 of the weights, so that a truncated, damaged or mixed-up pair is refused rather than loaded.
"""

import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.files import is_shortage, replace_file, sha256_file

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
FORMAT = 1
_NAMED = 3  # how many tensors an error names
_WRAPPERS = ("state_dict", "model", "model_state_dict", "net")  # keys under which training loops store the weights
# what a constructor raises that is given something impossible
_MISFITS = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError, RuntimeError)
_PARALLEL = "module."  # before each name, if a network was saved inside of torch's DataParallel


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors, atomically: `path` is complete or unchanged.

    Equal tensors give equal bytes (no metadata is written, because the format stores it in random order).
    """
    from safetensors.torch import save_file

    # copies, because safetensors refuses tensors that share memory (tied weights, views)
    whole = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    replace_file(path, lambda partial: save_file(whole, partial))


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do, whatever its name."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"  # eight bytes of length, then JSON


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    from safetensors.torch import load_file

    with _as_safetensors(path):
        return dict(load_file(path))


def tensor_shapes(path: Path) -> list[list[int]]:
    """The shape of every tensor of a safetensors file, of which only the header is read.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    from safetensors import safe_open

    with _as_safetensors(path), safe_open(path, "pt") as file:
        return [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - it is no dict


@contextmanager
def _as_safetensors(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    try:
        yield
    except (SafetensorError, OSError) as error:
        if is_shortage(error):
            raise
        raise UserError(f"{path} is not a readable safetensors file: {_one_line(error)}") from error


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a network's parameters and buffers as safetensors, atomically."""
    save_tensors(model.state_dict(), path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a network's parameters and buffers from safetensors or from a torch file that holds tensors only.

    Strict: the file must hold every tensor of the network, with the same shape, and no others. The exceptions are
    auxiliary heads, which only served to train the network: tensors whose names begin with one of the prefixes in the
    network's class attribute `auxiliary`, if it has one, are not read. A prefix `module.` of all names is taken off.

    Raises:
        UserError: the file is missing or unreadable, holds pickled code, belongs to another architecture
            (the message names tensors), or has NaN or infinite weights.
    """
    wanted = model.state_dict()
    auxiliary = tuple(getattr(model, "auxiliary", ()))
    read = _without_wrapper(_read_weights(path), wanted)
    found = {n: t for n, t in read.items() if n in wanted or not n.startswith(auxiliary)}
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
            f"{path} belongs to a different architecture than {type(model).__name__}: {text}. "
            "Change base.model or give another base.checkpoint"
        )
    broken = [n for n, t in found.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if broken:
        raise UserError(f"{path} has NaN or infinite weights in {', '.join(broken[:_NAMED])}")
    model.load_state_dict(found, strict=True)


@dataclass(frozen=True)
class BaseId:
    """The base network (the sha256 of its weights) and its layer that a trained network is for."""

    base_sha256: str
    layer: str

    @classmethod
    def of(cls, weights: Path, layer: str) -> "BaseId":
        """That of a file of weights and a layer's name."""
        return cls(sha256_file(weights), layer)


def save_network(
    folder: Path, kind: str, state: Mapping[str, Tensor], config: Mapping[str, Any], base: BaseId | None = None
) -> None:
    """Write a network's tensors and the plain values that rebuild it.

    The config, which includes `base`, is written last: a folder with a config is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    save_tensors(state, folder / WEIGHTS)
    about = {"kind": kind, "format": FORMAT, **({} if base is None else asdict(base))}
    whole = {**about, **config, "weights_sha256": sha256_file(folder / WEIGHTS)}
    replace_file(folder / CONFIG, lambda p: p.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8"))


def load_network(folder: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The (tensors, config) that `save_network` wrote.

    Raises:
        UserError: a file is missing or damaged, or has another kind of network or another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no complete {kind} network: {name} is missing; train it (again)")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder / CONFIG} is damaged: {error}") from error
    found = config.get("kind") if isinstance(config, dict) else None
    if found != kind:
        raise UserError(f"{folder} holds {'no trained network' if found is None else f'a {found} network'}, not {kind}")
    if config.get("format") != FORMAT:
        raise UserError(f"{folder} has format {config.get('format')}, this version reads {FORMAT}; train it again")
    if sha256_file(folder / WEIGHTS) != config.get("weights_sha256"):
        raise UserError(f"{folder / WEIGHTS} is not the file that its {CONFIG} was written for (truncated or replaced)")
    try:
        return load_file(folder / WEIGHTS), config
    except SafetensorError as error:
        if is_shortage(error):
            raise
        raise UserError(f"{folder / WEIGHTS} is not a safetensors file: {error}") from error


def refuse_another_base(folder: Path, base: BaseId) -> None:
    """Raise unless the network in a folder, already loaded, is for this base network and layer.

    Raises:
        UserError: it is for another one, or does not say.
    """
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    found = {key: config.get(key) for key in asdict(base)}
    if found != asdict(base):
        raise UserError(
            f"{folder} was trained for another base network or layer (layer {found['layer']}, weights "
            f"{found['base_sha256']}) than the present one (layer {base.layer}, weights {base.base_sha256}); "
            "run 'dvc repro'"
        )


@contextmanager
def described_by(folder: Path, remedy: str = "train it again") -> Iterator[None]:
    """Wraps building a network from its config: a config that does not fit was written by another version, or forged.

    Raises:
        UserError: a key is missing, or the network does not accept a value.
    """
    try:
        yield
    except _MISFITS as error:
        if isinstance(error, UserError) or is_shortage(error):
            raise
        first = " ".join(str(error).split())[:600] or type(error).__name__
        raise UserError(f"{folder} was written by another version: {first}; {remedy}") from error


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], where: Path, prefix: str = "") -> None:
    """Load a state dict whose names and shapes must match the module's.

    prefix: of the tensors' names in the file, for errors.

    Raises:
        UserError: a tensor is missing, unknown or of another shape; the message names the first one.
    """
    own = module.state_dict()
    for name in [*own, *state]:
        if name not in state or name not in own:
            what = "lacks" if name not in state else "has the unknown tensor"
            raise UserError(f"{where} {what} {prefix + name!r}: its architecture is not the one in its config")
        if state[name].shape != own[name].shape:
            raise UserError(
                f"{where}: {prefix + name!r} has shape {tuple(state[name].shape)}, expected {tuple(own[name].shape)}: "
                "its architecture is not the one in its config"
            )
    module.load_state_dict(dict(state))


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist or is not a file")
    if is_safetensors(path):
        return read_tensors(path)
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} does not hold tensors alone (it has pickled objects or is damaged); "
            "save model.state_dict(), best as safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        if is_shortage(error):
            raise
        raise UserError(f"{path} is neither safetensors nor a readable torch file: {_one_line(error)}") from error
    return _state_dict(values, path)


def _without_wrapper(found: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors without the prefix that torch's DataParallel gives to all of them."""
    if not all(name.startswith(_PARALLEL) for name in found) or any(name.startswith(_PARALLEL) for name in wanted):
        return found
    return {name.removeprefix(_PARALLEL): tensor for name, tensor in found.items()}


def _state_dict(values: Any, path: Path) -> dict[str, Tensor]:
    """The weights in the result of torch.load; the training loop that saved them may have wrapped them once."""
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
