"""Packages of base networks that are not in the default install."""

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
        raise UserError(
            "this base network comes with the package rtdl_revisiting_models; install it with: "
            "pip install 'ocd-core[tabular]'"
        ) from error
    return rtdl_revisiting_models
