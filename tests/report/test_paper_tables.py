"""The paper's tables: a sample of each, typed here from the paper, and what every entry must have."""

import collections

import pytest

from ocd_core.errors import UserError
from ocd_core.params_files import task_names
from ocd_core.report.paper_tables import (
    PaperValue,
    paper_datasets,
    paper_rows,
    paper_runtimes,
    paper_task,
    paper_value,
    paper_values,
    parse_tables,
)
from tests.support.repository import REPO

ICML, PREPRINT = "icml2023", "preprint2022"

# edition, table, printed row, data set, metric, value, ±, our row
SAMPLE = [
    (ICML, 1, "Base network", "MNIST", "cross_entropy", 0.080, 0.009, "base"),
    (ICML, 1, "Base network", "CIFAR10", "accuracy", 92.85, 0.40, "base"),
    (ICML, 1, "Overfitting on test", "MNIST", "cross_entropy", 0.002, 0.0001, "bound"),
    (ICML, 1, "Overfitting on test", "CIFAR10", "accuracy", 100.0, None, "bound"),
    (ICML, 1, "Overfitting on test (All Layers)", "CIFAR10", "cross_entropy", 0.073, 0.003, "bound_all_layers"),
    (ICML, 1, "OCD nearest neighbor ablation", "MNIST", "accuracy", 99.3, 0.1, "neighbour"),
    (PREPRINT, 1, "OCD no scaling ablation", "MNIST", "cross_entropy", 0.069, 0.010, "ocd_no_scale"),
    (PREPRINT, 1, "OCD alternative layer ablation", "CIFAR10", "accuracy", 92.96, 0.27, "ocd_alternative_layer"),
    (ICML, 1, "OCD (ours)", "MNIST", "cross_entropy", 0.010, 0.006, "ocd"),
    (PREPRINT, 1, "OCD (ours)", "MNIST", "accuracy", 99.7, 0.1, "ocd"),
    (ICML, 1, "Base network + Tent (Wang et al. (2021), 1 iter)", "MNIST", "cross_entropy", 0.075, 0.006, "tent_1"),
    (ICML, 1, "Base network + Tent (Wang et al. (2021), 10 iters)", "CIFAR10", "accuracy", 92.8, 0.41, "tent_10"),
    (ICML, 1, "Base network + Tent (Wang et al. (2021), 30 iters)", "MNIST", "accuracy", 99.3, 0.1, "tent_30"),
    (ICML, 2, "Swin L/4 (Liu et al., 2021b)", "TinyImageNet", "accuracy", 91.35, None, None),
    (ICML, 2, "DeiT-B/16-D (Touvron et al., 2022)", "TinyImageNet", "accuracy", 87.29, 0.3, "base"),
    (PREPRINT, 2, "DeiT-B/16-D (Touvron et al., 2022)", "TinyImageNet", "accuracy", 87.29, None, "base"),
    (ICML, 2, "DeiT-B/16-D + OCD", "TinyImageNet", "cross_entropy", 0.65, 0.09, "ocd"),
    (PREPRINT, 2, "DeiT-B/16-D + OCD, ensemble of five", "TinyImageNet", "accuracy", 92.0, None, "ocd_ensemble"),
    (ICML, 3, "Base model", "Lego", "mse", 0.010, 0.004, "base"),
    (PREPRINT, 3, "Base model", "Lego", "mse", 0.076, 0.004, "base"),
    (ICML, 3, "OCD no scaling", "Drums", "mse", 0.011, 0.008, "ocd_no_scale"),
    (PREPRINT, 3, "OCD no scaling ablation", "Hotdog", "mse", 0.060, 0.005, "ocd_no_scale"),
    (ICML, 3, "Overfitting on test", "Lego", "mse", 0.006, 0.001, "bound"),
    (PREPRINT, 3, "OCD (ours)", "Drums", "mse", 0.057, 0.006, "ocd"),
    (ICML, 4, "MLP", "California Housing", "rmse", 0.4990, 0.0030, "base"),
    (ICML, 4, "ResNet", "Microsoft LETOR4.0", "rmse", 0.7480, 0.0003, None),
    (PREPRINT, 4, "OCD + MLP (ours)", "Microsoft LETOR4.0", "rmse", 0.7430, 0.0004, "ocd"),
    (ICML, 4, "OCD + MLP no scale", "California Housing", "rmse", 0.5, 0.0030, "ocd_no_scale"),
    (ICML, 5, "SepIt (Lutati et al., 2022)", "Libri5Mix", "si_sdri", 13.2, 0.2, None),
    (ICML, 5, "Baseline + OCD + DM (ours)", "Libri5Mix", "si_sdri", 13.9, 0.1, None),
    (PREPRINT, 5, "OCD (ours)", "Libri5Mix", "si_sdri", 13.4, 0.1, "ocd"),
    (ICML, 6, "T-few 3B (Liu et al., 2022)", "AmazonCF", "mcc", 19.0, None, None),
    (ICML, 6, "SetFit (Tunstall et al., 2022)", "EnronSpam", "accuracy", 90.1, None, "base"),
    (ICML, 6, "Mean of 5 OCD instances", "CR", "accuracy", 90.3, None, "ocd_mean_network"),
    (PREPRINT, 6, "Ensemble of SetFit + OCD", "Emotion", "accuracy", 50.5, None, "ocd_ensemble"),
    (ICML, 8, "One instance", "SST-5", "cross_entropy", 0.45, 0.19, "ocd"),
    (PREPRINT, 7, "Mean network of 5 instances", "EnronSpam", "cross_entropy", 0.38, 0.19, "ocd_mean_network"),
]


