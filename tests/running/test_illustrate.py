"""The module `ocd_core.running.illustrate`."""

from ocd_core.artifacts import Artifacts


def test_a_domain_without_figures_has_an_empty_folder(plane_run: Artifacts) -> None:
    assert {path.name for path in plane_run.pictures.iterdir()} == {"config.json", "manifest.json"}
