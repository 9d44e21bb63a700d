import math

import numpy as np
import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.tasks.views.quality import psnr, ssim


def test_psnr_by_hand():
    assert psnr(0.01) == pytest.approx(20)
    assert psnr(1.0) == pytest.approx(0)
    assert psnr(0.0) == math.inf


@pytest.mark.parametrize("shape", [(24, 24), (11, 30)])
def test_ssim_matches_scikit_image(shape):
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    rng = np.random.default_rng(0)
    a = rng.random((3, *shape, 3))
    b = np.clip(a + rng.normal(size=a.shape) * np.array([0.0, 0.1, 0.5])[:, None, None, None], 0, 1)
    expected = [
        reference(x, y, data_range=1, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        for x, y in zip(a, b, strict=True)
    ]
    found = ssim(torch.from_numpy(a), torch.from_numpy(b))
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    assert found[0].item() == pytest.approx(1)


def test_ssim_needs_pictures_larger_than_its_window():
    with pytest.raises(UserError, match="11x11"):
        ssim(torch.zeros(1, 10, 20, 3), torch.zeros(1, 10, 20, 3))
