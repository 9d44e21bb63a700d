"""Members of a deep ensemble with and without OCD, against plain sums over the same networks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import members
from experiments.members import Compared, Member, compare, table
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.samples import only, stack, whole_split
from stages import code, overfit, prepare, score_layers, train_base, train_diffusion, train_scale, tune_diffusion
from tests.support.runs import TUNING
from tests.support.toy import write_toy_params


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[Member]:
    root = tmp_path_factory.mktemp("members")
    write_toy_params(root, tuning=TUNING)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        code.main("toy")
        prepare.main("toy")
        for seed in (0, 1):
            for stage in (train_base, score_layers, overfit, train_diffusion, train_scale, tune_diffusion):
                stage.main("toy", seed)
    return [Member.of("toy", seed, root) for seed in (0, 1)]


def test_lines_are_plain_means_over_the_same_networks(two) -> None:
    lines = {line.title: line for line in compare(two)}
    split = two[0].context.split("test")
    batch = split.batch(whole_split(split))
    bases, moved = [], []
    for member in two:
        shared = SharedPass(member.context.predictor, batch, "test")
        bases.append(only(shared.base.output))
        draws = [only(shared.drawn(member.context.tuned).output(k)) for k in range(3)]
        moved.append(torch.stack(draws).mean(0))

    def mse(output) -> np.ndarray:
        return (output - batch.target).square().mean(1).double().numpy()

    np.testing.assert_allclose(lines["one member (mean): base"].losses, (mse(bases[0]) + mse(bases[1])) / 2, rtol=1e-6)
    np.testing.assert_allclose(lines["2 members: base"].losses, mse(only(stack(bases)).mean(0)), rtol=1e-6)
    np.testing.assert_allclose(
        lines["2 members: ocd_tuned_ensemble"].losses, mse(only(stack(moved)).mean(0)), rtol=1e-5
    )
    assert all(line.tempered is None and line.accuracy is None for line in lines.values())


def test_any_row_of_the_evaluation(two, monkeypatch, capsys) -> None:
    monkeypatch.chdir(two[0].context.run.root)
    members.main("toy", "0,1", "ocd, base")
    found = [row.split("|")[1].strip() for row in capsys.readouterr().out.splitlines()[2:]]
    assert found == ["one member (mean): base", "one member (mean): ocd", "2 members: base", "2 members: ocd"]
    with pytest.raises(UserError, match="magic"):
        members.main("toy", "0,1", "magic")


def test_the_table_tests_against_the_ensemble_of_bases() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(1, 0.1, 50)
    lines = [Compared("a", base - 0.5, base, 90.0), Compared("bases", base, base, 80.0)]
    found = [[cell.strip() for cell in row.strip("|").split("|")] for row in table(lines, bases=1).splitlines()]
    assert found[0] == ["method", "loss", "z", "p", "loss +T", "z", "p", "accuracy %"]
    assert found[2][0] == "a"
    assert found[2][1] == f"{base.mean() - 0.5:.4f}"
    assert found[2][-1] == "90.00"
    assert found[3][2:4] == ["", ""]
    assert found[2][5] == "+0.0"


def test_a_run_without_tuning_is_refused(two, tmp_path, monkeypatch) -> None:
    root = two[0].context.run.root
    text = (root / "params" / "toy.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    for name in ("data", "params"):
        (tmp_path / name).symlink_to(root / name) if name == "data" else (tmp_path / name).mkdir()
    Path("params/toy.yaml").write_text(text)
    write_toy_params(tmp_path, tuning={**TUNING, "updates": 0})
    with pytest.raises(UserError, match="seed 0: ocd_tuned_ensemble"):
        Member.of("toy", 0, tmp_path)


def test_one_seed_is_no_ensemble(monkeypatch) -> None:
    monkeypatch.setattr(members.Member, "of", lambda *args: None)
    with pytest.raises(UserError, match="at least two members"):
        members.main("toy", "0")


def test_every_number_of_draws_is_a_line(two, monkeypatch) -> None:
    root = two[0].context.run.root
    params = load_params("toy", root)
    draws = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"draws": [2, 3]})})
    monkeypatch.setattr(members, "load_params", lambda *_: draws)
    assert list(Member.of("toy", 0, root, ["ocd_ensemble"]).rows) == ["base", "ocd_ensemble_2", "ocd_ensemble_3"]
