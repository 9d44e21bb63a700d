"""A run that the runner made of a small task, without DVC and without the scripts in `stages/`."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ocd_core.artifacts import Artifacts
from ocd_core.provenance import Lineage
from ocd_core.running.runner import run_stages
from tests.support.toy import PLANE


@pytest.fixture(scope="session")
def plane_run(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """All stages; tests must not change it."""
    root = tmp_path_factory.mktemp("plane")
    write_plane(root)
    run_stages(Lineage.of("plane", root=root))
    return Artifacts("plane", root=root)


def write_plane(root: Path) -> None:
    (root / "params").mkdir()
    with (root / "params" / "plane.yaml").open("w") as file:
        YAML().dump(PLANE, file)
