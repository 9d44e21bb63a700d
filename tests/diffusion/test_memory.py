import pytest
import torch

from ocd_core.diffusion import memory
from ocd_core.diffusion.denoisers import build_denoiser
from ocd_core.diffusion.memory import available_memory, drawing_batch, refuse_impossible, training_memory
from ocd_core.errors import UserError
from tests.support.params import denoiser_params, diffusion_params, preset_params

UNET = denoiser_params(name="unet", width=16, depth=1, multipliers=[1, 2])


@pytest.mark.parametrize(("denoiser", "shape"), [(UNET, (9, 12)), (denoiser_params(dropout=0.1), (11,))])
def test_the_estimate_is_what_a_real_pass_keeps(denoiser, shape):
    params = diffusion_params(denoiser=denoiser, batch_size=6, accumulate=2)
    estimate = training_memory(params, shape)
    net = build_denoiser(denoiser, shape, params.embedding)
    assert estimate.weights == 6 * 4 * sum(p.numel() for p in net.parameters())
    kept = {}
    own = {p.data_ptr() for p in net.parameters()}

    def keep(x):
        if x.untyped_storage().data_ptr() not in own:
            kept[x.untyped_storage().data_ptr()] = (x, x.untyped_storage().nbytes())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        net(torch.randn(3, *shape), torch.randn(3, params.embedding))
    assert estimate.activations == sum(size for _, size in kept.values())


def test_sizes_that_cannot_run_are_refused_before_anything_is_allocated():
    params = preset_params("paper").diffusion.model_copy(update={"batch_size": 4096})
    free = available_memory("cpu")
    assert free is not None
    with pytest.raises(
        UserError, match=r"training denoiser unet_paper on codes of shape \(84, 120\) takes at least"
    ) as e:
        refuse_impossible(params, (84, 120), "cpu")
    assert "raise diffusion.accumulate (now 1)" in str(e.value)
    need = training_memory(params, (84, 120))
    assert f"{need.total / 1e9:.3g} GB of memory" in str(e.value)
    assert need.activations > 1e12  # 4,096 samples of about 0.9 GB each
    huge = diffusion_params(denoiser=denoiser_params(width=60_000, depth=4))
    with pytest.raises(UserError, match=r"lower denoiser\.width"):
        refuse_impossible(huge, (84,), "cpu")


def test_cutting_the_batch_makes_it_fit(monkeypatch):
    params = diffusion_params(denoiser=UNET, batch_size=64)
    need = training_memory(params, (16, 16))
    monkeypatch.setattr(memory, "available_memory", lambda _device: need.weights + need.activations // 2)
    with pytest.raises(UserError, match=r"raise diffusion\.accumulate"):
        refuse_impossible(params, (16, 16), "cpu")
    refuse_impossible(params.model_copy(update={"accumulate": 4}), (16, 16), "cpu")
    monkeypatch.setattr(memory, "available_memory", lambda _device: None)
    refuse_impossible(params, (16, 16), "cpu")


def test_the_released_unet_has_its_110_million_weights():
    params = preset_params("released").diffusion
    need = training_memory(params, (84, 120))
    assert need.weights / 24 == pytest.approx(110e6, rel=0.01)
    half = training_memory(params.model_copy(update={"precision": "bf16"}), (84, 120))
    assert half.activations < 0.75 * need.activations


def test_draws_are_cut_to_what_fits():
    """A GiB's worth of what a training keeps of a sample, which an MLP's closed form must not undercut."""
    released = preset_params("released").diffusion
    kept = training_memory(released.model_copy(update={"batch_size": 1, "accumulate": 1}), (84, 120)).activations
    assert drawing_batch(released, (84, 120)) == max(1, 2**30 // kept) < 10
    small = diffusion_params(denoiser=UNET)
    assert 1000 < drawing_batch(small, (9, 12)) < 4096
    with torch.no_grad():  # as in an evaluation
        assert drawing_batch(small, (2, 2)) == 4096
    for width, depth in ((16, 1), (64, 3)):
        for entries in (10, 300_000):
            params = diffusion_params(denoiser=denoiser_params(width=width, depth=depth, dropout=0.1), batch_size=1)
            batch = drawing_batch(params, (entries,))
            assert 1 < batch <= 4096
            assert batch * training_memory(params, (entries,)).activations <= 2**30


@pytest.mark.parametrize(("stat", "free"), [("anon 1\ninactive_file 700\nactive_file 50", 800), ("anon 1", 100)])
def test_a_container_counts_files_that_make_room_as_free(monkeypatch, tmp_path, stat, free):
    for name, text in (("max", "1000"), ("current", "900"), ("stat", stat)):
        (tmp_path / f"memory.{name}").write_text(f"{text}\n")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    assert available_memory("cpu") == free
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory("cpu") > 1000
