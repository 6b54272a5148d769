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

import torch.nn.functional as F
from torch import Tensor, nn

from napari_msseg.config import ModelConfig, Smoothers
from napari_msseg.convolutions import SharedBatchNorm, conv, normalise, normalised
from napari_msseg.grid import Grid

Watch = Callable[[int, Tensor, Tensor | None, Tensor, Tensor], None]
"""Is shown a grid when it is solved: level, f, g (None: 0), N(u) − g at the start, u."""


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
