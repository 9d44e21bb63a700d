"""The machine that benchmarks run on, and tools to measure time and memory."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "zarr", "numcodecs")


def describe() -> str:
    """The machine and the versions of packages, as Markdown."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB of memory; {platform.system()}, "
        f"Python {platform.python_version()}, {versions}. One torch thread. "
        f"Load average at the start: {os.getloadavg()[0]:.1f}."
    )


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock, and seconds of processor time over all threads of this process."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.perf_counter() - wall, time.process_time() - cpu


def peak_rss_mib() -> float:
    """The peak memory of this process in MiB (ru_maxrss would also count its parent's)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024


def in_subprocess(module: str, **arguments: Any) -> Any:
    """The last line that `python -m module '<json>'` prints, parsed as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, json.dumps(arguments)], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])
