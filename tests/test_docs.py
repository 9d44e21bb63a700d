"""The documentation's commands and links, parsed; what is short is run in tests/pipeline/test_workspace.py."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.support.repository import REPO, files_in

PAGES = [REPO / "README.md", *files_in("docs", ".md")]
OWN_TASK = "your-own-task.md"  # run from its first line to its last by test_own_task.py
# whose Python is run by test_own_task.py, test_own_images.py, test_own_table.py and test_four_calls.py
RUN_APART = (OWN_TASK, "your-own-images.md", "your-own-table.md", "four-calls.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# what is run as it stands; everything else is only parsed
RUN = (
    "ocd tasks",
    "ocd inspect",
    "ocd verify",
    "ocd predict",
    "ocd diagnose",
    "ocd report",
    "ocd export",
    "dvc exp show",
    "dvc metrics",
    "python -m stages.prepare",
)
KNOWN = ("make", "dvc", "ocd", "python", "source", "pip", "git", "torchrun", "accelerate", "dask", "cd", "export", "ls")


def blocks(language: str) -> list[tuple[str, str]]:
    return [(page.name, text) for page in PAGES for lang, text in BLOCK.findall(page.read_text()) if lang == language]


def commands() -> list[tuple[str, str]]:
    found = []
    for page, text in blocks("bash"):
        lines = text.replace("\\\n", " ").splitlines()
        found += [(page, line.split(" #")[0].strip()) for line in lines if line.strip() and line[0] != "#"]
    return found


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda v: v[:60])
def test_commands_parse_and_name_what_exists(page: str, command: str) -> None:
    words = [w for w in shlex.split(command) if "=" not in w or w.startswith("-")]
    assert words[0] in KNOWN, f"{page}: {command}"
    if words[0] == "make":
        for target in words[1:]:
            dry = subprocess.run(["make", "-n", target], cwd=REPO, capture_output=True, text=True, check=False)
            assert dry.returncode == 0, dry.stderr
    if words[:2] == ["python", "-m"]:
        module = Path(*words[2].split("."))
        assert (REPO / module.with_suffix(".py")).is_file() or (REPO / module).is_dir() or words[2] in ("pip", "pytest")
    for param in re.findall(r"-S '?params/(\w+)\.yaml:([\w.]+)=", command):
        from ruamel.yaml import YAML

        values = YAML(typ="safe").load((REPO / "params" / f"{param[0]}.yaml").read_text())
        for key in param[1].split("."):
            values = values[key]


@pytest.mark.parametrize(
    "link",
    sorted(
        {
            (page.name, target)
            for page in PAGES
            for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
        }
    ),
)
def test_links_lead_somewhere(link: tuple[str, str]) -> None:
    page, target = link
    folder = REPO if page == "README.md" else REPO / "docs"
    assert (folder / target).exists(), f"{page} links to {target}"


def test_files_named_in_the_tour_exist() -> None:
    for name in re.findall(
        r"`((?:ocd_core|stages|tests|benchmarks|experiments|docs)/[\w/.]*)`", (REPO / "README.md").read_text()
    ):
        assert (REPO / name).exists(), name
