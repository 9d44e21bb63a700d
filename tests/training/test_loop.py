import math

import pytest
import torch
from torch import nn

from ocd_core.errors import UserError
from ocd_core.training.loop import Checkpoints, Settings, ema_decay, optimise


class Quadratic:
    """(w - x_k)² with its own x_k at each update; parts share it. Records the weights it is asked at."""

    def __init__(self, module: nn.Linear) -> None:
        self.module, self.validated = module, []

    def loss(self, update, part, parts):
        return (self.module.weight - math.sin(update)).square().sum() / parts

    def validate(self):
        weight = self.module.weight.item()
        self.validated.append(weight)
        return {"val_loss": (weight - 0.3) ** 2}


def make():
    torch.manual_seed(0)
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 2.0)
    return module, Quadratic(module)


def settings(**changes):
    values = {"updates": 30, "lr": 0.1, "validate_every": 5, "patience": 100}
    return Settings(**{**values, **changes})


def test_adam_the_average_and_the_learning_rate_by_hand():
    """Everything again in plain floats: Adam (Kingma and Ba, Alg. 1), the average of the weights, what is validated."""
    chosen = settings(ema=0.8, lr_schedule="cosine", warmup=4)
    module, objective = make()
    found = optimise(module, objective, chosen, 0, "toy")
    w = average = 2.0
    m = v = 0.0
    averages, rates = [], []
    for k in range(30):
        gradient = 2 * (w - math.sin(k))
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        lr = 0.1 * min(1.0, (k + 1) / 4) * 0.5 * (1 + math.cos(math.pi * k / 30))
        rates.append(lr)
        w -= lr * (m / (1 - 0.9 ** (k + 1))) / (math.sqrt(v / (1 - 0.999 ** (k + 1))) + 1e-8)
        decay = min(0.8, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * w
        averages.append(average)
    assert objective.validated == pytest.approx(averages[4::5], rel=1e-4)
    losses = [(a - 0.3) ** 2 for a in averages[4::5]]
    best = min(range(6), key=losses.__getitem__)
    assert module.weight.item() == pytest.approx(averages[4::5][best], rel=1e-4)
    assert found.best_update == 5 * (best + 1)
    assert [row["lr"] for row in found.curve] == pytest.approx(rates[4::5])
    assert not module.training


def test_the_average_forgets_the_first_weights_at_first():
    assert ema_decay(0.9999, 0) == 0.1
    assert ema_decay(0.9999, 10**6) == 0.9999
    assert ema_decay(0.0, 50) == 0.0


def test_parts_of_a_batch_add_up():
    whole, parts = make(), make()
    optimise(*whole, settings(), 0, "toy")
    optimise(*parts, settings(accumulate=4), 0, "toy")
    torch.testing.assert_close(whole[0].weight, parts[0].weight)


def test_clipping_bounds_the_gradient_that_adam_sees():
    """One step of Adam only sees the gradient's sign; its second moment shows the size after clipping."""
    small, big = make(), make()
    optimise(*small, settings(updates=2, clip=1e-3, validate_every=1), 0, "toy")
    found = optimise(*big, settings(updates=2, clip=1e9, validate_every=1), 0, "toy")
    assert found.curve[0]["gradient_norm"] == pytest.approx(4.0)
    assert small[0].weight.item() != big[0].weight.item()


@pytest.mark.parametrize(("patience", "ends"), [(2, "stopped early, best"), (100, "best")])
def test_the_last_note_says_whether_training_stopped_early(patience, ends):
    """With such a small learning rate no validation is better than the first, at update 5."""
    notes = []
    found = optimise(*make(), settings(lr=1e-12, patience=patience), 0, "toy", lambda _k, note: notes.append(note))
    assert notes[-1].startswith(ends)
    assert not any(note.startswith("stopped") for note in notes[:-1])
    assert found.updates == len(notes) == (15 if patience == 2 else 30)


def interrupted_at(update):
    def progress(done, _note):
        if done == update:
            raise InterruptedError

    return progress


@pytest.mark.parametrize("stop", [3, 4, 5, 17, 29])
def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, stop):
    chosen = settings(ema=0.9, lr_schedule="cosine")
    module, objective = make()
    undisturbed = optimise(module, objective, chosen, 0, "toy")
    checkpoints = Checkpoints(tmp_path / "work" / "c.pt", 4, "mine")
    broken = make()
    with pytest.raises(InterruptedError):
        optimise(*broken, chosen, 0, "toy", interrupted_at(stop), checkpoints=checkpoints)
    again = make()
    done = []
    resumed = optimise(*again, chosen, 0, "toy", lambda k, _: done.append(k), checkpoints=checkpoints)
    # progress is reported before the checkpoint of the same update is written
    assert resumed.resumed_at == (stop - 1) // 4 * 4
    assert done[0] == resumed.resumed_at + 1
    assert torch.equal(again[0].weight, module.weight)
    assert resumed.curve == undisturbed.curve
    assert (resumed.best_update, resumed.best_loss) == (undisturbed.best_update, undisturbed.best_loss)


