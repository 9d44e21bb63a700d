"""Packages that may be missing, and libraries that are made quiet for a while."""

import builtins
import logging
from typing import Any

import pytest

from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.models.parts.extras import quiet_transformers

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize(
    ("package", "extra", "model", "args"),
    [
        ("transformers", "vision", "deit", {"classes": 2}),
        (
            "rtdl_revisiting_models",
            "tabular",
            "rtdl_mlp",
            {"in_features": 3, "out_features": 1, "blocks": 1, "width": 2},
        ),
        (
            "rtdl_revisiting_models",
            "tabular",
            "rtdl_resnet",
            {"in_features": 3, "out_features": 1, "blocks": 1, "width": 2, "hidden": 2},
        ),
    ],
)
def test_without_the_package(
    monkeypatch: pytest.MonkeyPatch, package: str, extra: str, model: str, args: dict[str, Any]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == package:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=rf"the package {package}; install it with: pip install 'ocd-core\[{extra}\]'"):
        build_model(model, args)


def test_the_library_is_quiet_only_inside() -> None:
    log = transformers.utils.logging
    before = log.get_verbosity(), log.is_progress_bar_enabled()
    with quiet_transformers():
        assert log.get_verbosity() == logging.CRITICAL
        assert not log.is_progress_bar_enabled()
    assert (log.get_verbosity(), log.is_progress_bar_enabled()) == before
