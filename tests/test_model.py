from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_msseg.averaging import averaged
from napari_msseg.checkpoint import Checkpoint
from napari_msseg.config import (
    ModelConfig,
    Normalisation,
    Smoothers,
    default_config,
    default_supervised_config,
)
from napari_msseg.convolutions import SharedBatchNorm
from napari_msseg.errors import InputError
from napari_msseg.grid import Grid, RegionWeights, Regulariser
from napari_msseg.losses import masked_cross_entropy
from napari_msseg.model import MSNet, grow_classes, receptive_radius

U_NET_PARAMETERS = 31_000_000
"""Of a U-Net of 64 … 1024 channels, 2D."""
DENSEVOXNET_PARAMETERS = 1_800_000
"""Of the smallest 3D network that MSNet is compared with, at its published width."""
DOUBLE = torch.float64


def msnet(seed: int = 0, **config) -> MSNet:
    torch.manual_seed(seed)
    return MSNet(ModelConfig(**{"channels": (4, 6, 8), **config})).double()


def random_field(network: MSNet, level: int, size: int = 16, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, network.config.channels[level], *[size] * network.config.ndim)
    return torch.randn(shape, dtype=DOUBLE, generator=generator)


def full_approximation_scheme(
    network: MSNet, level: int, u: Tensor, f: Tensor, g: Tensor
) -> Tensor:
    """FAS from the textbook: nothing is reused, every operator is evaluated where it stands."""
    grid = network.grids[level]
    before, after, sweeps = grid.before, grid.after, network.config.relaxations
    for _ in range(sweeps):
        u = u - before.step_size * (before.evaluate(grid.weights, u, f) - g)
    if level < len(network.grids) - 1:
        coarse = network.grids[level + 1]
        residual = g - grid(u, f)
        u_restricted = grid.restrict(u)
        f_coarse = grid.restrict(f)
        g_coarse = grid.restrict(residual) + coarse(u_restricted, f_coarse)
        u_coarse = full_approximation_scheme(network, level + 1, u_restricted, f_coarse, g_coarse)
        u = u + grid.prolong(u_coarse - u_restricted)
    for _ in range(sweeps):
        u = u - after.step_size * (after.evaluate(grid.weights, u, f) - g)
    return u


def correction_scheme(network: MSNet, level: int, error: Tensor, f: Tensor, r: Tensor) -> Tensor:
    """Linear multigrid: the coarse grids solve A e = r for an error that starts at zero."""
    grid = network.grids[level]
    zero = torch.zeros_like(error)

    def linear(e: Tensor) -> Tensor:
        return grid(e, f) - grid(zero, f)

    for _ in range(network.config.relaxations):
        error = error - grid.step_size * (linear(error) - r)
    if level < len(network.grids) - 1:
        r_coarse = grid.restrict(r - linear(error))
        f_coarse = grid.restrict(f)
        start = torch.zeros_like(r_coarse)
        error = error + grid.prolong(
            correction_scheme(network, level + 1, start, f_coarse, r_coarse)
        )
    for _ in range(network.config.relaxations):
        error = error - grid.step_size * (linear(error) - r)
    return error


