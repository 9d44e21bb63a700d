"""Searches and comparisons that run the pipeline many times; part of neither the pipeline nor the package."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from ocd_core.errors import UserError

# to compare settings, one drawn Δ and its gain are enough; the other controls and rows cost time and decide nothing
CHEAP: dict[str, Any] = {"controls.fit": ["ocd_gain"], "evaluate.rows": ["base", "ocd", "ocd_gain", "bound"]}


def run(app: Callable[[], None]) -> None:
    """Run a command line; a user's mistake or a failed command gives one line and exit status 1."""
    try:
        app()
    except (UserError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
