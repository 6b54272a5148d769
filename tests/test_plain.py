"""The fast form of MSNet computes what the plain form of the benchmarks computes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from napari_msseg.config import ModelConfig
from napari_msseg.model import MSNet

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.plain import PlainMSNet


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("normalisation", ["none", "batch"])
@pytest.mark.parametrize("inner_kernel", [1, 3])
@pytest.mark.parametrize("relaxations", [1, 2])
@pytest.mark.parametrize("smoothers", ["tied", "separate"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_value_and_gradient_agree_in_double(
    ndim, normalisation, inner_kernel, relaxations, smoothers, mode
):
    torch.manual_seed(0)
    config = ModelConfig(
        ndim=ndim,
        channels=(4, 6, 8),
        inner_kernel=inner_kernel,
        relaxations=relaxations,
        normalisation=normalisation,
        smoothers=smoothers,
        head_convolutions=relaxations,
    )
    fast, plain = MSNet(config).double(), PlainMSNet(config).double()
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(2, 1, *[8] * ndim, dtype=torch.float64)
    found = []
    for network in (fast, plain):
        network.train(mode == "train")
        logits, solutions = network(x)
        weight = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).view_as(logits)
        (logits * weight).sum().backward()
        gradients = [p.grad for p in network.parameters()]
        found.append((logits, solutions, gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("normalisation", ["none", "batch"])
def test_in_bfloat16_and_channels_last_it_stays_near_the_plain_form(normalisation):
    torch.manual_seed(0)
    config = ModelConfig(normalisation=normalisation)
    fast, plain = MSNet(config).eval(), PlainMSNet(config).eval()
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        expected = plain(x)[0].softmax(dim=1)
        fast.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            actual = fast(x.to(memory_format=torch.channels_last))[0].float().softmax(dim=1)
    torch.testing.assert_close(actual, expected, atol=0.02, rtol=0)
