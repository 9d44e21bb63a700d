"""What counts as the same network, loss or data."""

import argparse
import functools
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ocd_core.calls.identity import function_digest, network_digest, tensor_digest
from tests.calls.support import perceptron


def scaled(by):
    return lambda o, t: by * F.cross_entropy(o, t, reduction="none")


def test_networks() -> None:
    assert network_digest(perceptron()) == network_digest(perceptron())
    others = [perceptron(seed=1), perceptron(outputs=3), nn.Sequential(*perceptron()[:1], nn.Tanh(), perceptron()[2])]
    assert len({network_digest(m) for m in [perceptron(), *others]}) == 4


def test_functions_count_by_their_code_and_what_they_close_over() -> None:
    assert function_digest(scaled(2)) == function_digest(scaled(2))
    different = [
        scaled(2), scaled(3), F.mse_loss, functools.partial(F.mse_loss, reduction="none"), nn.MSELoss(reduction="none"),
        nn.MSELoss(), lambda o, t: (o - t).square().mean(1), lambda o, t: (o - t).abs().mean(1),
    ]  # fmt: skip
    assert len({function_digest(f) for f in different}) == len(different)


def test_tensors() -> None:
    x = torch.arange(6.0)
    assert tensor_digest(x) == tensor_digest(x.clone())
    assert len({tensor_digest(t) for t in (x, x.reshape(2, 3), x.double(), x + 1, torch.zeros(0))}) == 5


def test_sparse_tensors() -> None:
    assert tensor_digest(torch.eye(3).to_sparse()) == tensor_digest(torch.eye(3))


class Focal:
    """A loss that is an object."""

    def __init__(self, gamma: float, *others: Any) -> None:
        self.gamma, self.others = gamma, others

    def __call__(self, output, target):
        return self.of(output, target)

    def of(self, output, target):
        return self.gamma * F.cross_entropy(output, target, reduction="none")


class Slotted:
    __slots__ = ("gamma",)

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma

    def __call__(self, output, target):
        return self.gamma * output


class FocalModule(nn.Module):
    """A loss with attributes of all kinds."""

    def __init__(self, gamma: float = 1.0, weight: Any = None, act: Any = torch.relu) -> None:
        super().__init__()
        self._gamma, self.weight, self.act = gamma, weight, act

    def forward(self, output, target):
        return self._gamma * self.act(output) * self.weight


def around(value: Any) -> Any:
    return lambda o, t: (o - t) * value


def with_default(value: Any) -> Any:
    def loss(o, t, *, gamma=value):
        return o * gamma

    return loss


@pytest.mark.parametrize(
    "make",
    [
        Focal,
        Slotted,
        FocalModule,
        lambda v: Focal(1.0, [v], {v}),
        lambda v: FocalModule(weight=torch.tensor([v, 1.0])),
        lambda v: FocalModule(weight=[v]),
        lambda v: FocalModule(act=torch.relu if v == 1 else torch.tanh),
        lambda v: FocalModule(act=torch.Tensor.relu if v == 1 else torch.Tensor.tanh),
        lambda v: Focal(v).of,
        with_default,
        lambda v: around(np.array([v, 2.0])),
        lambda v: around({"gamma": [v]}),
        lambda v: around(argparse.Namespace(gamma=v)),
        lambda v: around(around(torch.tensor(v))),
        lambda v: around(torch.distributions.Normal(v, 1.0)),
        lambda v: functools.partial(F.nll_loss, weight=torch.tensor([v])),
        lambda v: torch.compile(around(v), backend="eager"),
        lambda v: functools.lru_cache(around(v)),
        lambda v: nn.TransformerEncoderLayer(4, 2, activation=F.relu if v == 1 else F.gelu),
    ],
)
def test_losses_count_by_what_they_hold(make) -> None:
    with torch.random.fork_rng([]):
        found = []
        for value in (1.0, 1.0, 5.0):
            torch.manual_seed(0)
            found.append(function_digest(make(value)))
    assert found[0] == found[1] != found[2]


HELPERS = """
def weight(o):
    return o.abs() + 1

unused = 1
"""
MODULE = """
import argparse, logging
import torch
import helpers

GAMMA, TABLE, calls = 2.0, torch.arange(3.0), 0
mean, log, args = 3, logging.getLogger("of this"), argparse.Namespace(power=2, verbose=False)

class Twice:
    factor = 2
    @staticmethod
    def of(o): return o * Twice.factor

def square(o):
    return o ** args.power if args.power else loss

def helper(o):
    return square(o) + 1

def loss(output, target):
    global calls
    calls += 1
    log.debug("called")
    inner = lambda x: Twice.of(x)
    return inner(helper(output)).mean(1) * GAMMA + TABLE.sum() + helpers.weight(output)
"""


def module_digest(change: tuple[str, str] = ("", ""), monkeypatch: Any = None) -> str:
    """Of the loss of a module with an edit."""
    names: dict[str, Any] = {}
    for name, text in (("helpers", HELPERS), ("mine", MODULE)):
        module = ModuleType(name)
        module.__file__ = f"/project/{name}.py"
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(text.replace(*change) if change[0] else text, module.__file__, "exec"), vars(module))
        names[name] = module
    return function_digest(names["mine"].loss)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("GAMMA, TABLE, calls = 2.0", "GAMMA, TABLE, calls = 3.0"), False),
        (("arange(3.0)", "arange(4.0)"), False),
        (("square(o) + 1", "square(o) + 2"), False),
        (("o ** args", "o * args"), False),
        (("power=2", "power=3"), False),
        (("factor = 2", "factor = 3"), False),
        (("o * Twice", "o + Twice"), False),
        (("o.abs() + 1", "o.abs() + 2"), False),
        (("unused = 1", "unused = 2"), True),
        (("verbose=False", "verbose=True"), True),
        (("mean, log, args = 3", "mean, log, args = 4"), True),  # `.mean` of a tensor is no global value
        (("calls = 2.0, torch.arange(3.0), 0", "calls = 2.0, torch.arange(3.0), 7"), True),  # the loss counts its calls
        (("def helper(o):", "# a comment\ndef helper(o):"), True),
    ],
)
def test_a_loss_counts_by_the_helpers_and_constants_that_it_reads(change, same, monkeypatch) -> None:
    assert any(change[0] in text for text in (HELPERS, MODULE))
    assert (module_digest(change, monkeypatch) == module_digest(monkeypatch=monkeypatch)) == same


def test_what_refers_to_itself_ends() -> None:
    def countdown(o, t):
        return countdown(o, t - 1) if t else o

    loop: list[Any] = [countdown]
    loop.append(loop)
    holder = Focal(1.0, loop)
    holder.others = (holder,)
    assert len({function_digest(f) for f in (countdown, around(loop), holder)}) == 3


OF_A_SET = """
import functools, torch
from torch import nn
from ocd_core.calls.identity import function_digest
NAMES = {"alpha", "beta", "gamma", "delta"}
class Loss(nn.Module):
    names = frozenset(NAMES)
    def forward(self, o, t):
        return o if str(t) in {"one", "two", "three", "four"} else (o - t) * len(NAMES)
def loss(o, t, other=("a", frozenset(NAMES)), log=print):
    return Loss.forward(None, o, t) if str(t) in {"x", "y", "z", ("u", "v")} else o
print(function_digest(loss), function_digest(Loss()), function_digest(functools.partial(loss, log=object())))
"""


def test_another_process_finds_the_same() -> None:
    """Sets have another order in each process."""
    found = set()
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", OF_A_SET], env=environment, capture_output=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1
