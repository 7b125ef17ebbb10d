"""UniPC of order 2 (Zhao et al. 2023, arXiv 2302.04867), variant bh2, predicting x_0, for flow matching.

With alpha = 1 - sigma and lambda = ln(alpha / sigma). The corrector runs at every step but the first, at the order of
the predictor before it; the first and the last predictor are of order 1, and the last step returns x_0.
"""

import math

import torch
from torch import Tensor


class UniPC:
    """One trajectory: `step` once for each sigma but the last, with the velocity at the sample it returned before."""

    def __init__(self, sigmas: Tensor) -> None:
        self.sigmas = [float(sigma) for sigma in sigmas]
        self.num_steps = len(self.sigmas) - 1
        self.index = 0
        self._clean: list[Tensor] = []  # x_0 predictions, the last two
        self._start: Tensor | None = None  # sample the last predictor started from
        self._order = 0  # of the last predictor

    def step(self, velocity: Tensor, sample: Tensor) -> Tensor:
        """The sample at the next sigma."""
        if self.index >= self.num_steps:
            raise ValueError(f"all {self.num_steps} steps were taken")
        clean = sample - self.sigmas[self.index] * velocity
        if self.index > 0:
            sample = self._correct(clean)
        self._clean = [*self._clean[-1:], clean]
        is_last = self.index == self.num_steps - 1
        self._order = 1 if self.index == 0 or is_last else 2
        self._start = sample
        self.index += 1
        return clean if is_last else self._predict()

    def _log_snr(self, index: int) -> float:
        return math.log((1 - self.sigmas[index]) / self.sigmas[index])

    def _ahead(self, target: int) -> tuple[float, Tensor, float]:
        """(h, first-order move to `target` from the step before it, alpha_t * B(h))."""
        if self._start is None:
            raise ValueError("no step was taken yet")
        origin = target - 1
        h = self._log_snr(target) - self._log_snr(origin)
        factor = (1 - self.sigmas[target]) * math.expm1(-h)
        moved = self.sigmas[target] / self.sigmas[origin] * self._start - factor * self._clean[-1]
        return h, moved, factor

    def _slope(self, origin: int, h: float) -> tuple[float, Tensor]:
        """(r, D1): how the prediction changed over the step before `origin`, per unit of r."""
        r = (self._log_snr(origin - 1) - self._log_snr(origin)) / h
        return r, (self._clean[-2] - self._clean[-1]) / r

    def _predict(self) -> Tensor:
        target = self.index
        h, moved, factor = self._ahead(target)
        if self._order == 1:
            return moved
        _, slope = self._slope(target - 1, h)
        return moved - factor * 0.5 * slope

    def _correct(self, clean: Tensor) -> Tensor:
        target = self.index
        h, moved, factor = self._ahead(target)
        change = clean - self._clean[-1]
        if self._order == 1:
            return moved - factor * 0.5 * change
        r, slope = self._slope(target - 1, h)
        first, second = _corrector_weights(h, r)
        return moved - factor * (first * slope + second * change)


def _corrector_weights(h: float, r: float) -> tuple[float, float]:
    """The 2x2 system of the order-2 corrector."""
    hh = -h
    b_h = math.expm1(hh)
    phi_2 = b_h / hh - 1
    phi_3 = phi_2 / hh - 0.5
    system = torch.tensor([[1.0, 1.0], [r, 1.0]], dtype=torch.float64)
    first, second = torch.linalg.solve(system, torch.tensor([phi_2 / b_h, 2 * phi_3 / b_h], dtype=torch.float64))
    return float(first), float(second)
