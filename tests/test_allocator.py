"""Page faults are counted in processes of their own, since what malloc keeps belongs to a whole process."""

import json
import os
import platform
import subprocess
import sys

import pytest

from ocd_core import allocator
from ocd_core.allocator import keep_freed_memory

GLIBC = platform.libc_ver()[0] == "glibc"
# a whole view of 64 x 64 pixels at 32 depths: its activations have 67 MB each
RENDERINGS = """
import json, resource, sys
import torch
from ocd_core.allocator import keep_freed_memory
from ocd_core.models.tinynerf import TinyNeRF

kept = keep_freed_memory() if sys.argv[1] == "keep" else None
torch.set_num_threads(1)
torch.manual_seed(0)
net = TinyNeRF()
origins, directions = torch.randn(2, 1, 64 * 64, 3)
depths = torch.linspace(2, 6, 32).expand(1, 64 * 64, 32)

@torch.inference_mode()
def render():
    before = resource.getrusage(resource.RUSAGE_SELF)
    colours = net(origins, directions, depths)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_minflt - before.ru_minflt, colours

for _ in range(2):
    render()
found = [render() for _ in range(3)]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({
    "kept": kept,
    "faults": [faults for faults, _ in found],
    "mib": peak,
    "colours": [colours.double().sum().item().hex() for _, colours in found],
}))
"""


def renderings(way: str, **environment: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", RENDERINGS, way],
        capture_output=True,
        text=True,
        check=True,
        env={k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))} | environment,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_renderings_reuse_memory_and_give_the_same_colours() -> None:
    default, kept = renderings("default"), renderings("keep")
    assert kept["kept"] is True
    # all activations of a view, and more: 63 + 2 * 128 numbers per point
    assert min(default["faults"]) > 64 * 64 * 32 * (63 + 2 * 128) * 4 / os.sysconf("SC_PAGE_SIZE") / 2
    assert max(kept["faults"]) * 20 < min(default["faults"])
    assert kept["colours"] == default["colours"]
    assert kept["mib"] < 1.5 * default["mib"]


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_MMAP_MAX_", "65536"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=65536")]
)
def test_the_environment_counts(name: str, value: str) -> None:
    found = renderings("keep", **{name: value})
    assert found["kept"] is False
    assert min(found["faults"]) > 10_000


# large blocks of growing size, each freed before the next; a small block that stays lies behind each
HOLES = """
import json, resource, sys, time
import torch
from ocd_core import allocator

allocator._HOLES_BYTES, allocator._SECONDS = 2**27, 0.02
if sys.argv[1] == "no thread":
    allocator.threading.Thread = lambda **_kwargs: type("Thread", (), {"start": lambda self: None})()
assert allocator.keep_freed_memory()
torch.set_num_threads(1)
start, small, largest = allocator._resident_bytes(), [], 0
for i in range(60):
    large = torch.ones((16 + i) * 2**18)  # 16 MiB and more
    small.append(torch.ones(2**15))
    del large
    largest = max(largest, allocator._resident_bytes() - start)
    time.sleep(0.05)
print(json.dumps(largest / 2**20))
"""


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_holes_between_blocks_are_given_back() -> None:
    def largest(way: str) -> float:
        done = subprocess.run([sys.executable, "-c", HOLES, way], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    # the blocks have 2.7 GiB in all; with the thread, 128 MiB of holes and the largest block remain
    assert largest("no thread") > 700
    assert largest("thread") < 450


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_nothing_happens_with_another_c_library(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self, name: None) -> None:
            if error is not AttributeError:
                raise error("no such library")

    monkeypatch.setattr(allocator.ctypes, "CDLL", Library)
    assert keep_freed_memory() is False