def key(value: PaperValue) -> tuple[str, int, str, str, str]:
    return value.edition, value.table, value.printed_row, value.column, value.metric


@pytest.mark.parametrize("expected", SAMPLE, ids=lambda v: f"{v[0]}-{v[1]}-{v[2]}-{v[3]}")
def test_values_are_those_of_the_paper(expected: tuple) -> None:
    edition, table, printed_row, dataset, metric, value, plus_minus, row = expected
    (found,) = [v for v in paper_rows(dataset, edition) if v.printed_row == printed_row and v.metric == metric]
    assert (found.table, found.value, found.plus_minus, found.row) == (table, value, plus_minus, row)


@pytest.mark.parametrize(("edition", "table"), [(ICML, 7), (PREPRINT, 8)])
def test_runtimes(edition: str, table: int) -> None:
    found = [v for v in paper_values() if (v.edition, v.table) == (edition, table)]
    by_cell = {(v.printed_row, v.column): (v.value, v.unit, v.dataset, v.row) for v in found}
    assert len(by_cell) == 30
    assert by_cell["LeNet5", "Inference[ms] OCD"] == (288.0, "ms", None, None)
    assert by_cell["TinyNeRF", "Training[hrs] Overfit"] == (0.2, "h", None, None)
    assert by_cell["Gated-LSTM", "Training[hrs] Base"] == (30.0, "h", None, None)
    assert by_cell["SetFit", "Training[hrs] Diffusion"] == (5.1, "h", None, None)


def test_how_many_cells_each_table_has() -> None:
    count = collections.Counter((v.edition, v.table) for v in paper_values())
    assert count == {
        (ICML, 1): 10 * 4,
        (PREPRINT, 1): 7 * 4,
        (ICML, 2): 7 * 2,
        (PREPRINT, 2): 4 * 2,
        (ICML, 3): 4 * 3,
        (PREPRINT, 3): 4 * 3,
        (ICML, 4): 5 * 2,
        (PREPRINT, 4): 5 * 2,
        (ICML, 5): 6,
        (PREPRINT, 5): 5,
        (ICML, 6): 5 * 6,
        (PREPRINT, 6): 4 * 6,
        (ICML, 7): 6 * 5,
        (PREPRINT, 8): 6 * 5,
        (ICML, 8): 2 * 5,
        (PREPRINT, 7): 2 * 5,
    }


def test_no_cell_is_there_twice() -> None:
    count = collections.Counter(map(key, paper_values()))
    assert [k for k, n in count.items() if n > 1] == []
    ours = collections.Counter((v.edition, v.dataset, v.metric, v.row) for v in paper_values() if v.dataset and v.row)
    assert [k for k, n in ours.items() if n > 1] == []


def test_what_is_odd_has_a_note() -> None:
    empty = [v for v in paper_values() if v.value is None]
    assert all(v.note for v in empty)
    assert {(v.edition, v.table, v.printed_row, v.printed) for v in empty} == {
        (ICML, 1, "Base network + Tent (Wang et al. (2021), 30 iters)", ""),
        (ICML, 2, "Swin L/4 (Liu et al., 2021b)", "NA"),
        (PREPRINT, 2, "Swin L/4 (Liu et al., 2021b)", "NA"),
    }
    misprint = paper_value("tent_30", "TinyImageNet", "cross_entropy")
    assert misprint is not None
    assert (misprint.printed, misprint.value, misprint.plus_minus) == ("0.070 ± 0.03", 0.70, 0.03)
    assert misprint.note is not None
    assert "we read 0.70" in misprint.note
    assert all("preprint" in (v.note or "") for v in paper_rows("Lego", "icml2023"))


