import pytest
import torch

from ocd_core.diffusion.denoisers import build_denoiser
from tests.support.params import denoiser_params


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    net = build_denoiser(denoiser_params(dropout=0.5), (5,), 12)
    x, e = torch.randn(4, 5), torch.randn(4, 12)
    assert not torch.equal(net(x, e), net(x, e))
    net.eval()
    assert torch.equal(net(x, e), net(x, e))


@pytest.mark.parametrize("samples", [1, 4])
def test_for_drawing_is_the_network_in_eval_mode_at_each_e(samples):
    torch.manual_seed(0)
    net = build_denoiser(denoiser_params(depth=3, dropout=0.5), (2, 5), 12).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, e = torch.randn(samples, 2, 5), torch.randn(6, samples, 12)
    steps = net.for_drawing()(e)
    assert len(steps) == 6
    with torch.no_grad():
        for step, e_NE in zip(steps, e, strict=True):
            wanted = net(x, e_NE)
            torch.testing.assert_close(step(x), wanted, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(step(x), wanted, rtol=1e-5, atol=1e-6)  # nothing changes in place
