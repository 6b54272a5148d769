"""MSNet: a multigrid solver of the Mumford–Shah model, unrolled into a network.

The head maps the image x to features f. The network then looks for a smooth approximation u
of f, weighted by soft region indicators w, by solving

    N(u) = w(u, f) ⊙ (u − f) + K*(K u) = 0                                          (eq. 10)

with one V-cycle of the full approximation scheme (FAS), because w makes N nonlinear. Every grid
l has its own operator N_l and step size τ_l, and uses the same ones wherever it needs them
(unless `ModelConfig.smoothers` gives the relaxations operators of their own):

    smooth     u_l ← u_l − τ_l [ N_l(u_l) − g_l ]                                   (eq. 13)
    restrict   û = R u_l,  f_{l+1} = R f_l,  g_{l+1} = R (g_l − N_l(u_l)) + N_{l+1}(û)
    recurse    u_{l+1} = V-cycle on grid l + 1 from û
    correct    u_l ← u_l + P (u_{l+1} − û)          the difference, not a concatenation
    smooth     again

2D and 3D are the same code with other convolutions. Nothing but convolutions and pointwise
functions when it predicts: predictions do not depend on how an image is cut into tiles.
Shape letters: B batch, C features, K classes, [Z,] Y, X space.

Source: "Interpretable small training set image segmentation network originated from multi-grid
variational model"; the formulas that are lost there are reconstructed in docs/method.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_msseg.config import ModelConfig, Normalisation, Smoothers
from napari_msseg.fused import (
    centred_softmax,
    channel_affine,
    channel_moments,
    relax,
)

CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_EPSILON, BATCH_MOMENTUM = 1e-5, 0.1
CONVOLVE = {2: F.conv2d, 3: F.conv3d}
INTERPOLATION = {2: "bilinear", 3: "trilinear"}

Watch = Callable[[int, Tensor, Tensor | None, Tensor, Tensor], None]
"""Is shown a grid when it is solved: level, f, g (None: 0), N(u) − g at the start, u."""


def conv(
    config: ModelConfig, c_in: int, c_out: int, size: int, *, bias: bool = True, groups: int = 1
) -> nn.Conv2d | nn.Conv3d:
    """Return a convolution with "same" padding in the dimensions of the configuration."""
    return CONV[config.ndim](c_in, c_out, size, padding=size // 2, bias=bias, groups=groups)


class SharedBatchNorm(nn.Module):
    """Batch normalisation with one set of statistics for a whole V-cycle.

    A grid applies its operator several times in a cycle. Only the first application takes the
    statistics of the batch, the others reuse them: N_l is one and the same function wherever
    the cycle needs it, as FAS demands, and the running averages that predict are of what they
    are used for. `begin_cycle` forgets the statistics of the cycle before.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self._of_cycle: tuple[Tensor, Tensor] | None = None

    def begin_cycle(self) -> None:
        """Take new statistics at the next application."""
        self._of_cycle = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, [Z,] Y, X) channel by channel."""
        return channel_affine(x, *self._scale_and_shift(*self._statistics(x)))

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return a convolution followed by this normalisation as one convolution.

        None where the statistics must first be taken from what the convolution gives.
        """
        known = self._of_cycle if self.training else (self.running_mean, self.running_var)
        if known is None:
            return None
        scale, shift = self._scale_and_shift(*known)
        return weight * scale.view(-1, *[1] * (weight.ndim - 1)), bias * scale + shift

    def _scale_and_shift(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.weight * torch.rsqrt(var + BATCH_EPSILON)
        return scale, self.bias - mean * scale

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.training:
            return self.running_mean, self.running_var
        if self._of_cycle is None:
            mean, var = channel_moments(x)
            self._remember(self.running_mean, mean)
            self._remember(self.running_var, var)
            self._of_cycle = mean, var
        return self._of_cycle

    @torch.no_grad()
    def _remember(self, running: Tensor, new: Tensor) -> None:
        """Move a running average; what is not finite would spoil it for good."""
        running.lerp_(torch.where(torch.isfinite(new), new, running), BATCH_MOMENTUM)


def normalise(config: ModelConfig, channels: int) -> nn.Module:
    """Return the normalisation that the configuration asks for."""
    if config.normalisation == Normalisation.BATCH:
        return SharedBatchNorm(channels)
    return nn.Identity()


def normalised(norm: nn.Module, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return norm(convolution of x), "same" padding, in as few passes as there can be."""
    convolve, padding = CONVOLVE[x.ndim - 2], weight.shape[-1] // 2
    if isinstance(norm, SharedBatchNorm):
        one = norm.folded(weight, bias)
        if one is not None:
            return convolve(x, *one, padding=padding)
    out: Tensor = norm(convolve(x, weight, bias, padding=padding))
    return out


class Regulariser(nn.Module):
    """Gradient of the learned regulariser R: u ↦ K*(K u).

    K is conv → ReLU → conv and K* its conjugate, transposed conv → ReLU → transposed conv; a
    transposed convolution of stride 1 is a convolution, and the faster of the two.
    """

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        inner = round(channels * config.expansion)
        self.k_in = conv(config, channels, inner, 3)
        self.k_out = conv(config, inner, inner, config.inner_kernel)
        self.k_adjoint_in = conv(config, inner, inner, config.inner_kernel)
        self.k_adjoint_out = conv(config, inner, channels, 3)
        self.norm = normalise(config, inner)
        self.norm_adjoint = normalise(config, inner)
        self.norm_out = normalise(config, channels)
        with torch.no_grad():  # begin near the identity, where every step size is stable
            self.k_adjoint_out.weight.mul_(0.1)

    def forward(self, u: Tensor) -> Tensor:
        """Map u (B, C, [Z,] Y, X) to K*(K u) of the same shape."""
        assert self.k_in.bias is not None
        inner = F.relu(normalised(self.norm, u, self.k_in.weight, self.k_in.bias), inplace=True)
        inner = F.relu(self._between(inner), inplace=True)
        last = self.k_adjoint_out
        assert last.bias is not None
        return normalised(self.norm_out, inner, last.weight, last.bias)

    def _between(self, x: Tensor) -> Tensor:
        """Apply the last convolution of K and the first of K*, which nothing separates; normalise.

        Where both are 1×1 they are one, whose matrix is the product of theirs.
        """
        first, second = self.k_out, self.k_adjoint_in
        assert first.bias is not None
        assert second.bias is not None
        if self.k_out.kernel_size[0] > 1:
            return normalised(self.norm_adjoint, first(x), second.weight, second.bias)
        a, b = first.weight.flatten(1), second.weight.flatten(1)
        bias = torch.addmv(second.bias, b, first.bias)
        return normalised(self.norm_adjoint, x, (b @ a).view(second.weight.shape), bias)


class RegionWeights(nn.Module):
    """The weight submodule: one step of the v-problem, learned.

        v = softmax( −[ (u − f)² + λ k_σ * (1 − 2 v_old) ] / ε )                    (eq. 12)

    `fidelity` stands for the factor −1/ε on (u − f)², `length` for the convolution of the
    previous weights; both are learned, the constants absorbed.
    """

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.fidelity = conv(config, channels, channels, 1)
        self.length = conv(config, channels, channels, 3, bias=False, groups=channels)
        with torch.no_grad():  # start as the v-step with ε = 1 and no length term
            self.fidelity.weight.mul_(0.1)
            self.length.weight.mul_(0.1)
            eye = torch.eye(channels).reshape(channels, channels, *[1] * config.ndim)
            self.fidelity.weight.sub_(eye)
            nn.init.zeros_(self.fidelity.bias)  # type: ignore[arg-type]

    def v_step(self, misfit: Tensor, w_old: Tensor) -> Tensor:
        """Return softmax over channels of the learned eq. 12; all shapes (B, C, [Z,] Y, X)."""
        return self._v_step(self._fidelity(misfit), w_old)

    def forward(self, u: Tensor, f: Tensor) -> Tensor:
        """Return w(u, f): one v-step from the v-step without a length term.

        So w is a function of u alone, which a fixed point of the V-cycle needs.
        """
        return self.of_misfit((u - f).square())

    def of_misfit(self, misfit: Tensor) -> Tensor:
        """Return w where (u − f)² is known."""
        fidelity = self._fidelity(misfit)
        return self._v_step(fidelity, centred_softmax(fidelity))

    def _v_step(self, fidelity: Tensor, w_old: Tensor) -> Tensor:
        return centred_softmax(fidelity + self.length(w_old))

    def _fidelity(self, misfit: Tensor) -> Tensor:
        """Return the fidelity term less its mean over channels.

        Softmax does not see what all channels have in common: taken off the weights, it costs
        nothing, and exponentials stay in range.
        """
        weight = self.fidelity.weight - self.fidelity.weight.mean(dim=0, keepdim=True)
        assert self.fidelity.bias is not None
        bias = self.fidelity.bias - self.fidelity.bias.mean()
        return CONVOLVE[misfit.ndim - 2](misfit, weight, bias)


class Smoother(nn.Module):
    """K, K* and the step size τ of a relaxation.

    What never relaxes needs no step size.
    """

    def __init__(self, config: ModelConfig, channels: int, *, relaxes: bool = True) -> None:
        super().__init__()
        self.regulariser = Regulariser(config, channels)
        if relaxes:
            self.step_size = nn.Parameter(torch.full((1, channels, *[1] * config.ndim), 0.5))

    def evaluate(self, weights: RegionWeights, u: Tensor, f: Tensor) -> Tensor:
        """Return w(u, f) ⊙ (u − f) + K*(K u)."""
        difference = u - f
        w = weights.of_misfit(difference.square())
        return torch.addcmul(self.regulariser(u), w, difference)

    def relax(self, u: Tensor, defect: Tensor) -> Tensor:
        """Return u − τ · defect, where defect = N(u) − g (eq. 13)."""
        # In one dtype: mixing bfloat16 with a float32 τ would make all of u float32, at twice
        # the cost of a step.
        return relax(u, self.step_size, defect)


class Grid(Smoother):
    """One grid l: the operator N_l, its step size τ_l, and the way to the next coarser grid.

    Parameters
    ----------
    channels : int
        C on this grid.
    coarser : int or None
        C on the next grid; None on the coarsest.
    """

    def __init__(self, config: ModelConfig, channels: int, coarser: int | None) -> None:
        tied = config.smoothers is Smoothers.TIED
        super().__init__(config, channels, relaxes=tied)
        self.weights = RegionWeights(config, channels)
        self.mode = INTERPOLATION[config.ndim]
        if not tied:
            self.own_before = Smoother(config, channels)
            self.own_after = Smoother(config, channels)
        if coarser is not None:
            # Kernel 2 centres a coarse pixel between its fine ones, as the interpolation does.
            # No bias: a residual of zero must stay zero on its way down and up.
            self.restrict = CONV[config.ndim](channels, coarser, 2, stride=2, bias=False)
            self.prolong_channels = conv(config, coarser, channels, 1, bias=False)
            self._start_as_averages(channels, coarser)

    @torch.no_grad()
    def _start_as_averages(self, channels: int, coarser: int) -> None:
        """Begin with R the mean over 2 × 2 pixels in turned channels, P its conjugate.

        Both keep lengths, so that what the coarsest grid says arrives on the finest.
        """
        turn = nn.init.orthogonal_(torch.empty(coarser, channels))
        kernel = self.restrict.weight
        kernel.copy_(turn.view(coarser, channels, *[1] * (kernel.ndim - 2)) / kernel[0, 0].numel())
        self.prolong_channels.weight.copy_(turn.T.reshape_as(self.prolong_channels.weight))

    @property
    def before(self) -> Smoother:
        """What relaxes before the coarse correction."""
        return cast("Smoother", getattr(self, "own_before", self))

    @property
    def after(self) -> Smoother:
        """What relaxes after the coarse correction."""
        return cast("Smoother", getattr(self, "own_after", self))

    def forward(self, u: Tensor, f: Tensor) -> Tensor:
        """Evaluate N(u) = w(u, f) ⊙ (u − f) + K*(K u)."""
        return self.evaluate(self.weights, u, f)

    def correct(self, u: Tensor, u_coarse: Tensor, u_hat: Tensor) -> Tensor:
        """Return u + P (u_coarse − û): the change that the coarser grid found, not its value."""
        return u + self.prolong(u_coarse - u_hat)

    def prolong(self, correction: Tensor) -> Tensor:
        """Interpolate a correction from the next coarser grid to this one."""
        fewer: Tensor = self.prolong_channels(correction)
        return F.interpolate(fewer, scale_factor=2, mode=self.mode, align_corners=False)


class MSNet(nn.Module):
    """Head, one V-cycle, two convolutions to the logits.

    Examples
    --------
    >>> net = MSNet(ModelConfig(ndim=2, in_channels=1, n_classes=2))
    >>> logits, decoder = net(torch.zeros(1, 1, 64, 64))
    >>> logits.shape, [tuple(u.shape[1:]) for u in decoder]
    (torch.Size([1, 2, 64, 64]), [(16, 64, 64), (24, 32, 32), (32, 16, 16)])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c = config.channels
        self.head = conv(config, config.in_channels, c[0], 3)
        self.grids = nn.ModuleList(
            Grid(config, here, coarser) for here, coarser in zip(c, (*c[1:], None), strict=True)
        )
        self.head_norm = normalise(config, c[0])
        rest = range(config.head_convolutions - 1)
        self.head_rest = nn.ModuleList(conv(config, c[0], c[0], 3) for _ in rest)
        self.head_rest_norms = nn.ModuleList(normalise(config, c[0]) for _ in rest)
        self.tail = nn.Sequential(
            conv(config, c[0], c[0], 3), nn.ReLU(), conv(config, c[0], config.n_classes, 1)
        )
        self.tail_norm = normalise(config, c[0])

    @property
    def total_stride(self) -> int:
        """Input sizes and tile origins must be multiples of this."""
        return int(2 ** (len(self.grids) - 1))

    def grid(self, level: int) -> Grid:
        """Return grid l, 0 the finest."""
        return cast("Grid", self.grids[level])

    def forward(self, x: Tensor, watch: Watch | None = None) -> tuple[Tensor, list[Tensor]]:
        """Map x (B, C_in, [Z,] Y, X) to logits (B, K, [Z,] Y, X) and u_l of every grid.

        The sizes of x must be multiples of `total_stride`. `watch` is shown every grid.
        """
        self._forget_statistics()
        f = self.to_features(x)
        solutions: list[Tensor] = []
        # Where u = f the fidelity vanishes, whatever w is: N(f) = K*(K f).
        n = self.grid(0).before.regulariser(f)
        u = self.v_cycle(0, f, f, None, n, solutions, watch)
        logits = self.to_logits(u)
        self._forget_statistics()  # they hold the graph of this cycle
        return logits, solutions[::-1]

    def _forget_statistics(self) -> None:
        for module in self.modules():
            if isinstance(module, SharedBatchNorm):
                module.begin_cycle()

    def to_features(self, x: Tensor) -> Tensor:
        """Map x (B, C_in, [Z,] Y, X) to f (B, C, [Z,] Y, X)."""
        assert self.head.bias is not None
        f = normalised(self.head_norm, x, self.head.weight, self.head.bias)
        for layer, norm in zip(self.head_rest, self.head_rest_norms, strict=True):
            weight, bias = cast("Tensor", layer.weight), cast("Tensor", layer.bias)
            f = normalised(norm, F.relu(f), weight, bias)
        return f

    def to_logits(self, u: Tensor) -> Tensor:
        """Map u_1 (B, C, [Z,] Y, X) to logits (B, K, [Z,] Y, X)."""
        first, activation, last = self.tail
        weight, bias = cast("Tensor", first.weight), cast("Tensor", first.bias)
        logits: Tensor = last(activation(normalised(self.tail_norm, u, weight, bias)))
        return logits

    def v_cycle(
        self,
        level: int,
        u: Tensor,
        f: Tensor,
        g: Tensor | None,
        n: Tensor,
        solutions: list[Tensor],
        watch: Watch | None = None,
    ) -> Tensor:
        """Solve N_l(u) = g by FAS, starting at u.

        `n` is what `before` of the grid makes of u: N_l(u) where smoothers are tied. `g` may be
        None for 0.

        Appends the solution of every grid from the coarsest up to `solutions`, and shows each
        to `watch`.
        """
        grid = self.grid(level)

        def defect(n: Tensor) -> Tensor:
            return n if g is None else n - g

        start = defect(grid(u, f)) if watch else None
        for i in range(self.config.relaxations):
            if i > 0:
                n = grid.before.evaluate(grid.weights, u, f)
            u = grid.before.relax(u, defect(n))
        if level + 1 < len(self.grids):
            coarse = self.grid(level + 1)
            u_hat, f_hat = grid.restrict(u), grid.restrict(f)  # B C' Y/2 X/2
            n_hat = coarse(u_hat, f_hat)
            g_hat = n_hat - grid.restrict(defect(grid(u, f)))
            n_before = n_hat
            if coarse.before is not coarse:
                n_before = coarse.before.evaluate(coarse.weights, u_hat, f_hat)
            u_coarse = self.v_cycle(level + 1, u_hat, f_hat, g_hat, n_before, solutions, watch)
            u = grid.correct(u, u_coarse, u_hat)
        for _ in range(self.config.relaxations):
            u = grid.after.relax(u, defect(grid.after.evaluate(grid.weights, u, f)))
        solutions.append(u)
        if watch:
            assert start is not None
            watch(level, f, g, start, u)
        return u


def grow_classes(model: MSNet, n_classes: int) -> MSNet:
    """Return a copy of `model` with more output classes; what it knows of the old ones is kept."""
    grown = MSNet(dataclasses.replace(model.config, n_classes=n_classes))
    old = model.state_dict()
    for name, value in grown.state_dict().items():
        value[: len(old[name])] = old[name]  # only the last convolution has new rows
    return grown


def receptive_radius(config: ModelConfig) -> int:
    """Return how far, in pixels, an input pixel can influence the output.

    Followed along the V-cycle operation by operation: tiles with a halo of this many pixels
    predict exactly what the whole image predicts.
    """
    # K and K* are four convolutions in a row; the weights reach one pixel, which is less.
    operator = 2 * (1 + config.inner_kernel // 2)

    def cycle(level: int, u: int, f: int, defect: int) -> int:
        """Reach of the solution on a grid from that of u, f and N(u) − g at its start."""
        pixel = 2**level
        right_hand_side = 0 if level == 0 else max(defect, u + operator * pixel)
        u = max(u, defect)
        for _ in range(config.relaxations - 1):
            u = max(u + operator * pixel, f + pixel, right_hand_side)
        if level + 1 < len(config.channels):
            residual = max(u + operator * pixel, f + pixel, right_hand_side)
            start, defect = u + pixel, residual + pixel
            if config.smoothers is Smoothers.SEPARATE:  # N(û) of the smoother does not cancel
                defect = max(defect, start + operator * 2 * pixel)
            coarse = cycle(level + 1, start, f + pixel, defect)
            u = max(u, coarse + 2 * pixel)
        for _ in range(config.relaxations):
            u = max(u + operator * pixel, f + pixel, right_hand_side)
        return u

    head, tail = config.head_convolutions, 1
    return cycle(0, head, head, head + operator) + tail