@pytest.mark.parametrize(("edition", "column"), [(ICML, "Mean"), (PREPRINT, "Average")])
def test_the_mean_of_table_6_is_that_of_its_columns(edition: str, column: str) -> None:
    rows = collections.defaultdict(dict)
    for v in paper_values():
        if (v.edition, v.table) == (edition, 6):
            rows[v.printed_row][v.column] = v.value
    for values in rows.values():
        mean = values.pop(column)
        assert sum(values.values()) / 5 == pytest.approx(mean, abs=0.07)


def test_lookup_by_our_row() -> None:
    ocd = paper_value("ocd", "Lego", "mse")
    assert ocd is not None
    assert (ocd.value, ocd.edition) == (0.008, ICML)
    old = paper_value("ocd", "Lego", "mse", "preprint2022")
    assert old is not None
    assert old.value == 0.052
    assert paper_value("tent_1", "MNIST", "accuracy", "preprint2022") is None
    assert paper_value("ocd", "Lego", "psnr") is None


def test_both_editions_or_one() -> None:
    both = paper_rows("MNIST")
    assert [v.edition for v in both] == [ICML] * 20 + [PREPRINT] * 14
    assert paper_rows("MNIST", "preprint2022") == both[20:]


def test_an_unknown_data_set_is_one_clear_error() -> None:
    with pytest.raises(UserError, match=r"no data set 'SVHN'; it has AmazonCF, CIFAR10, .*, TinyImageNet"):
        paper_rows("SVHN")


def test_tasks_and_the_data_sets_they_are_compared_with() -> None:
    found = {task: paper_task(task) for task in (*task_names(REPO), "my_own")}
    assert {task: t.dataset for task, t in found.items() if t is not None} == {
        "california": "California Housing",
        "cifar10": "CIFAR10",
        "cifar10_small": "CIFAR10",
        "letor": "Microsoft LETOR4.0",
        "libri5mix": "Libri5Mix",
        "speech_small": "Libri5Mix",
        "amazon_counterfactual_en": "AmazonCF",
        "cr": "CR",
        "emotion": "Emotion",
        "enron_spam": "EnronSpam",
        "mnist": "MNIST",
        "mnist5k": "MNIST",
        "sst5": "SST-5",
        "tiny_imagenet": "TinyImageNet",
        "tiny_imagenet_small": "TinyImageNet",
        "tinynerf": "Lego",
    }
    assert {task: t.architecture for task, t in found.items() if t is not None} == {
        "california": "MLP",
        "cifar10": "GoogleNet",
        "cifar10_small": "GoogleNet",
        "letor": "MLP",
        "libri5mix": "Gated-LSTM",
        "speech_small": "Gated-LSTM",
        **dict.fromkeys(("amazon_counterfactual_en", "cr", "emotion", "enron_spam", "sst5"), "SetFit"),
        "mnist": "LeNet5",
        "mnist5k": "LeNet5",
        "tiny_imagenet": "DeiT-B/16-D",
        "tiny_imagenet_small": "ResNet",
        "tinynerf": "TinyNeRF",
    }
    without = {None, "TinyImageNet"}  # the paper has no runtimes of DeiT
    for task, compared in found.items():
        runtimes = paper_runtimes(task)
        assert len(runtimes) == (0 if (compared and compared.dataset) in without else 5)
        assert {(v.edition, v.table, v.note) for v in runtimes} <= {(ICML, 7, "on an RTX 2060")}
    assert found["tinynerf_demo"] is found["my_own"] is None
    assert "5,000" in found["mnist5k"].note
    assert "25,000" in found["cifar10_small"].note
    assert "spoken digits" in found["speech_small"].note
    assert "a tenth" in found["tiny_imagenet_small"].note
    assert {t.dataset for t in found.values() if t is not None} <= set(paper_datasets())


HEAD = (
    "tasks: {}\ntables:\n  - editions: {icml2023: 1}\n    columns: [{printed: A, metric: mse, unit: ''}]\n    rows:\n"
)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{printed: R, cells: ['1', '2']}", "row 'R' does not have 1 cells"),
        ("{printed: R, cells: ['1 +- 2']}", "row 'R': '1 [+]- 2' is not a number"),
        ("{printed: R, row: occd, cells: ['1']}", r"tables\.0\.rows\.0\.row: Input should be 'base'"),
        ("{printed: R, cells: [{printed: NA}]}", r"tables\.0\.rows\.0\.cells\.0"),
        ("{printed: R, cells: [{printed: '1', read: one, note: n}]}", r"tables\.0\.rows\.0\.cells\.0"),
        ("{cells: ['1']}", r"tables\.0\.rows\.0\.printed: Field required"),
    ],
)
def test_a_file_with_a_mistake_is_refused_by_its_place(tmp_path, row: str, message: str) -> None:
    path = tmp_path / "tables.yaml"
    path.write_text(f"{HEAD}      - {row}\n")
    with pytest.raises(UserError, match=message):
        parse_tables(path)
