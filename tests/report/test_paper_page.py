"""The page that has results beside the paper's: which value is beside which row, and what is cited only."""

from typing import Any

from ocd_core.evaluation.result import Absent
from ocd_core.report.paper_page import paper_markdown
from ocd_core.report.paper_tables import paper_task
from ocd_core.report.results import merged_results
from tests.support.tables import result, table

CROSS_ENTROPY = {"name": "cross_entropy", "higher_is_better": False, "unit": "", "decimals": 3}
ACCURACY = {"name": "accuracy", "higher_is_better": True, "unit": "%", "decimals": 1}
CALIBRATION = {"name": "ece", "higher_is_better": False, "unit": "%", "decimals": 1}
MSE = {"name": "mse", "higher_is_better": False, "unit": "", "decimals": 4}
ABSENT = [
    {"row": "ocd_no_scale", "status": "left out", "why": "the representation has no scale"},
    {"row": "tent_1", "status": "failed", "why": "a loss was not finite"},
    {"row": "ridge", "status": "left out", "why": "it is a test"},
]
NOT_RUN = [Absent(row="ocd_paper", status="not run", why="it takes 3 hours")]


def digits(**changes: Any) -> dict[str, Any]:
    """A run of mnist5k: base, a hypernetwork (which the paper does not have), OCD and the bound."""
    results = []
    for row, loss, accuracy in (
        ("base", 0.12, 96.0),
        ("hypernetwork", 0.11, 96.5),
        ("ocd", 0.1, 97.0),
        ("bound", 0.01, 100.0),
    ):
        results += [
            result(row, loss, metric="cross_entropy"),
            result(row, loss / 2, metric="cross_entropy", temperature=1.5),
            result(row, accuracy, metric="accuracy"),
            result(row, 3.0, metric="ece"),
        ]
    metrics = [CROSS_ENTROPY, ACCURACY, CALIBRATION]
    return table(
        **{"task": "mnist5k", "layer": "fc2", "metrics": metrics, "results": results, "absent": ABSENT, **changes}
    )


def page(*tables: dict[str, Any], not_run: list[Absent] = NOT_RUN) -> str:
    entry = merged_results(tables)[0]
    compared = paper_task(entry.tables[0]["task"])
    assert compared is not None
    return paper_markdown(entry, compared, not_run)


def cells(text: str) -> dict[str, list[str]]:
    """{first cell: the others} of the rows of the page's table."""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert len({line[0] for line in lines}) == len(lines), "a row is there twice"
    assert {len(line) for line in lines} == {len(lines[0])}
    return {first: rest for first, *rest in lines}


def test_the_paper_is_beside_each_row() -> None:
    text = page(digits())
    found = cells(text)
    assert found["method"] == [
        "cross entropy, here",
        "cross entropy, ICML 2023",
        "accuracy %, here",
        "accuracy %, ICML 2023",
    ]
    assert found["the base"] == ["0.120", "0.080 ± 0.009", "96.0", "99.2 ± 0.1"]
    assert found["the ocd"] == ["0.100", "0.010 ± 0.006", "97.0", "99.7 ± 0.1"]
    assert found["the bound"] == ["0.010", "0.002 ± 0.0001", "100.0", "100"]
    assert found["the hypernetwork"] == ["0.110", "", "96.5", ""]
    assert text.startswith("# mnist5k beside the paper\n")
    assert "**mnist5k, layer fc2 (rank 1), 20 test samples, seed 0**" in text
    assert "Data set: MNIST (ICML 2023, Tab. 1" in text
    assert "this task uses 5,000 of the paper's 70,000 digits." in text


def test_seeds_have_a_mean_and_a_spread() -> None:
    other = [{**r, "mean": r["mean"] + 0.02} for r in digits()["results"]]
    text = page(digits(), digits(seed=1, results=other))
    assert cells(text)["the ocd"][0] == "0.110 ± 0.014"
    assert "seeds 0, 1, mean ± SD over seeds**" in text


def test_absent_rows_are_there_once_and_say_why() -> None:
    text = page(digits())
    found = cells(text)
    assert found["`ocd_no_scale` (left out)"] == ["–", "0.069 ± 0.010", "–", "99.3 ± 0.1"]
    assert found["`tent_1` (failed)"] == ["–", "0.075 ± 0.006", "–", "99.4 ± 0.1"]
    assert found["`ridge` (left out)"] == ["–", "", "–", ""]
    assert found["`ocd_paper` (not run)"] == ["–", "", "–", ""]
    assert "`ocd_no_scale`: left out, because the representation has no scale." in text
    assert "`ocd_paper`: not run, because it takes 3 hours." in text


def test_rows_that_only_the_paper_has_are_cited() -> None:
    found = cells(page(digits()))
    cited = {first: rest for first, rest in found.items() if "cited" in first}
    assert cited["OCD nearest neighbor ablation (cited, not run)"] == ["–", "0.073 ± 0.010", "–", "99.3 ± 0.1"]
    assert [first.split(" (")[0] for first in cited] == [
        "Overfitting on test",  # in all layers
        "OCD nearest neighbor ablation",
        "OCD alternative layer ablation",
        "Base network + Tent",
        "Base network + Tent",
    ]
    assert not any("no scaling" in first or "1 iter)" in first for first in cited)


def test_the_alternative_layer_is_no_longer_cited_once_it_has_run() -> None:
    found = cells(page(digits(), digits(rank=2, layer="fc1")))
    assert found["OCD, alternative layer (fc1)"] == ["0.100", "0.078 ± 0.010", "97.0", "99.2 ± 0.1"]
    assert not any("alternative layer ablation" in first for first in found)


def test_editions_that_differ_have_columns_of_their_own() -> None:
    results = [result("base", 0.00515, metric="mse"), result("ocd", 0.00341, metric="mse")]
    text = page(table(task="tinynerf", metrics=[MSE], results=results, absent=ABSENT[:1]))
    found = cells(text)
    assert found["method"] == ["mse, here", "mse, ICML 2023", "mse, preprint 2022"]
    assert found["the base"] == ["0.0052", ".010 ± .004", "0.076 ± 0.004"]
    assert found["the ocd"] == ["0.0034", ".008 ± .006", "0.052 ± 0.006"]
    assert found["`ocd_no_scale` (left out)"] == ["–", ".009 ± .008", "0.070 ± 0.008"]
    assert found["Overfitting on test (cited, not run)"] == ["–", ".006 ± .001", "0.043 ± 0.005"]
    assert "(ICML 2023, Tab. 3; preprint 2022, Tab. 3)" in text


def test_a_task_that_the_paper_lacks_has_no_page() -> None:
    assert paper_task("tinynerf_demo") is None
