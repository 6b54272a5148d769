"""MSNet written plainly: what the fast form is compared with, in value and in speed.

The same weights and the same function, an operation for an operation of docs/method.md: torch's
softmax, every convolution for itself, every right-hand side there even where it is zero.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_msseg.grid import Grid, Smoother
from napari_msseg.model import MSNet


def operator(grid: Grid, u: Tensor, f: Tensor, smoother: Smoother | None = None) -> Tensor:
    """Return N(u) = w(u, f) ⊙ (u − f) + K*(K u), with K and K* of a smoother if one is given."""
    weights, regulariser = grid.weights, (smoother or grid).regulariser
    fidelity = weights.fidelity((u - f) ** 2)
    w_old = torch.softmax(fidelity, dim=1)
    w = torch.softmax(fidelity + weights.length(w_old), dim=1)
    k_u = regulariser.k_out(F.relu(regulariser.norm(regulariser.k_in(u))))
    adjoint = F.relu(regulariser.norm_adjoint(regulariser.k_adjoint_in(k_u)))
    return cast("Tensor", w * (u - f) + regulariser.norm_out(regulariser.k_adjoint_out(adjoint)))


class PlainMSNet(MSNet):
    """Loads the weights of an `MSNet` and computes what it computes."""

    def forward(self, x: Tensor, watch: object = None) -> tuple[Tensor, list[Tensor]]:
        """Map x (B, C_in, [Z,] Y, X) to logits (B, K, [Z,] Y, X) and u_l of every grid."""
        self._forget_statistics()
        f = self.head_norm(self.head(x))
        for layer, norm in zip(self.head_rest, self.head_rest_norms, strict=True):
            f = norm(layer(F.relu(f)))
        solutions: list[Tensor] = []
        u = self.cycle(0, f, f, torch.zeros_like(f), solutions)
        return self.to_logits(u), solutions[::-1]

    def cycle(self, level: int, u: Tensor, f: Tensor, g: Tensor, solutions: list[Tensor]) -> Tensor:
        """Solve N_l(u) = g by FAS, from u."""
        grid = self.grid(level)
        for _ in range(self.config.relaxations):
            u = u - grid.before.step_size * (operator(grid, u, f, grid.before) - g)
        if level + 1 < len(self.grids):
            u_hat, f_hat = grid.restrict(u), grid.restrict(f)
            residual = grid.restrict(g - operator(grid, u, f))
            g_hat = residual + operator(self.grid(level + 1), u_hat, f_hat)
            u = u + grid.prolong(self.cycle(level + 1, u_hat, f_hat, g_hat, solutions) - u_hat)
        for _ in range(self.config.relaxations):
            u = u - grid.after.step_size * (operator(grid, u, f, grid.after) - g)
        solutions.append(u)
        return u