def linearise(network: MSNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make w constant and take the ReLUs out, so that N is affine in u."""
    monkeypatch.setattr(F, "relu", lambda x, inplace=False: x)
    with torch.no_grad():
        for grid in network.grids:
            for parameter in grid.weights.parameters():
                parameter.zero_()


# ------------------------------------------------------------------ multigrid


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("relaxations", [1, 2])
def test_a_v_cycle_leaves_a_solution_where_it_is(ndim, relaxations):
    network = msnet(ndim=ndim, relaxations=relaxations)
    solution, f = random_field(network, 0, 8, seed=1), random_field(network, 0, 8, seed=2)
    n = network.grids[0](solution, f)
    with torch.no_grad():
        after = network.v_cycle(0, solution, f, n.clone(), n, [])
    torch.testing.assert_close(after, solution, atol=1e-10, rtol=0)


def test_a_v_cycle_moves_what_is_no_solution():
    network = msnet()
    u, f = random_field(network, 0, 8, seed=1), random_field(network, 0, 8, seed=2)
    with torch.no_grad():
        after = network.v_cycle(0, u, f, torch.zeros_like(f), network.grids[0](u, f), [])
    assert float((after - u).abs().max()) > 1e-3


def test_the_region_weights_depend_on_u():
    network = msnet()
    f = random_field(network, 0, seed=2)
    weights = network.grids[0].weights
    with torch.no_grad():
        first, second = (weights(random_field(network, 0, seed=s), f) for s in (3, 4))
    assert float((first - second).abs().max()) > 0.1


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    "channels", [(4,), (4, 6), (4, 6, 8)], ids=["1 grid", "2 grids", "3 grids"]
)
@pytest.mark.parametrize("relaxations", [1, 2])
def test_the_v_cycle_is_the_full_approximation_scheme(ndim, channels, relaxations):
    network = msnet(ndim=ndim, channels=channels, relaxations=relaxations)
    u, f, g = (random_field(network, 0, 8, seed=s) for s in (1, 2, 3))
    with torch.no_grad():
        expected = full_approximation_scheme(network, 0, u, f, g)
        actual = network.v_cycle(0, u, f, g, network.grids[0](u, f), [])
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("relaxations", [1, 2])
def test_with_linear_operators_the_v_cycle_is_linear_multigrid(monkeypatch, relaxations):
    network = msnet(relaxations=relaxations)
    linearise(network, monkeypatch)
    f, g = random_field(network, 0, 8, seed=2), random_field(network, 0, 8, seed=3)
    zero = torch.zeros_like(f)
    with torch.no_grad():
        constant = network.grids[0](zero, f)
        expected = correction_scheme(network, 0, zero, f, g - constant)
        actual = network.v_cycle(0, zero, f, g, constant, [])
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


def test_the_network_is_a_v_cycle_from_the_features_between_head_and_tail():
    network = msnet()
    x = torch.randn(1, 1, 16, 16, dtype=DOUBLE)
    with torch.no_grad():
        f = network.head(x)
        u = full_approximation_scheme(network, 0, f, f, torch.zeros_like(f))
        logits, solutions = network(x)
        torch.testing.assert_close(logits, network.tail(u))
        torch.testing.assert_close(solutions[0], u)


def test_a_residual_of_zero_stays_zero_between_the_grids():
    grid = Grid(ModelConfig(channels=(4, 6)), 4, 6)
    assert not grid.restrict(torch.zeros(1, 4, 8, 8)).any()
    assert not grid.prolong(torch.zeros(1, 6, 4, 4)).any()


def test_the_correction_of_a_constant_error_is_constant():
    grid = Grid(ModelConfig(channels=(4, 6)), 4, 6)
    correction = grid.prolong(torch.ones(1, 6, 4, 4))
    assert correction.shape == (1, 4, 8, 8)
    torch.testing.assert_close(correction, correction[..., :1, :1].expand_as(correction))


@pytest.mark.parametrize("ndim", [2, 3])
def test_normalised_a_constant_survives_the_way_down_and_up_at_the_start(ndim):
    config = ModelConfig(ndim=ndim, channels=(4, 6), normalisation=Normalisation.BATCH)
    grid = Grid(config, 4, 6)
    constant = torch.randn(1, 4, *[1] * ndim).expand(1, 4, *[8] * ndim)
    with torch.no_grad():
        torch.testing.assert_close(grid.prolong(grid.restrict(constant)), constant)


def test_tied_smoothers_are_those_of_the_operator_and_separate_ones_are_not():
    for grid in msnet().grids:
        assert grid.before is grid
        assert grid.after is grid
    for grid in msnet(smoothers="separate").grids:
        operators = {id(grid.before), id(grid.after), id(grid)}
        assert len(operators) == 3


def test_separate_smoothers_of_a_single_grid_are_refused():
    with pytest.raises(InputError, match="two grids"):
        ModelConfig(channels=(4,), smoothers=Smoothers.SEPARATE)


def test_more_convolutions_of_the_head_have_a_relu_between_them():
    network = msnet(head_convolutions=3)
    x = torch.randn(1, 1, 8, 8, dtype=DOUBLE)
    second, third = network.head_rest
    with torch.no_grad():
        expected = third(F.relu(second(F.relu(network.head(x)))))
        torch.testing.assert_close(network.to_features(x), expected)


# -------------------------------------------------------------- the v-problem


def gaussian(sigma: float, ndim: int) -> Tensor:
    line = torch.exp(-(torch.tensor([-1.0, 0.0, 1.0], dtype=DOUBLE) ** 2) / (2 * sigma**2))
    kernel = line
    for _ in range(ndim - 1):
        kernel = kernel[..., None] * line
    return kernel / kernel.sum()


def threshold_dynamics(misfit: Tensor, v_old: Tensor, lam: float, eps: float, k: Tensor) -> Tensor:
    """v = softmax(−[(u − f)² + λ k * (1 − 2 v_old)] / ε), channel by channel, zero outside."""
    convolve = F.conv2d if k.ndim == 2 else F.conv3d
    channels = [convolve(1 - 2 * v, k[None, None], padding=1) for v in v_old.split(1, dim=1)]
    exponent = -(misfit + lam * torch.cat(channels, dim=1)) / eps
    return exponent.exp() / exponent.exp().sum(dim=1, keepdim=True)


def as_threshold_dynamics(ndim: int, channels: int, lam: float, eps: float, k: Tensor):
    weights = RegionWeights(ModelConfig(ndim=ndim), channels).double()
    with torch.no_grad():
        eye = torch.eye(channels, dtype=DOUBLE).reshape(channels, channels, *[1] * ndim)
        weights.fidelity.weight.copy_(-eye / eps)
        weights.fidelity.bias.zero_()
        weights.length.weight.copy_((2 * lam / eps * k).expand_as(weights.length.weight))
    return weights


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    ("lam", "eps", "sigma"), [(1.0, 1.0, 1.0), (0.3, 0.5, 0.7), (0.0, 2.0, 1.0)]
)
def test_the_weight_submodule_is_one_step_of_threshold_dynamics(ndim, lam, eps, sigma):
    k = gaussian(sigma, ndim)
    weights = as_threshold_dynamics(ndim, 5, lam, eps, k)
    shape = (2, 5, *[7] * ndim)
    torch.manual_seed(0)
    misfit = torch.randn(shape, dtype=DOUBLE).square()
    v_old = torch.randn(shape, dtype=DOUBLE).softmax(dim=1)
    expected = threshold_dynamics(misfit, v_old, lam, eps, k)
    torch.testing.assert_close(weights.v_step(misfit, v_old), expected, atol=1e-12, rtol=1e-10)


def test_the_weights_of_u_are_a_v_step_after_one_without_a_length_term():
    k = gaussian(1.0, 2)
    weights = as_threshold_dynamics(2, 5, 0.8, 0.5, k)
    torch.manual_seed(0)
    u, f = torch.randn(2, 2, 5, 9, 9, dtype=DOUBLE)
    misfit = (u - f) ** 2
    start = threshold_dynamics(misfit, torch.zeros_like(u), 0.0, 0.5, k)
    expected = threshold_dynamics(misfit, start, 0.8, 0.5, k)
    torch.testing.assert_close(weights(u, f), expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("ndim", [2, 3])
def test_region_weights_are_a_partition_of_unity(ndim):
    network = msnet(ndim=ndim)
    u, f = random_field(network, 0, 6, seed=1), random_field(network, 0, 6, seed=2)
    with torch.no_grad():
        w = network.grids[0].weights(u, f)
    assert w.shape == u.shape
    assert float(w.min()) >= 0
    torch.testing.assert_close(w.sum(dim=1), torch.ones_like(w[:, 0]))


def test_the_operator_is_weighted_misfit_plus_regulariser():
    network = msnet()
    u, f = random_field(network, 0, seed=1), random_field(network, 0, seed=2)
    grid = network.grids[0]
    expected = grid.weights(u, f) * (u - f) + grid.regulariser(u)
    torch.testing.assert_close(grid(u, f), expected)


# --------------------------------------------------------------------- shapes


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(("in_channels", "n_classes"), [(1, 2), (3, 5)])
def test_logits_and_solutions_lie_over_the_input(ndim, in_channels, n_classes):
    network = msnet(ndim=ndim, in_channels=in_channels, n_classes=n_classes)
    sides = (8, 12, 16)[:ndim]
    logits, solutions = network(torch.zeros(2, in_channels, *sides, dtype=DOUBLE))
    assert logits.shape == (2, n_classes, *sides)
    for level, (u, channels) in enumerate(zip(solutions, (4, 6, 8), strict=True)):
        assert u.shape == (2, channels, *[n // 2**level for n in sides])


@pytest.mark.parametrize("channels", [(4,), (4, 6), (4, 6, 8, 8)])
def test_the_total_stride_is_two_to_the_number_of_coarser_grids(channels):
    assert msnet(channels=channels).total_stride == 2 ** (len(channels) - 1)


def test_images_and_volumes_are_segmented_by_one_definition():
    flat, solid = msnet(ndim=2), msnet(ndim=3)
    names = {name: p.ndim for name, p in flat.named_parameters()}
    assert names.keys() == dict(solid.named_parameters()).keys()
    for name, parameter in solid.named_parameters():
        assert parameter.ndim in (1, names[name] + 1)


@pytest.mark.parametrize("ndim", [2, 3])
def test_msnet_stays_far_smaller_than_a_u_net(ndim):
    count = sum(p.numel() for p in MSNet(default_config(ndim).model).parameters())
    assert count < 1_000_000 < U_NET_PARAMETERS


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("smoothers", Smoothers)
def test_every_parameter_learns(ndim, smoothers):
    network = msnet(ndim=ndim, smoothers=smoothers, head_convolutions=2)
    x = torch.randn(2, 1, *[16] * ndim, dtype=DOUBLE)
    logits, _ = network(x)
    target = torch.randint(0, 2, (2, *[16] * ndim))
    masked_cross_entropy(logits, target).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


# ------------------------------------------------------------ receptive field


def measured_radius(config: ModelConfig, size: int) -> int:
    """Farthest input pixel with a gradient, over all offsets of the output pixel in a block."""
    torch.manual_seed(0)
    network = MSNet(config).double()
    with torch.no_grad():  # no ReLU may be dead
        network.tail[0].bias.fill_(50.0)
        for layer in network.head_rest:
            layer.bias.fill_(50.0)
        for regulariser in (m for m in network.modules() if isinstance(m, Regulariser)):
            regulariser.k_in.bias.fill_(20.0)
            regulariser.k_adjoint_in.bias.fill_(20.0)
    stride = network.total_stride
    middle = size // 2 // stride * stride
    reach = 0
    for offset in range(stride):
        x = torch.randn(1, 1, *[size] * config.ndim, dtype=DOUBLE, requires_grad=True)
        pixel = middle + offset
        network(x)[0][(0, 0, *[pixel] * config.ndim)].backward()
        reach = max(reach, int((torch.nonzero(x.grad[0, 0]) - pixel).abs().max()))
    return reach


@pytest.mark.parametrize(
    ("ndim", "grids", "options"),
    [
        (2, 1, {}),
        (2, 1, {"inner_kernel": 3, "relaxations": 2}),
        (2, 1, {"head_convolutions": 3}),
        (2, 2, {}),
        (2, 2, {"inner_kernel": 3}),
        (2, 2, {"smoothers": "separate"}),
        (2, 3, {}),
        (2, 3, {"relaxations": 2}),
        (2, 3, {"inner_kernel": 3}),
        (3, 2, {}),
    ],
)
def test_the_receptive_radius_bounds_the_influence_and_not_by_far(ndim, grids, options):
    config = ModelConfig(ndim=ndim, channels=(2,) * grids, **options)
    radius = receptive_radius(config)
    stride = 2 ** (grids - 1)
    size = 2 * (radius // stride + 2) * stride
    measured = measured_radius(config, size)
    assert measured <= radius <= 2 * measured


# ------------------------------------------------------------------- new classes


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_grown_network_says_the_same_about_the_old_classes(ndim):
    network = msnet(ndim=ndim).float()
    grown = grow_classes(network, 4)
    x = torch.randn(1, 1, *[8] * ndim)
    old, new = network(x)[0], grown(x)[0]
    assert new.shape[1] == grown.config.n_classes == 4
    torch.testing.assert_close(new[:, :2], old)


def test_growing_does_not_touch_the_network_it_grew_from():
    network = msnet().float()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    grown = grow_classes(network, 3)
    with torch.no_grad():
        for parameter in grown.parameters():
            parameter.add_(1.0)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name])


# -------------------------------------------------------------- normalisation


def batch_msnet(ndim: int = 2, seed: int = 0, cycles: int = 3, **config) -> MSNet:
    """A network in training whose running averages are of something, and whose scales vary."""
    torch.manual_seed(seed)
    options = {"channels": (4, 6, 8), "normalisation": Normalisation.BATCH, **config}
    network = MSNet(ModelConfig(ndim=ndim, **options)).train()
    with torch.no_grad():
        for norm in norms(network):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.uniform_(-0.5, 0.5)
        for _ in range(cycles):
            network(1 + 2 * torch.randn(2, 1, *[16] * ndim))
    return network


def norms(network: torch.nn.Module) -> list[SharedBatchNorm]:
    return [m for m in network.modules() if isinstance(m, SharedBatchNorm)]


def begin_cycle(network: MSNet) -> None:
    for norm in norms(network):
        norm.begin_cycle()


def buffers_of(network: torch.nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in network.named_buffers()}


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("relaxations", [1, 2])
def test_normalised_a_v_cycle_leaves_a_solution_where_it_is_when_it_predicts(ndim, relaxations):
    network = batch_msnet(ndim, relaxations=relaxations).double().eval()
    solution, f = random_field(network, 0, 8, seed=1), random_field(network, 0, 8, seed=2)
    n = network.grids[0](solution, f)
    with torch.no_grad():
        after = network.v_cycle(0, solution, f, n.clone(), n, [])
    torch.testing.assert_close(after, solution, atol=1e-10, rtol=0)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("relaxations", [1, 2])
def test_normalised_a_v_cycle_leaves_a_solution_where_it_is_when_it_learns(ndim, relaxations):
    network = batch_msnet(ndim, relaxations=relaxations).double()
    solution, f = (random_field(network, 0, 8, seed=s) for s in (1, 2))
    begin_cycle(network)
    with torch.no_grad():
        n = network.grids[0](solution, f)  # takes the statistics of this cycle
        after = network.v_cycle(0, solution, f, n.clone(), n, [])
        moved = network.v_cycle(0, solution, f, torch.zeros_like(n), n, [])
    torch.testing.assert_close(after, solution, atol=1e-9, rtol=0)
    assert float((moved - solution).abs().max()) > 1e-2


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    ("channels", "smoothers"),
    [
        ((4,), Smoothers.TIED),
        ((4, 6, 8), Smoothers.TIED),
        ((4, 6), Smoothers.SEPARATE),
        ((4, 6, 8), Smoothers.SEPARATE),
    ],
)
@pytest.mark.parametrize("learning", [False, True])
def test_normalised_the_v_cycle_is_the_full_approximation_scheme(
    ndim, channels, learning, smoothers
):
    network = batch_msnet(ndim, channels=channels, smoothers=smoothers).double().train(learning)
    u, f, g = (random_field(network, 0, 8, seed=s) for s in (1, 2, 3))
    with torch.no_grad():
        begin_cycle(network)
        expected = full_approximation_scheme(network, 0, u, f, g)
        begin_cycle(network)
        grid = network.grids[0]
        n = grid.before.evaluate(grid.weights, u, f)
        actual = network.v_cycle(0, u, f, g, n, [])
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


def test_normalised_the_network_is_a_v_cycle_between_head_and_tail():
    network = batch_msnet().double().eval()
    x = torch.randn(1, 1, 16, 16, dtype=DOUBLE)
    with torch.no_grad():
        f = network.head_norm(network.head(x))
        u = full_approximation_scheme(network, 0, f, f, torch.zeros_like(f))
        first, activation, last = network.tail
        expected = last(activation(network.tail_norm(first(u))))
        torch.testing.assert_close(network(x)[0], expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("shape", [(4, 3, 6, 5), (2, 3, 4, 6, 5)], ids=["2D", "3D"])
def test_applied_once_it_is_batch_normalisation(shape):
    torch.manual_seed(0)
    norm = SharedBatchNorm(shape[1])
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-1, 1)
    x, upstream = 3 + 2 * torch.randn(shape), torch.randn(shape)
    found = []
    for apply in (norm, lambda x: F.batch_norm(x, None, None, norm.weight, norm.bias, True)):
        norm.zero_grad()
        y = apply(x.requires_grad_(True))
        inputs = (x, norm.weight, norm.bias)
        found.append((y.detach(), *torch.autograd.grad(y, inputs, upstream)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_within_a_cycle_the_statistics_are_those_of_the_first_application():
    norm = SharedBatchNorm(2)
    x = torch.randn(3, 2, 5, 5)
    first = norm(x)
    before = buffers_of(norm)
    other = norm(7 - 2 * x)
    std = x.std((0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(other, first + (7 - 3 * x) / std, atol=1e-3, rtol=1e-3)
    for name, buffer in buffers_of(norm).items():
        assert torch.equal(buffer, before[name])
    norm.begin_cycle()
    torch.testing.assert_close(norm(7 - 2 * x), -first, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_grid_takes_its_statistics_once_a_cycle(ndim):
    network = batch_msnet(ndim, relaxations=2)
    seen: dict[str, list[Tensor]] = {}
    for name, module in network.named_modules():
        if isinstance(module, SharedBatchNorm):
            seen[name] = []
            module.register_forward_pre_hook(
                lambda _, args, name=name: seen[name].append(args[0].detach().clone())
            )
    before = buffers_of(network)
    network(torch.randn(2, 1, *[16] * ndim))
    over = [0, *range(2, ndim + 2)]
    for name, inputs in seen.items():
        assert len(inputs) == 1  # afterwards it is folded into the convolution before it
        mean, var = inputs[0].mean(over), inputs[0].var(over, correction=0)
        for buffer, value in (("running_mean", mean), ("running_var", var)):
            expected = 0.9 * before[f"{name}.{buffer}"] + 0.1 * value
            actual = network.get_submodule(name).get_buffer(buffer)
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_folded_normalisation_is_the_normalisation(mode):
    norm = SharedBatchNorm(3).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    norm.running_var.fill_(2.5)
    norm.train(mode == "train")
    layer = torch.nn.Conv2d(2, 3, 3, padding=1).double()
    first, second = torch.randn(2, 2, 2, 8, 8, dtype=DOUBLE)
    expected_first = norm(layer(first))
    weight, bias = norm.folded(layer.weight, layer.bias)
    folded = F.conv2d(second, weight, bias, padding=1)
    torch.testing.assert_close(folded, norm(layer(second)))
    if mode == "train":  # the statistics are those of the first input, not of the second
        assert abs(float((expected_first.mean() - folded.mean()).detach())) > 1e-4


def test_every_cycle_takes_statistics_anew():
    network = batch_msnet()
    x = torch.randn(2, 1, 16, 16)
    with torch.no_grad():
        first = network(x)[0]
        network(5 + 3 * torch.randn(2, 1, 16, 16))
        torch.testing.assert_close(network(x)[0], first)


def test_the_running_averages_come_to_be_those_of_the_data():
    torch.manual_seed(0)
    norm = SharedBatchNorm(2)
    mean, std = torch.tensor([3.0, -1.0]), torch.tensor([2.0, 0.5])
    for _ in range(100):
        norm.begin_cycle()
        norm(mean[:, None, None] + std[:, None, None] * torch.randn(4, 2, 16, 16))
    torch.testing.assert_close(norm.running_mean, mean, atol=0.05, rtol=0)
    torch.testing.assert_close(norm.running_var, std**2, atol=0.1, rtol=0)
    y = norm.eval()(mean[:, None, None] + std[:, None, None] * torch.randn(4, 2, 64, 64))
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(2), atol=0.1, rtol=0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_prediction_does_not_depend_on_what_else_is_in_the_batch(ndim):
    network = batch_msnet(ndim).eval()
    before = buffers_of(network)
    x = torch.randn(3, 1, *[8] * ndim)
    with torch.no_grad():
        together, alone = network(x)[0], network(x[:1])[0]
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(b, before[name]) for name, b in buffers_of(network).items())


def test_without_normalisation_there_are_no_buffers():
    network = MSNet(ModelConfig(channels=(4, 6)))
    assert norms(network) == []
    assert buffers_of(network) == {}


@pytest.mark.parametrize("ndim", [2, 3])
def test_normalised_every_parameter_learns(ndim):
    network = batch_msnet(ndim)
    logits, _ = network(torch.randn(2, 1, *[16] * ndim))
    masked_cross_entropy(logits, torch.randint(0, 2, (2, *[16] * ndim))).backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.parametrize(("ndim", "most"), [(2, 2_500_000), (3, 1_250_000)])
def test_the_default_network_of_supervised_training_is_normalised_and_small(ndim, most):
    config = default_supervised_config(ndim).model
    assert config.normalisation is Normalisation.BATCH
    network = MSNet(config)
    assert norms(network)
    smallest_peer = DENSEVOXNET_PARAMETERS if ndim == 3 else U_NET_PARAMETERS
    assert sum(p.numel() for p in network.parameters()) < most < smallest_peer


def test_a_grown_network_keeps_its_running_averages():
    network = batch_msnet().eval()
    grown = grow_classes(network, 4).eval()
    before = buffers_of(network)
    assert before
    for name, buffer in buffers_of(grown).items():
        assert torch.equal(buffer, before[name])
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(grown(x)[0][:, :2], network(x)[0])
    network_after = buffers_of(network)
    grown.train()(x)
    assert all(torch.equal(b, network_after[name]) for name, b in buffers_of(network).items())


def test_a_model_file_keeps_the_running_averages(tmp_path):
    network = batch_msnet().eval()
    Checkpoint.of(network).save(tmp_path / "model.safetensors")
    loaded = Checkpoint.load(tmp_path / "model.safetensors")
    assert loaded.config.normalisation is Normalisation.BATCH
    built = loaded.build().eval()
    assert all(torch.equal(b, buffers_of(network)[name]) for name, b in buffers_of(built).items())
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(built(x)[0], network(x)[0])


def test_averaged_weights_come_with_averaged_running_averages():
    network = batch_msnet(cycles=0)
    average = averaged(network, 0.5)
    history = []
    for _ in range(20):
        with torch.no_grad():
            network(4 + torch.randn(2, 1, 16, 16))
        average.update_parameters(network)
        history.append(buffers_of(network)["head_norm.running_mean"])
    expected = history[0]
    for n, value in enumerate(history[1:], start=1):
        expected = expected + (value - expected) * (1 - min(0.5, (1 + n) / (10 + n)))
    actual = buffers_of(average.module)["head_norm.running_mean"]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert not torch.equal(actual, history[-1])


def test_a_network_that_was_trained_can_be_copied_once_it_predicts():
    network = batch_msnet()
    network(torch.randn(2, 1, 16, 16))[0].sum().backward()
    begin_cycle(network)
    copied = copy.deepcopy(network).eval()
    x = torch.randn(1, 1, 8, 8)
    torch.testing.assert_close(copied(x)[0], network.eval()(x)[0])


def test_a_network_can_be_copied_right_after_a_training_step():
    network = batch_msnet()
    network(torch.randn(2, 1, 16, 16))[0].sum().backward()
    copy.deepcopy(network)


def test_a_normalisation_may_be_named_in_text():
    assert norms(MSNet(ModelConfig(channels=(4,), normalisation="batch")))
