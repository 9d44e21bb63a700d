"""`make faults`: kill the overfit stage and the whole pipeline at random moments, and try all wrong values of params.

    python -m tests.faults.campaign [--kills 50] [--pipeline-kills 50] [--params] [--seed N]

After each kill a rerun must repair everything, byte for byte. It prints the seed of its moments.
"""

import argparse
import random
import secrets
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.killing import Lengths, kill_once, lengths_undisturbed
from tests.faults.pipeline import random_kills
from tests.faults.support import (
    SHARDS,
    assert_undisturbed,
    copy_run,
    file_hashes,
    finished_shards,
    make_run,
    overfit,
    store_of,
    work_of,
)
from tests.faults.test_params import TASKS, try_values


def campaign(kills: int, seed: int, folder: Path) -> Counter[str]:
    """Kill and repair so many times; how often the stage was at which point. Fails at the first difference.

    A run that ends before its kill does not count, and later kills come sooner.
    """
    rng = random.Random(seed)
    ready = folder / "ready"
    ready.mkdir()
    make_run(ready)
    whole = copy_run(ready, folder / "whole")
    lengths_undisturbed(whole)  # the first process also waits for the fork server
    again = copy_run(ready, folder / "again")
    lengths = lengths_undisturbed(again)
    undisturbed = file_hashes(store_of(whole).parent)
    assert file_hashes(store_of(again).parent) == undisturbed
    points: Counter[str] = Counter()
    while points.total() < kills:
        root = folder / "run"
        shutil.rmtree(root, ignore_errors=True)
        copy_run(ready, root)
        alive = kill_once(root, lengths, rng)
        left = work_of(root)
        kept = finished_shards(left or store_of(root))
        if alive:
            points[f"{len(kept)} of {SHARDS} shards" if left else "store in place" if kept else "nothing yet"] += 1
        else:
            lengths = Lengths(0.8 * lengths.whole, 0.8 * lengths.writing)
        overfit(root)
        assert kept.items() <= finished_shards(store_of(root)).items(), "a finished shard was made again"
        assert_undisturbed(root, undisturbed)
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="of the moments")
    parser.add_argument("--pipeline-kills", type=int, default=50)
    parser.add_argument("--params", action="store_true", help="also try all values of all params")
    args = parser.parse_args()
    seed = secrets.randbelow(2**32) if args.seed is None else args.seed
    print(f"{args.kills} kills of the overfit stage, {args.pipeline_kills} of the pipeline, seed {seed}")
    start = time.monotonic()
    points: Counter[str] = Counter()
    if args.kills:
        with tempfile.TemporaryDirectory() as folder:
            points += campaign(args.kills, seed, Path(folder))
    if args.pipeline_kills:
        with tempfile.TemporaryDirectory() as folder:
            points += random_kills(args.pipeline_kills, random.Random(seed), Path(folder))
    for point, times in sorted(points.items()):
        print(f"{times:4d}  killed at: {point}")
    print(f"all repaired, byte for byte ({time.monotonic() - start:.0f} s)")
    if args.params:
        print(f"{sum(map(try_values, TASKS))} params files with one wrong value: no traceback")


if __name__ == "__main__":
    main()
