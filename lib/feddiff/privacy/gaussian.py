"""The Gaussian mechanism, exactly: epsilon, its inverse, and the noise of a diffusion's forward process.

Source: Balle and Wang 2018, "Improving the Gaussian Mechanism for Differential Privacy", Theorem 8:
delta(eps) = Phi(mu/2 - eps/mu) - exp(eps) Phi(-mu/2 - eps/mu), with mu = sensitivity / noise standard deviation.
"""

import math

from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr

from feddiff.privacy.arguments import delta_of, real

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def _mills(x: float) -> float:
    """Return (1 - Phi(x)) / phi(x), without underflow for large x."""
    return math.sqrt(math.pi / 2) * float(erfcx(x / math.sqrt(2)))


def _log_delta(w: float, mu: float) -> float:
    """Return log delta at eps = mu w + mu^2 / 2; in Mills ratios, since the two terms of Theorem 8 nearly cancel."""
    if w < -5:
        first, second = float(log_ndtr(-w)), -w * w / 2 - _LOG_SQRT_2PI + math.log(_mills(w + mu))
        return first + math.log1p(-math.exp(second - first))
    if mu < 1e-3:
        # The difference of the two Mills ratios over a short interval: mu times minus the slope at its middle.
        middle = w + mu / 2
        gap = mu * (1 - middle * _mills(middle))
    else:
        gap = _mills(w) - _mills(w + mu)
    if gap <= 0:
        return -math.inf
    return -w * w / 2 - _LOG_SQRT_2PI + math.log(gap)


def gaussian_delta(*, noise_over_sensitivity: float, epsilon: float) -> float:
    """Return the least delta, in [0, 1], of one Gaussian release at `epsilon` >= 0 (Balle and Wang 2018, Theorem 8)."""
    ratio = real("noise_over_sensitivity", noise_over_sensitivity)
    epsilon = real("epsilon", epsilon)
    if ratio == 0:
        return 0.0 if epsilon == math.inf else 1.0
    if ratio == math.inf or epsilon == math.inf:
        return 0.0
    mu = 1 / ratio
    return math.exp(_log_delta(epsilon / mu - mu / 2, mu))


def gaussian_epsilon(*, noise_over_sensitivity: float, delta: float) -> float:
    """Return the exact epsilon of one Gaussian release at `delta` (Balle and Wang 2018, Theorem 8).

    `noise_over_sensitivity` is the noise standard deviation in units of the L2 sensitivity, in [0, inf]; T full-batch
    steps of DP-SGD at noise multiplier s are one release at s / sqrt(T). No noise gives inf, infinite noise 0.
    """
    ratio = real("noise_over_sensitivity", noise_over_sensitivity)
    log_delta = math.log(delta_of(delta))
    if ratio == 0:
        return math.inf
    if ratio == math.inf:
        return 0.0
    mu = 1 / ratio
    if mu == math.inf or mu * mu == math.inf:
        return math.inf
    # The unknown is w = eps/mu - mu/2: it stays of order one however large or small mu is.
    low = -mu / 2
    if _log_delta(low, mu) <= log_delta:
        return 0.0
    high = math.sqrt(-2 * log_delta)
    low = max(low, -40.0)
    w = brentq(lambda point: _log_delta(point, mu) - log_delta, low, high, xtol=1e-14, rtol=8.9e-16)
    return max(0.0, mu * w + mu * mu / 2)


def gaussian_noise(*, target_epsilon: float, delta: float) -> float:
    """Return the least noise, in units of the L2 sensitivity, whose exact epsilon at `delta` is <= `target_epsilon`."""
    target = real("target_epsilon", target_epsilon, open_low=True, open_high=True)
    log_delta = math.log(delta_of(delta))
    # zCDP is valid but loose: its mu is private enough; double it until it is not.
    low = math.log(target / (math.sqrt(target - log_delta) + math.sqrt(-log_delta)))
    high = low + math.log(2)

    def excess(log_mu: float) -> float:
        mu = math.exp(log_mu)
        return _log_delta(target / mu - mu / 2, mu) - log_delta

    while excess(high) < 0:
        high += math.log(2)
    noise = math.exp(-brentq(excess, low, high, xtol=1e-14, rtol=8.9e-16))
    while gaussian_epsilon(noise_over_sensitivity=noise, delta=delta) > target:
        noise *= 1 + 1e-13
    return noise


def forward_diffusion_epsilon(*, alpha_bar: float, clip_norm: float, delta: float, bound: str = "analytic") -> float:
    """Return the epsilon of publishing one noised copy sqrt(abar) x + sqrt(1 - abar) z of a record, once.

    `alpha_bar` in [0, 1] is the product of 1 - beta up to the published step; ||x||_2 <= `clip_norm`, so that any two
    records differ by at most 2 clip_norm (local DP, replace-one). The unit is what the norm spans: one pixel channel in
    [-1, 1] has clip_norm 1, an RGB pixel sqrt(3), an image of d values sqrt(d) unless it is clipped.
    "analytic": exact, with noise / sensitivity = sqrt((1 - abar) / abar) / (2 C). "theorem": Patel, Zhang, Wang 2025
    (PFDM), Theorem 5.1: 2 abar C^2 / (1 - abar) + C sqrt(8 abar ln(1/delta) / (1 - abar)); valid but looser.
    """
    abar = real("alpha_bar", alpha_bar, high=1.0)
    radius = real("clip_norm", clip_norm)
    delta = delta_of(delta)
    if bound not in ("analytic", "theorem"):
        raise ValueError(f"bound must be 'analytic' or 'theorem', got {bound!r}")
    if abar == 0 or radius == 0:
        return 0.0
    if abar == 1 or radius == math.inf:
        return math.inf
    noise = math.sqrt((1 - abar) / abar)
    if bound == "theorem":
        return 2 * (radius / noise) ** 2 + (radius / noise) * math.sqrt(8 * math.log(1 / delta))
    return gaussian_epsilon(noise_over_sensitivity=noise / (2 * radius), delta=delta)
