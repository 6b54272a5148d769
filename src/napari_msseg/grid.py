"""One grid of MSNet: the operator N, what relaxes with it, and the way to the next grid.

    N(u) = w(u, f) ⊙ (u − f) + K*(K u)                                             (eq. 10)
    u ← u − τ [ N(u) − g ]                                                         (eq. 13)

Shape letters: B batch, C features, [Z,] Y, X space. Sources: see `model`.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_msseg.config import ModelConfig, Normalisation, Smoothers
from napari_msseg.convolutions import CONV, CONVOLVE, conv, normalise, normalised
from napari_msseg.fused import centred_softmax, relax

INTERPOLATION = {2: "bilinear", 3: "trilinear"}


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
            if config.normalisation is not Normalisation.NONE:
                self._start_as_averages(channels, coarser)

    @torch.no_grad()
    def _start_as_averages(self, channels: int, coarser: int) -> None:
        """Begin with R the mean over 2 × 2 pixels in turned channels, P its conjugate.

        Both keep lengths, so that what the coarsest grid says arrives on the finest. A network
        without normalisation, which learns from strokes, is better off with torch's random
        numbers: they let it begin with what is fine (docs/experiments.md).
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
