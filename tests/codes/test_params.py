import pytest
from pydantic import ValidationError

from ocd_core.codes.params import RepresentationParams


def test_a_representation_is_known_by_its_file_or_is_ones_own():
    assert RepresentationParams(name="pca", components=3, metric="euclidean").name == "pca"
    own = RepresentationParams(name="tests.own:Own", components=1, metric="euclidean")
    assert own.name == "tests.own:Own"
    with pytest.raises(ValidationError, match="unknown representation 'svd'; known are dense, factored, pca"):
        RepresentationParams(name="svd", components=3, metric="euclidean")
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        RepresentationParams(name="pca", components=0, metric="euclidean")
    with pytest.raises(ValidationError, match="metric kfac chooses principal components, which representation dense"):
        RepresentationParams(name="dense", components=1, metric="kfac")
