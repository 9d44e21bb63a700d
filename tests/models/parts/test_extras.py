"""Networks whose packages are not installed."""

import builtins
from typing import Any

import pytest

from ocd_core.errors import UserError
from ocd_core.models import build_model


@pytest.mark.parametrize("name", ["rtdl_mlp", "rtdl_resnet"])
def test_without_the_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(module: str, *rest: Any, **more: Any) -> Any:
        if module == "rtdl_revisiting_models":
            raise ImportError(module)
        return real(module, *rest, **more)

    args = {"in_features": 3, "out_features": 1, "blocks": 1, "width": 2, **({} if "mlp" in name else {"hidden": 2})}
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'ocd-core\[tabular\]'"):
        build_model(name, args)
