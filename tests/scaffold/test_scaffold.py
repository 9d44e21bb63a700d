"""The values that new tasks start with."""

from ocd_core.config import GROUPS_UP_TO
from ocd_core.scaffold import method_values


def test_every_group_of_the_method_is_there() -> None:
    groups = {key.split(".")[0] for key in GROUPS_UP_TO["evaluation"]}
    assert set(method_values()) == groups - {"domain", "data", "base"}
