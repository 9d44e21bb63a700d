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
