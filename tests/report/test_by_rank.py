from ocd_core.artifacts import Artifacts
from ocd_core.report.by_rank import page_by_rank


def test_each_rank_has_a_title_and_its_own_runs() -> None:
    runs = [Artifacts("toy", seed, rank) for seed, rank in ((0, 2), (0, 1), (3, 1))]
    page = page_by_rank("About.\n", runs, lambda group: f"{[(r.rank, r.seed) for r in group]}\n")
    assert page == (
        "About.\n\n"
        "**toy, layer of rank 1, seeds 0, 3**\n\n[(1, 0), (1, 3)]\n\n"
        "**toy, layer of rank 2, seed 0**\n\n[(2, 0)]\n"
    )
