"""Domains by name: those of this package, those of installed packages, and classes by their place."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from ocd_core import tasks as module
from ocd_core.errors import UserError
from ocd_core.tasks import domain_names, domain_target, task_class
from ocd_core.tasks.images.task import ImageClassification
from ocd_core.tasks.speech.task import SpeechSeparation
from ocd_core.tasks.tabular.task import Tabular
from ocd_core.tasks.text.task import TextClassification
from ocd_core.tasks.views.task import ViewSynthesis
from tests.support.arrays import ArrayTask

OWN = {
    "images": ImageClassification,
    "speech": SpeechSeparation,
    "tabular": Tabular,
    "text": TextClassification,
    "views": ViewSynthesis,
}


@pytest.mark.parametrize("name", OWN)
def test_a_domain_of_this_package_is_a_folder(name: str) -> None:
    assert task_class(name) is OWN[name]
    assert domain_target(name) == f"ocd_core.tasks.{name}.task:TASK"


def test_a_class_by_its_place() -> None:
    assert domain_target("a.b:C") == "a.b:C"
    assert task_class("tests.support.arrays:ArrayTask") is ArrayTask


def test_installed_packages_add_domains_and_hide_none(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("arrays", "tests.support.arrays:ArrayTask", "ocd.tasks"),
        EntryPoint("images", "tests.support.arrays:ArrayTask", "ocd.tasks"),
        EntryPoint("other", "tests.support.arrays:ArrayTask", "ocd.models"),
    ]
    monkeypatch.setattr(module, "entry_points", lambda group: EntryPoints(points).select(group=group))
    assert set(domain_names()) == {*OWN, "arrays"}
    assert task_class("arrays") is ArrayTask
    assert task_class("images") is ImageClassification


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (
            "sculpture",
            r"unknown domain 'sculpture'; known are .*images, .*views\. Register your own with an entry point",
        ),
        ("base", "unknown domain 'base'"),
        ("ocd_core.nothing:Task", r"cannot import domain .*\(ocd_core\.nothing:Task\): No module named"),
        ("ocd_core.config:Nothing", r"cannot import domain .*has no attribute 'Nothing'"),
        ("ocd_core.config:Params", r"ocd_core\.config:Params is not a subclass of ocd_core\.tasks\.Task"),
        ("ocd_core.tasks.images.task:MLXTEND_LICENCE", "is not a subclass of"),
    ],
)
def test_what_is_no_domain_is_named(domain: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        task_class(domain)
