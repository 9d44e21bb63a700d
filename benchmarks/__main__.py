"""`python -m benchmarks [name ...]`: run all benchmarks, or the named ones, and print their tables as Markdown."""

import importlib
import os
import sys
from pathlib import Path

# set before torch is imported: one thread, and no threads that spin while they wait
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

KNOWN = sorted(p.stem.removeprefix("bench_") for p in Path(__file__).parent.glob("bench_*.py"))


def main(names: list[str]) -> int:
    unknown = sorted(set(names) - set(KNOWN))
    if unknown:
        print(f"error: unknown benchmark {unknown[0]!r}; known are {', '.join(KNOWN)}", file=sys.stderr)
        return 1
    from benchmarks.machine import describe
    from ocd_core.allocator import keep_freed_memory

    keep_freed_memory()  # as in the stages
    print(describe())
    worst = 0
    for name in names or KNOWN:
        print(f"\n## {name}\n", flush=True)
        worst = max(worst, importlib.import_module(f"benchmarks.bench_{name}").main() or 0)
    return worst  # 1 if any benchmark misses its target


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
