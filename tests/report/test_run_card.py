"""The card of a bundle, of the one that comes with the package; other runs' cards are tested with their export."""

from ocd_core.bundles.fetch import bundle_folder
from ocd_core.bundles.layout import check_bundle


def test_what_a_reader_and_the_hub_need() -> None:
    folder = bundle_folder("mnist5k-conv2")
    text = (folder / "README.md").read_text()
    front, body = text.split("---\n")[1], text.split("---\n", 2)[2]
    assert "library_name: ocd-core" in front
    assert "# OCD: mnist5k-conv2" in body
    assert "`conv2`\n(16 × 150) of `lenet5`" in body
    size = sum(file.bytes for file in check_bundle(folder).files.values())
    assert f"{size / 1e6:.2f} MB" in body
    assert "Predictor.from_pretrained" in body
    assert "| OCD (one draw) |" in body
    assert "BSD-3-Clause" in body
    assert "@inproceedings{lutati2023ocd" in body
