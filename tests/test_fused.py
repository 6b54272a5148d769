"""The softmax of the network is torch's, in another layout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_msseg.fused import LARGEST_EXPONENT, centred_softmax, channel_softmax, channel_sum

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
    w = channel_softmax(x)
    assert torch.isfinite(w).all()
    torch.testing.assert_close(w.float().sum(), torch.tensor(1.0), atol=0.02, rtol=0)


def test_several_channels_far_above_the_mean_are_told_apart():
    # the first version cut values off at the largest exponent: these two would have tied
    x = torch.tensor([LARGEST_EXPONENT + 40, LARGEST_EXPONENT + 20, -300.0]).reshape(1, 3, 1, 1)
    w = centred_softmax(x - x.mean())
    assert float(w[0, 0, 0, 0]) > 0.99


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
    torch.testing.assert_close(channel_sum(x, 0.5), 0.5 * x.sum(dim=1, keepdim=True).expand_as(x))
