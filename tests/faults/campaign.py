"""`make faults`: kill stages and whole pipelines at random moments, and try many more cases than the tests do.

    python -m tests.faults.campaign [--stage 50] [--pipeline 50] [--repro 100] [--run 100] [--stores 500] [--params]
        [--seed N]

stage: kills of the overfit stage. pipeline: of all stages in one process. repro, run: of `dvc repro` and `ocd run` with
all that they started. After each kill a rerun must repair everything, byte for byte. stores: how many sequences of
operations on a store are tried. params: also try all values of all params. It prints the seed of its moments.
"""

import argparse
import random
import secrets
import shutil
import signal
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults import commands, pipeline
from tests.faults.killing import Lengths, kill_once, lengths_undisturbed
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
from tests.store.test_machine import TRIED, StoreMachine


def stage_kills(kills: int, rng: random.Random, folder: Path) -> Counter[str]:
    """Kill and repair so many times; how often the stage was at which point. Fails at the first difference.

    A run that ends before its kill does not count, and later kills come sooner.
    """
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


# option -> (kills, where, by default so often)
KILLS = {
    "stage": (stage_kills, "the overfit stage", 50),
    "pipeline": (pipeline.random_kills, "all stages in one process", 50),
    "repro": (partial(commands.random_kills, commands.REPRO), "`dvc repro`", 100),
    "run": (partial(commands.random_kills, commands.RUN), "`ocd run`", 100),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, (_, where, times) in KILLS.items():
        parser.add_argument(f"--{option}", type=int, default=times, help=f"kills of {where}")
    parser.add_argument("--stores", type=int, default=500, help="sequences of operations on a store")
    parser.add_argument("--params", action="store_true", help="also try all values of all params")
    parser.add_argument("--seed", type=int, default=None, help="of the moments")
    args = parser.parse_args()
    # a shell starts what runs in the background with SIGINT ignored, which everything started from here would inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seed = secrets.randbelow(2**32) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    for option, (kill, where, _) in KILLS.items():
        if times := getattr(args, option):
            start = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                points = kill(times, random.Random(seed), Path(folder))
            for point, count in sorted(points.items()):
                print(f"{count:4d}  {point}")
            print(
                f"{times} kills of {where}: all repaired, byte for byte ({time.monotonic() - start:.0f} s)", flush=True
            )
    if args.stores:
        run_state_machine_as_test(StoreMachine, settings=settings(TRIED, max_examples=args.stores))
        print(f"{args.stores} sequences of operations on a store: all as they should be", flush=True)
    if args.params:
        print(f"{sum(map(try_values, TASKS))} params files with one wrong value: no traceback")


if __name__ == "__main__":
    main()
