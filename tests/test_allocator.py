"""Page faults are counted in processes of their own, since what malloc keeps belongs to a whole process."""

import json
import os
import platform
import subprocess
import sys
from types import SimpleNamespace

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
found = [render() for _ in range(9)]
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({
    "kept": kept,
    "faults": [faults for faults, _ in found],
    "mib": peak,
    "colours": [colours.double().sum().item().hex() for _, colours in found],
}))
"""


def in_a_process(program: str, way: str, **environment: str) -> dict:
    """What a program prints, with nothing in its environment that speaks of malloc but what is given."""
    done = subprocess.run(
        [sys.executable, "-c", program, way],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))} | environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def renderings(way: str, **environment: str) -> dict:
    return in_a_process(RENDERINGS, way, **environment)


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_renderings_reuse_memory_and_give_the_same_colours() -> None:
    default, kept = renderings("default"), renderings("keep")
    assert kept["kept"] is True
    # all activations of a view, and more: 63 + 2 * 128 numbers per point
    assert min(default["faults"]) > 64 * 64 * 32 * (63 + 2 * 128) * 4 / os.sysconf("SC_PAGE_SIZE") / 2
    # the median, because now and then the heap grows by a block, up to twice in three renderings
    assert sorted(kept["faults"])[4] * 20 < min(default["faults"])
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


# 300 blocks of 2 MiB, every other one freed: no hole is at the heap's end
HOLES = """
import json, sys, time
import torch
from ocd_core import allocator

allocator._HOLES_BYTES, allocator._SECONDS = 2**27, 0.02
if sys.argv[1] == "no thread":
    allocator.threading.Thread = lambda **_kwargs: type("Thread", (), {"start": lambda self: None})()
assert allocator.keep_freed_memory()
blocks = [torch.ones(2**19) for _ in range(300)]
before = allocator._resident_bytes()
del blocks[::2]
end = time.monotonic() + (20 if sys.argv[1] == "thread" else 1)
while time.monotonic() < end and before - allocator._resident_bytes() < 200 * 2**20:
    time.sleep(0.05)
kept = sum(block.sum().item() for block in blocks)
print(json.dumps({"given_back": (before - allocator._resident_bytes()) / 2**20, "kept": kept}))
"""


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_holes_between_blocks_are_given_back() -> None:
    with_thread, without = in_a_process(HOLES, "thread"), in_a_process(HOLES, "no thread")
    assert with_thread["given_back"] > 200  # of 300 MiB
    assert without["given_back"] < 50
    assert with_thread["kept"] == without["kept"] == 150 * 2**19


def test_holes_are_given_back_only_if_they_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([100 + allocator._HOLES_BYTES, 101 + allocator._HOLES_BYTES, 50])
    trimmed = []

    class Library:
        def mallinfo2(self) -> SimpleNamespace:
            return SimpleNamespace(uordblks=100)

        def malloc_trim(self, pad: int) -> None:
            trimmed.append(pad)

    monkeypatch.setattr(allocator.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(allocator, "_resident_bytes", lambda: next(sizes))
    with pytest.raises(StopIteration):
        allocator._watch(Library())
    assert trimmed == [0]


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_nothing_happens_with_another_c_library(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self, name: None) -> None:
            if error is not AttributeError:
                raise error("no such library")

    monkeypatch.setattr(allocator.ctypes, "CDLL", Library)
    assert keep_freed_memory() is False
