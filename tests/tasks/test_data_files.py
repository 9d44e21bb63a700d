import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocd_core.errors import UserError
from ocd_core.tasks.data_files import local_files


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(folder: Path, patterns: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    found = local_files(folder, patterns)
    return {part: [file.relative_to(folder).as_posix() for file in files] for part, files in found.items()}


def refusal(folder: Path, patterns: Mapping[str, Sequence[str]]) -> str:
    with pytest.raises(UserError) as error:
        local_files(folder, patterns)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_files_are_in_the_order_of_the_patterns_then_sorted(tmp_path: Path) -> None:
    make(tmp_path, "b-10.parquet", "b-2.parquet", "a.parquet", "sub/b-1.parquet", "test.parquet")
    found = names(tmp_path, {"train": ["b-*.parquet", "a.parquet", "sub/*"], "test": ["test.parquet"]})
    assert found == {"train": ["b-10.parquet", "b-2.parquet", "a.parquet", "sub/b-1.parquet"], "test": ["test.parquet"]}
    assert names(tmp_path, {"train": ["**/b*"]})["train"] == ["b-10.parquet", "b-2.parquet", "sub/b-1.parquet"]


def test_the_order_is_that_of_the_datasets_library(tmp_path: Path) -> None:
    from datasets.data_files import DataFilesList

    make(tmp_path, *(f"{folder}p-{i}.parquet" for folder in ("", "x/", "x/y/", "é/") for i in (0, 1, 10, 2)))
    make(tmp_path, ".hidden/p-0.parquet", "__pycache__/p-0.parquet", ".p-3.parquet", "X/p-A.parquet")
    for patterns in (["**/p-*"], ["*.parquet"], ["x/**/*.parquet", "*0.parquet"], ["*/p-[01].parquet"], [".hidden/*"]):
        theirs = DataFilesList.from_local_or_remote(patterns, base_path=str(tmp_path))
        assert [str(file) for file in local_files(tmp_path, {"train": patterns})["train"]] == list(theirs), patterns


def test_a_file_in_two_parts(tmp_path: Path) -> None:
    make(tmp_path, "train-1.parquet", "test-1.parquet")
    assert refusal(tmp_path, {"train": ["*.parquet"], "test": ["test-*.parquet"]}) == (
        "data.train_files (*.parquet) and data.test_files (test-*.parquet) both name test-1.parquet; "
        "a file may be in one part only"
    )
    one = ["test-1.parquet"]
    assert "both name test-1.parquet" in refusal(tmp_path, {"train": ["train-1.parquet"], "val": one, "test": one})


@pytest.mark.parametrize(
    "patterns", [["train-2.parquet", "train-*.parquet"], ["train-2.parquet", "./train-2.parquet"], ["*", "*-2.parquet"]]
)
def test_a_file_twice_in_a_part(tmp_path: Path, patterns: list[str]) -> None:
    make(tmp_path, "train-1.parquet", "train-2.parquet")
    assert "names train-2.parquet, twice; name each file once" in refusal(tmp_path, {"train": patterns})


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_do_not_hide_a_file(tmp_path: Path, link: "type[os.symlink]") -> None:  # type: ignore[valid-type]
    folder = make(tmp_path / "data", "train.parquet")
    link(folder / "train.parquet", folder / "test.parquet")
    text = refusal(folder, {"train": ["train.parquet"], "test": ["test.parquet"]})
    assert "both name train.parquet and test.parquet, one file" in text
    (folder / "here").symlink_to(folder)
    assert "one file" in refusal(folder, {"train": ["train.parquet"], "test": ["here/train.parquet"]})


def test_names_that_look_like_patterns(tmp_path: Path) -> None:
    folder = make(tmp_path / "a[1]::b", "digits[1].parquet", "digits1.parquet", "ünï * code.parquet")
    assert names(folder, {"train": ["digits[1].parquet"], "val": ["digits1.parquet"]}) == {
        "train": ["digits[1].parquet"],
        "val": ["digits1.parquet"],
    }
    assert names(folder, {"train": ["*code*"]}) == {"train": ["ünï * code.parquet"]}


@pytest.mark.parametrize("name", ["", ".", "/etc/passwd", "../data/a.parquet", "x/../../a.parquet"])
def test_names_outside_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = make(tmp_path / "data", "a.parquet")
    assert refusal(folder, {"train": [name]}).startswith("data.train_files: ")


def test_a_pattern_without_a_file(tmp_path: Path) -> None:
    make(tmp_path, "a.parquet", "b/c.parquet")
    assert "has no file nope* (it holds a.parquet, b)" in refusal(tmp_path, {"val": ["nope*"]})
    assert "has no file b (it holds" in refusal(tmp_path, {"val": ["b"]})  # a folder
    (tmp_path / "gone.parquet").symlink_to(tmp_path / "nowhere")
    assert "has no file gone.parquet" in refusal(tmp_path, {"val": ["gone.parquet"]})
    assert "'**' must stand alone" in refusal(tmp_path, {"val": ["**.parquet"]})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["train", "val", "test"]),
        st.lists(st.sampled_from(["a*", "b*", "?1", "*", "a1", "b2"]), min_size=1, max_size=3),
        min_size=1,
    )
)
def test_each_file_is_read_once_or_refused(tmp_path: Path, patterns: dict[str, list[str]]) -> None:
    from fnmatch import fnmatch

    files = ["a1", "a2", "b1", "b2"]
    make(tmp_path, *files)
    matched = [file for named in patterns.values() for pattern in named for file in files if fnmatch(file, pattern)]
    if len(set(matched)) < len(matched):
        refusal(tmp_path, patterns)
    else:
        assert [file for found in names(tmp_path, patterns).values() for file in found] == matched
