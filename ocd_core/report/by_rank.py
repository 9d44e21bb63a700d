"""A task's runs, one part of a page per layer rank."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from ocd_core.artifacts import Artifacts


def page_by_rank(about: str, runs: Sequence[Artifacts], part: Callable[[list[Artifacts]], str]) -> str:
    """An introduction, and below it for each rank its title and what `part` says of its runs, one per seed."""
    by_rank: dict[int, list[Artifacts]] = defaultdict(list)
    for run in runs:
        by_rank[run.rank].append(run)
    return "\n".join([about, *(f"{_title(group)}\n\n{part(group)}" for _, group in sorted(by_rank.items()))])


def _title(runs: list[Artifacts]) -> str:
    seeds = ", ".join(str(run.seed) for run in runs)
    return f"**{runs[0].task}, layer of rank {runs[0].rank}, seed{'s' if len(runs) > 1 else ''} {seeds}**"