def test_a_finished_run_is_not_trained_again_and_another_ones_checkpoint_is_not_used(tmp_path):
    first = make()
    mine = Checkpoints(tmp_path / "c.pt", 10, "mine")
    optimise(*first, settings(), 0, "toy", checkpoints=mine)
    again = make()
    assert optimise(*again, settings(), 0, "toy", interrupted_at(30), checkpoints=mine).resumed_at == 30
    assert torch.equal(again[0].weight, first[0].weight)
    other = make()
    assert optimise(*other, settings(), 0, "toy", checkpoints=Checkpoints(mine.path, 10, "other")).resumed_at == 0


def test_slow_updates_are_saved_by_the_clock(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c.pt", 1000, "mine", seconds=0.0)
    with pytest.raises(InterruptedError):
        optimise(*make(), settings(), 0, "toy", interrupted_at(17), checkpoints=checkpoints)
    assert optimise(*make(), settings(), 0, "toy", checkpoints=checkpoints).resumed_at == 16


def test_a_damaged_checkpoint_is_named(tmp_path):
    mine = Checkpoints(tmp_path / "c.pt", 10, "mine")
    optimise(*make(), settings(), 0, "toy", checkpoints=mine)
    mine.path.write_bytes(mine.path.read_bytes()[:200])
    with pytest.raises(UserError, match=r"c\.pt is damaged; delete it to start over"):
        optimise(*make(), settings(), 0, "toy", checkpoints=mine)


def test_bf16_changes_the_arithmetic_and_not_the_weights_dtype():
    class Product(Quadratic):
        def loss(self, update, part, parts):
            out = self.module(torch.full((1, 1), 1.2345678))
            self.dtype = out.dtype
            return (out.float() - 1).square().sum()

    results = {}
    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        module, _ = make()
        objective = Product(module)
        optimise(module, objective, settings(updates=3, precision=precision), 0, "toy")
        assert objective.dtype == dtype
        assert module.weight.dtype == torch.float32
        results[precision] = module.weight.item()
    assert results["float32"] == pytest.approx(results["bf16"], rel=0.02)


def test_a_validation_loss_that_is_no_number_is_refused():
    class Bad(Quadratic):
        def validate(self):
            return {"val_loss": math.nan}

    module, _ = make()
    with pytest.raises(UserError, match="validation loss of the toy became nan at update 5"):
        optimise(module, Bad(module), settings(), 0, "toy")


def far_from(target):
    """The first update leaves the best place."""
    module, _ = make()
    nn.init.constant_(module.weight, target)

    class FromBest(Quadratic):
        def validate(self):
            return {"val_loss": (self.module.weight.item() - target) ** 2 + 1}

    return module, FromBest(module)


def test_the_start_is_a_candidate_of_early_stopping_if_asked_for():
    kept, not_kept = far_from(5.0), far_from(5.0)
    rows = []
    found = optimise(*kept, settings(keep_start=True), 0, "toy", on_row=rows.append)
    plain = optimise(*not_kept, settings(), 0, "toy")
    assert kept[0].weight.item() == 5.0
    assert (found.best_update, found.best_loss) == (0, 1.0)
    assert found.curve[0] == {"update": 0.0, "val_loss": 1.0}
    assert found.curve[1:] == plain.curve, "the training itself is the same"
    assert rows == found.curve
    assert plain.best_update > 0
    better, objective = make()
    assert optimise(better, objective, settings(keep_start=True), 0, "toy").best_update > 0


def test_a_run_that_goes_on_still_knows_its_start(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c.pt", 4, "mine")
    with pytest.raises(InterruptedError):
        optimise(*far_from(5.0), settings(keep_start=True), 0, "toy", interrupted_at(17), checkpoints=checkpoints)
    module, objective = far_from(5.0)
    found = optimise(module, objective, settings(keep_start=True), 0, "toy", checkpoints=checkpoints)
    undisturbed = optimise(*far_from(5.0), settings(keep_start=True), 0, "toy")
    assert found.resumed_at == 16
    assert module.weight.item() == 5.0
    assert found.curve == undisturbed.curve
