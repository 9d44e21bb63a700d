"""One row against the others over several seeds, against scipy's paired t-test and values worked out by hand."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from experiments.paired import Asked, compared, table
from ocd_core.artifacts import Artifacts, write_json, write_table
from ocd_core.errors import UserError

RNG = np.random.default_rng(0)
BASE = [RNG.normal(1.0, 0.5, 40) for _ in range(2)]
SEEDS = [
    {"base": base, "ocd": base - 0.1 + RNG.normal(0, 0.1, 40), "ridge": base - 0.05 + RNG.normal(0, 0.1, 40)}
    for base in BASE
]


def test_it_is_the_paired_t_test_of_the_means_over_seeds():
    found = {name: rest for name, *rest in compared(SEEDS, "ocd")}
    assert list(found) == ["base", "ridge"]
    tests = {
        name: ttest_rel(np.mean([s["ocd"] for s in SEEDS], 0), np.mean([s[name] for s in SEEDS], 0)) for name in found
    }
    worst = max(tests, key=lambda name: tests[name].pvalue)
    for name, (mean, difference, each, z, p) in found.items():
        assert mean == pytest.approx(np.mean([s[name] for s in SEEDS]))
        assert difference == pytest.approx(np.mean([s["ocd"] - s[name] for s in SEEDS]))
        assert each == pytest.approx([ttest_rel(s["ocd"], s[name]).statistic for s in SEEDS])
        assert z == pytest.approx(tests[name].statistic)
        assert p == pytest.approx(tests[name].pvalue * (1 if name == worst else 2))  # Holm over two rows


def test_groups_are_the_samples_that_count():
    repeated = [{name: np.repeat(values, 3) for name, values in seed.items()} for seed in SEEDS]
    groups = np.repeat(np.arange(40), 3)
    plain, grouped = compared(SEEDS, "ocd"), compared(repeated, "ocd", groups)
    for a, b in zip(plain, grouped, strict=True):
        assert b[4] == pytest.approx(a[4])
        assert b[5] == pytest.approx(a[5])


def test_the_strongest_rival_comes_first():
    lines = table([("base", 1.0, -0.1, [-3.0, -2.0], -4.0, 1e-5), ("ridge", 0.9, 0.0, [0.1, 0.2], 0.2, 0.8)], "ocd")
    assert [line.split("|")[1].strip() for line in lines.splitlines()[2:]] == ["`ridge`", "`base`"]
    assert "| -3.0, -2.0 |" in lines
    small = table([("base", 0.0034567, -0.000123456, [-3.0], -4.0, 1e-5)], "ocd")
    assert "| 0.003457 | -0.000123 |" in " ".join(small.split()), small


def test_the_strongest_rival_has_the_highest_mean_where_higher_is_better():
    lines = table([("base", 9.0, 1.0, [3.0], 4.0, 1e-5), ("ridge", 10.0, 0.0, [0.1], 0.2, 0.8)], "ocd", True)
    assert [line.split("|")[1].strip() for line in lines.splitlines()[2:]] == ["`ridge`", "`base`"]
    assert "<.001" in lines


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(UserError, match="not every seed has the row bound; there are base, ocd, ridge"):
        compared(SEEDS, "bound")
    short = {name: values[:-1] for name, values in SEEDS[1].items()}
    with pytest.raises(UserError, match="different numbers of test samples"):
        compared([SEEDS[0], short], "ocd")


def test_it_reads_a_metric_of_each_row(tmp_path):
    run = Artifacts("toy", root=tmp_path)
    with pytest.raises(UserError, match="evaluate"):
        Asked().of(run)
    run.evaluation.mkdir(parents=True)
    metrics = [{"name": name, "higher_is_better": name == "psnr"} for name in ("mse", "psnr", "crps", "auc")]
    write_json(run.evaluation / "table.json", {"metrics": metrics})
    columns = {"base_mse": 0.5, "ocd_mse": 0.25, "base_psnr": 3.0, "base_crps": 0.3, "base_crps_with_noise": 0.2}
    write_table(run.evaluation / "samples.tsv", [{"sample_id": 0, **columns}])
    assert Asked().of(run) == ({"base": [0.5], "ocd": [0.25]}, False)
    assert Asked("psnr").of(run) == ({"base": [3.0]}, True)
    assert Asked("crps").of(run) == ({"base": [0.3]}, False)
    assert Asked("crps", with_noise=True).of(run) == ({"base": [0.2]}, False)
    for asked, words in (
        (Asked(tempered=True), r"--tempered: the rows of .* have no mse after a temperature"),
        (Asked(with_noise=True), r"--with-noise: the rows of .* have no mse with noise"),
        (Asked("auc"), "auc has no value of a single sample"),
        (Asked("rmse"), "no rmse; there are mse, psnr, crps, auc"),
    ):
        with pytest.raises(UserError, match=words):
            asked.of(run)
    write_table(run.evaluation / "samples.tsv", [{"sample_id": 0, "base_mse": 0.5, "base_mse_tempered": 0.4}])
    assert Asked(tempered=True).of(run) == ({"base": [0.4]}, False)
