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


def test_autocast_around_the_backward_changes_nothing():
    norm, x = RMSNorm(16, eps=1e-5), torch.randn(3, 5, 16, requires_grad=True)
    outside = torch.autograd.grad(norm(x).square().sum(), (x, norm.weight))
    with torch.autocast("cpu", torch.bfloat16):
        inside = torch.autograd.grad(norm(x).square().sum(), (x, norm.weight))
    torch.testing.assert_close(inside, outside, atol=0, rtol=0)


def test_bfloat16_weights_are_normalised_in_float32():
    norm, x = RMSNorm(64, eps=1e-5).bfloat16(), torch.randn(9, 64).bfloat16().requires_grad_()
    exact = F.rms_norm(x.float(), (64,), norm.weight.float(), norm.eps)
    torch.testing.assert_close(norm(x), exact.bfloat16(), atol=0, rtol=2**-7)
