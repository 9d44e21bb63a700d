"""Domains by name."""

from ocd_core.tasks import task_class
from ocd_core.tasks.views.task import ViewSynthesis


def test_domain_is_found_by_name():
    assert task_class("views") is ViewSynthesis
