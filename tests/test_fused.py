"""The softmax of the network is torch's, in another layout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_msseg.fused import (
    LARGEST_EXPONENT,
    centred_softmax,
    channel_affine,
    channel_moments,
    channel_sum,
)

SHAPES = [(2, 5, 6, 7), (2, 4, 3, 6, 7), (1, 1, 4, 4)]


def field(shape: tuple[int, ...], spread: float, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = spread * torch.randn(shape, dtype=torch.float64, generator=generator)
    return x - x.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0, 1e4])
def test_value_and_gradient_are_those_of_softmax(shape, spread):
    x = field(shape, spread).requires_grad_()
    weight = field(shape, 1.0, seed=1)
    expected = x.softmax(dim=1)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), x)
    actual = centred_softmax(x)
    (found,) = torch.autograd.grad((actual * weight).sum(), x)
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-3e4, 3e4), min_size=2, max_size=6),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_no_size_of_values_overflows(values, dtype):
    x = torch.tensor(values, dtype=dtype).reshape(1, -1, 1, 1)
    w = centred_softmax(x - x.mean(dim=1, keepdim=True))
    assert torch.isfinite(w).all()
    torch.testing.assert_close(w.float().sum(), torch.tensor(1.0), atol=0.02, rtol=0)


def test_several_channels_far_above_the_mean_are_told_apart():
    # the first version cut values off at the largest exponent: these two would have tied
    x = torch.tensor([LARGEST_EXPONENT + 40, LARGEST_EXPONENT + 20, -300.0]).reshape(1, 3, 1, 1)
    w = centred_softmax(x - x.mean())
    assert float(w[0, 0, 0, 0]) > 0.99


@pytest.mark.parametrize("low", [-79.0, -87.5, -90.0, -1000.0])
def test_where_all_channels_are_far_below_zero_the_weights_still_add_up_to_one(low):
    x = torch.full((1, 4, 3, 3), low, dtype=torch.bfloat16)
    w = centred_softmax(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(w.sum(dim=1), torch.ones(1, 3, 3, dtype=w.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("spread", [1.0, 1e3])
def test_layout_and_dtype_are_kept(dtype, spread):
    flat = field((2, 4, 6, 6), spread).to(dtype)
    stacked = field((2, 4, 4, 6, 6), spread).to(dtype)
    for x, layout in ((flat, torch.channels_last), (stacked, torch.channels_last_3d)):
        w = centred_softmax(x.to(memory_format=layout))
        assert w.dtype == dtype
        assert w.is_contiguous(memory_format=layout)
        assert centred_softmax(x).is_contiguous()


def test_autocast_does_not_change_the_dtype():
    x = field((1, 4, 4, 4), 1.0).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert centred_softmax(x).dtype == torch.float32


def test_channel_sum_is_the_sum_in_every_channel():
    x = field((2, 3, 4, 5), 1.0) + 1
    torch.testing.assert_close(channel_sum(x), x.sum(dim=1, keepdim=True).expand_as(x))


@pytest.mark.parametrize("shape", SHAPES)
def test_moments_and_their_gradient_are_those_of_torch(shape):
    x = (field(shape, 2.0) + 3).requires_grad_()
    over = [0, *range(2, len(shape))]
    var, mean = torch.var_mean(x, over, correction=0)
    found = channel_moments(x)
    torch.testing.assert_close(found, (mean, var))
    weights = torch.randn(2, shape[1], dtype=torch.float64)
    (expected,) = torch.autograd.grad((weights * torch.stack([mean, var])).sum(), x)
    (actual,) = torch.autograd.grad((weights * torch.stack(found)).sum(), x)
    torch.testing.assert_close(actual, expected)


def test_moments_of_bfloat16_are_taken_in_float32():
    x = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).bfloat16() + 2
    var, mean = torch.var_mean(x.double(), [0, 2, 3], correction=0)
    found = channel_moments(x)
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found[0].double(), mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1].double(), var, atol=2e-2, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_affine_is_scale_and_shift_of_every_channel(shape, dtype):
    x = field(shape, 1.0).to(dtype)
    scale, shift = torch.randn(2, shape[1])
    each = (1, -1, *[1] * (len(shape) - 2))
    expected = x.double() * scale.to(dtype).view(each) + shift.to(dtype).view(each)
    tolerance = 0.05 if dtype == torch.bfloat16 else 1e-6
    actual = channel_affine(x, scale, shift)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected.double(), atol=tolerance, rtol=tolerance)
