"""Two processes that train together, started by torchrun, against one."""

import shutil
from contextlib import suppress

import pytest
import torch

from tests.diffusion.together import EARLY, interrupted, torchrun, train
from tests.support.repository import REPO


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """What each of the two processes found, the folder, and how the command ended."""
    folder = tmp_path_factory.mktemp("together")
    with suppress(InterruptedError):
        train(work_dir=folder / "left by one", progress=interrupted)
    shutil.copytree(folder / "left by one", folder / "of0")
    status, output = torchrun("tests.diffusion.together", str(folder), cwd=REPO)
    assert (folder / "1.pt").is_file(), output
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)], folder, (status, output)


def same(a, b, **tolerances):
    torch.testing.assert_close(a["state"], b["state"], **tolerances)
    assert len(a["curve"]) == len(b["curve"])
    for mine, theirs in zip(a["curve"], b["curve"], strict=True):
        assert mine == pytest.approx(theirs, **({"rel": 1e-4} if tolerances else {"rel": 0, "abs": 0}))


WITHIN_ROUNDING = {"rtol": 1e-4, "atol": 1e-6}  # 20 steps move a weight by some 1e-2


def test_two_processes_ran_and_end_with_the_same_bits(together):
    (main, other), _, _ = together
    assert (main["count"], other["count"]) == (2, 2)
    assert main["device"] == other["device"] == "cpu"
    for name in ("plain", "dropout", "early", "resumed"):
        same(main[name], other[name], rtol=0, atol=0)


def test_the_result_is_that_of_one_process_with_the_same_batch(together):
    (main, _), _, _ = together
    one = train()
    same(main["plain"], one, **WITHIN_ROUNDING)
    assert main["plain"]["taken"] == list(range(1, 21))
    with pytest.raises(AssertionError, match="not close"):  # a tolerance that tells another batch from this one
        same(main["plain"], train(batch_size=10), **WITHIN_ROUNDING)


def test_dropout_is_that_of_one_process_with_as_many_parts(together):
    """The weights; the validation takes its noise in blocks of a part's size, which is another one."""
    (main, _), _, _ = together
    as_many, fewer = train(dropout=0.3, accumulate=4), train(dropout=0.3)
    torch.testing.assert_close(main["dropout"]["state"], as_many["state"], **WITHIN_ROUNDING)
    assert [r["loss"] for r in main["dropout"]["curve"]] == pytest.approx([r["loss"] for r in as_many["curve"]])
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(main["dropout"]["state"], fewer["state"], **WITHIN_ROUNDING)


def test_all_stop_early_at_the_same_update(together):
    (main, other), _, _ = together
    assert main["early"]["metrics"] == other["early"]["metrics"]
    assert main["early"]["metrics"]["updates"] < EARLY["updates"]
    assert main["early"]["taken"] == other["early"]["taken"]


def test_checkpoints_are_of_any_number_of_processes(together):
    (main, other), folder, _ = together
    one = train()
    for found in (main["resumed"], other["resumed"]):
        assert found["taken"] == list(range(9, 21))
        same(found, one, **WITHIN_ROUNDING)
    again = train(work_dir=folder / "left by two")
    assert again["taken"] == list(range(9, 21))
    same(again, one, **WITHIN_ROUNDING)


def test_sums_and_the_main_processs_values_reach_all(together):
    for found in together[0]:
        assert found["added"][0].tolist() == [1, 3, 5]
        assert found["added"][1].tolist() == [[11, 11], [11, 11]]
        assert found["of_main"] == {"rank": 0}
        assert found["agree"] == (True, False)


def test_what_cannot_be_trained_together_is_refused_by_all(together):
    for found in together[0]:
        assert "diffusion.batch_size is 11" in found["too many"]
        assert "2 processes × 6 parts" in found["too many"]
        assert "different params, code, stores or versions of torch" in found["other data"]
        assert "the processes read different files as" in found["other file"]


def test_a_process_that_fails_ends_the_other(together):
    """It would take the other's million updates otherwise, or wait for ever."""
    _, _, (status, output) = together
    assert status == 1
    assert "process 1 is unlucky" in output
