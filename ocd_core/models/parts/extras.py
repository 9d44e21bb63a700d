"""Packages of base networks that are not in the default install."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from ocd_core.errors import UserError


def rtdl() -> Any:
    """The package `rtdl_revisiting_models`.

    Raises:
        UserError: it is not installed.
    """
    try:
        import rtdl_revisiting_models
    except ImportError as error:
        raise _missing("rtdl_revisiting_models", "tabular") from error
    return rtdl_revisiting_models


def transformers() -> Any:
    """The package `transformers`, which takes seconds to import.

    Raises:
        UserError: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise _missing("transformers", "vision") from error
    return transformers


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Turn off the library's own bars and log lines, and those of the hub's client."""
    log = transformers().utils.logging
    from huggingface_hub.utils import logging as of_hub

    level, hub_level, bars = log.get_verbosity(), of_hub.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.CRITICAL)
    of_hub.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        of_hub.set_verbosity(hub_level)
        if bars:
            log.enable_progress_bar()


def _missing(package: str, extra: str) -> UserError:
    return UserError(
        f"this base network comes with the package {package}; install it with: pip install 'ocd-core[{extra}]'"
    )
