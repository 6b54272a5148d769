from __future__ import annotations

import pytest
import torch
from torch import nn

from napari_msseg.averaging import averaged


@pytest.fixture
def network():
    module = nn.Linear(1, 1, bias=False)
    module.register_buffer("seen", torch.zeros(1))
    return module


def show(average, network, value: float) -> float:
    with torch.no_grad():
        network.weight.fill_(value)
        network.seen.fill_(value)
    average.update_parameters(network)
    return float(average.module.weight.detach())


def test_the_first_weights_are_taken_as_they_are(network):
    average = averaged(network, 0.99)
    assert show(average, network, 5.0) == 5.0


def test_the_first_weights_are_soon_forgotten(network):
    average = averaged(network, 0.999)
    show(average, network, 100.0)
    values = [show(average, network, 0.0) for _ in range(20)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.01


def test_in_the_long_run_the_decay_is_the_one_asked_for(network):
    average = averaged(network, 0.5)
    for _ in range(50):
        show(average, network, 0.0)
    assert show(average, network, 1.0) == pytest.approx(0.5)
    assert show(average, network, 1.0) == pytest.approx(0.75)


def test_buffers_are_averaged_as_weights_are(network):
    average = averaged(network, 0.9)
    for value in (3.0, -1.0, 2.0):
        weight = show(average, network, value)
        assert float(average.module.seen) == pytest.approx(weight)


def test_counters_of_foreign_networks_survive():
    network = nn.BatchNorm2d(2)
    average = averaged(network, 0.9)
    for _ in range(5):
        network.train()(torch.randn(2, 2, 4, 4))
        average.update_parameters(network)
    assert average.module.num_batches_tracked.dtype == torch.int64
    assert torch.isfinite(average.module.running_var).all()


def test_the_network_itself_is_not_touched(network):
    average = averaged(network, 0.9)
    show(average, network, 1.0)
    show(average, network, 2.0)
    assert float(network.weight.detach()) == 2.0
    assert float(average.module.weight.detach()) != 2.0
