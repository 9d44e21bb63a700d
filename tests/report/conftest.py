from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts
from tests.support.domains import images_run, table_run
from tests.support.runs import TUNING, run_of
from tests.support.toy import PLANE
from tests.support.views import views_run

MAKERS: dict[str, Callable[[Path], Artifacts]] = {
    "images": images_run,
    "tabular": table_run,
    "views": lambda root: views_run(root, "illustrate"),
    "own": lambda root: run_of(root, "plane", {**PLANE, "tuning": {**PLANE["tuning"], **TUNING}}, "evaluate"),
}


@pytest.fixture(scope="session")
def run_of_domain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifacts]:
    """An evaluated run of a domain in `MAKERS`; tests must not change what lies below its `data`."""

    @cache
    def made(domain: str) -> Artifacts:
        return MAKERS[domain](tmp_path_factory.mktemp(domain))

    return made
