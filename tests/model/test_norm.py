"""Norms against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from gpt4o_lit.model.norm import RMSNorm


@pytest.mark.parametrize("shape", [(3, 5, 16), (2, 3, 4, 8)])
def test_rms_norm_and_its_slopes_equal_pytorchs(shape):
    norm = RMSNorm(shape[-1], eps=1e-5).double()
    torch.nn.init.uniform_(norm.weight)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    reference = F.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)
    torch.testing.assert_close(norm(x), reference)
    above = torch.randn(shape, dtype=torch.float64)
    found = torch.autograd.grad(norm(x), (x, norm.weight), above)
    torch.testing.assert_close(found, torch.autograd.grad(reference, (x, norm.weight), above))


def test_rms_norm_of_nothing_is_nothing():
    norm, x = RMSNorm(8, eps=1e-5), torch.zeros(2, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(norm(x).sum(), x)
    assert not norm(x).any()
    assert slope.isfinite().all()
