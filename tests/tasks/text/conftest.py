from pathlib import Path

import pytest

from tests.support.texts import write_encoder, write_texts


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny sentence encoder; tests must not write there."""
    return write_encoder(tmp_path_factory.mktemp("encoder") / "tiny")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 training and 6 test texts of two classes."""
    path = tmp_path / "raw"
    path.mkdir()
    write_texts(path / "train.jsonl", [i % 2 for i in range(24)])
    write_texts(path / "test.jsonl", [0, 1, 0, 1, 1, 0], start=100)
    return path
