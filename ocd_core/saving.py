"""Networks on disk: `model.safetensors` and `config.json` in a folder, complete or absent.

Nothing is unpickled. The config names the sha256 of the weights, so that a truncated, damaged or mixed-up pair is
refused rather than loaded.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from ocd_core.artifacts import replace_file
from ocd_core.errors import UserError

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
FORMAT = 1


def save_network(folder: Path, kind: str, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Write a network's tensors and the plain values that rebuild it.

    The config is written last: a folder that has one is complete.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    replace_file(folder / WEIGHTS, lambda p: save_file(tensors, p))
    whole = {"kind": kind, "format": FORMAT, **config, "weights_sha256": _sha256(folder / WEIGHTS)}
    replace_file(folder / CONFIG, lambda p: p.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8"))


def load_network(folder: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_network` wrote: (tensors, config).

    Raises:
        UserError: a file is missing, damaged, of another kind of network or of another format.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise UserError(f"{folder} holds no complete {kind} network: {name} is missing; train it (again)")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / CONFIG} is damaged: {error}") from error
    found = config.get("kind") if isinstance(config, dict) else None
    if found != kind:
        raise UserError(f"{folder} holds {'no network of ours' if found is None else f'a {found} network'}, not {kind}")
    if config.get("format") != FORMAT:
        raise UserError(f"{folder} has format {config.get('format')}, this version reads {FORMAT}; train it again")
    if _sha256(folder / WEIGHTS) != config.get("weights_sha256"):
        raise UserError(f"{folder / WEIGHTS} is not the file that its {CONFIG} was written for (truncated or replaced)")
    try:
        return load_file(folder / WEIGHTS), config
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS} is not a safetensors file: {error}") from error


@contextmanager
def described_by(folder: Path) -> Iterator[None]:
    """Around building a network from its config: a config that does not fit is one of another version.

    Raises:
        UserError: a key is missing, or a value is not what the network takes.
    """
    try:
        yield
    except (KeyError, TypeError, ValidationError) as error:
        first = " ".join(str(error).split())
        raise UserError(f"{folder} was written by another version: {first}; train it again") from error


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], where: Path) -> None:
    """Load a state dict whose names and shapes must be the module's.

    Raises:
        UserError: names the first tensor that is missing, unknown or of another shape.
    """
    own = module.state_dict()
    for name in [*own, *state]:
        if name not in state or name not in own:
            what = "lacks" if name not in state else "has the unknown tensor"
            raise UserError(f"{where} {what} {name!r}: it is of another architecture than its config says")
        if state[name].shape != own[name].shape:
            raise UserError(
                f"{where}: {name!r} has shape {tuple(state[name].shape)}, expected {tuple(own[name].shape)}: "
                "it is of another architecture than its config says"
            )
    module.load_state_dict(dict(state))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
