"""Adaptive clipping with its cost accounted.

Andrew et al., 2021, "Differentially Private Learning with Adaptive Clipping".

The clip norm follows a quantile of the record norms through a noised count of unclipped records. That count is a second
Gaussian release of every step: gradient and count together are one Gaussian mechanism whose noise multiplier is what
the accountant must be given (their theorem 1), smaller than that of the gradient alone.
"""

import math

import torch

from feddiff.privacy.noise import GaussianNoise, SecureGaussianNoise
from feddiff.privacy.step import PrivateStep, StepReport


def effective_noise_multiplier(*, gradient: float, count_std: float) -> float:
    """Return the noise multiplier to account for: z = (gradient^-2 + (2 count_std)^-2)^-1/2.

    gradient: noise multiplier of the gradient, > 0; count_std: standard deviation of the noise on the count of
    unclipped records, each counted as +-1/2 (sensitivity 1/2 under add-remove), > 0.
    """
    _check_positive(gradient=gradient, count_std=count_std)
    return (gradient**-2 + (2.0 * count_std) ** -2) ** -0.5


def gradient_noise_multiplier(*, effective: float, count_std: float) -> float:
    """Return the noise multiplier that the gradient needs so that both releases together cost `effective`.

    The inverse of `effective_noise_multiplier`; raises ValueError where the count alone costs as much already.
    """
    _check_positive(effective=effective, count_std=count_std)
    if 2.0 * count_std <= effective:
        raise ValueError(
            f"count_std must exceed effective / 2 = {effective / 2:g}, got {count_std:g}: the count would spend it all"
        )
    return (effective**-2 - (2.0 * count_std) ** -2) ** -0.5


class AdaptiveClip:
    """Moves the clip norm of a PrivateStep towards a quantile of the record norms after each step.

    step: flat clipping, finite clip norm, noise on; quantile: share of records to leave unclipped, in (0, 1);
    rate: learning rate of log C, > 0; count_std: noise on the count, > 0 (about expected_batch / 20), from `noise`.
    Account for every step with `noise_multiplier`, not with that of the step.
    """

    def __init__(
        self,
        step: PrivateStep,
        *,
        quantile: float,
        count_std: float,
        noise: GaussianNoise | SecureGaussianNoise,
        rate: float = 0.2,
    ):
        _check_positive(count_std=count_std, rate=rate)
        if not 0.0 < quantile < 1.0:
            raise ValueError(f"quantile must lie in (0, 1), got {quantile!r}")
        if step.clipping != "flat" or math.isinf(step.clip_norm) or step.noise_multiplier == 0:
            raise ValueError("adaptive clipping needs a PrivateStep with flat clipping, a finite clip_norm and noise")
        self.step, self.quantile, self.rate, self.count_std, self.noise = step, quantile, rate, count_std, noise

    @property
    def noise_multiplier(self) -> float:
        """The noise multiplier to account for at every step, gradient and count together."""
        return effective_noise_multiplier(gradient=self.step.noise_multiplier, count_std=self.count_std)

    def update(self, report: StepReport) -> float:
        """Move the clip norm after the step that gave `report`, an empty batch included, and return the new one.

        C <- C exp(-rate (b - quantile)), b = 1/2 + (sum of +-1/2 + N(0, count_std^2)) / expected_batch.
        """
        votes = (report.norms <= self.step.clip_norm).double() - 0.5
        drawn = self.noise.fill_(torch.empty(1, dtype=torch.float64), self.count_std).item()
        unclipped = 0.5 + (votes.sum().item() + drawn) / self.step.expected_batch
        self.step.clip_norm *= math.exp(-self.rate * (unclipped - self.quantile))
        return self.step.clip_norm


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be finite and > 0, got {value!r}")
