"""Privacy accounting of DP-SGD and of Gaussian releases: epsilon, its calibration, and the horizon it allows.

The reported accountant is "pld" (numerical, tight, an upper bound). "rdp" (Opacus' orders) and "prv" (Opacus' own)
stand beside it; the central-limit ("GDP") accountant is refused because it under-reports. Every step samples each
record independently with probability `sample_rate` (Poisson), clips to norm 1 and adds Gaussian noise of standard
deviation `noise_multiplier`. Adjacency is "add-remove" (one record more or less) or "replace-one" (sensitivity 2).
"""

import functools
import math
import warnings

import numpy as np
from scipy.optimize import brentq

from feddiff.privacy.arguments import accountant_of, adjacency_of, count, delta_of, real
from feddiff.privacy.gaussian import forward_diffusion_epsilon, gaussian_delta, gaussian_epsilon, gaussian_noise
from feddiff.privacy.pld import rdp_epsilon, workload_epsilon
from feddiff.privacy.renyi import ORDERS, rdp_floor
from feddiff.privacy.workload import Workload

__all__ = [
    "epsilon",
    "forward_diffusion_epsilon",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_noise",
    "max_steps",
    "noise_multiplier",
]

# Opacus' orders stop at 63, which says nothing about small epsilon; more of them lead the search there.
_STEERING = np.concatenate([ORDERS, 2.0 ** np.arange(6.5, 17)])
_LEAST_NOISE, _MOST_NOISE = 1e-3, 1e8
_PRV_ERROR = 0.01
_PRV_POINTS = 2**25  # Opacus' PRV holds a dozen arrays of this many numbers: about 3 GiB


def epsilon(
    *,
    sample_rate: float,
    noise_multiplier: float,
    steps: int,
    delta: float,
    accountant: str = "pld",
    adjacency: str = "add-remove",
) -> float:
    """Return the epsilon at `delta` of `steps` Poisson-subsampled Gaussian steps; an upper bound, in [0, inf].

    `sample_rate` in [0, 1] is B / n of the one data set (of the client, not of the federation); `noise_multiplier` >= 0
    is the noise standard deviation over the clipping norm; `delta` in (0, 1). No noise gives inf, no step 0.
    """
    rate = real("sample_rate", sample_rate, high=1.0)
    noise = real("noise_multiplier", noise_multiplier)
    steps, delta = count("steps", steps), delta_of(delta)
    return _epsilon(rate, noise, steps, delta, accountant_of(accountant), adjacency_of(adjacency))


@functools.lru_cache(maxsize=4096)
def _epsilon(rate: float, noise: float, steps: int, delta: float, accountant: str, adjacency: str) -> float:
    workload = Workload(adjacency).add_sampled(sample_rate=rate, noise_multiplier=noise, steps=steps)
    if workload.empty or workload.infinite:
        return math.inf if workload.infinite else 0.0
    if accountant == "pld":
        return workload_epsilon(workload, delta)
    if accountant == "rdp":
        return rdp_epsilon(workload, delta)
    if adjacency != "add-remove":
        raise ValueError("accountant 'prv' knows add-remove adjacency only; use 'pld' or 'rdp' for replace-one")
    return _prv(rate, noise, steps, delta)


def _prv(rate: float, noise: float, steps: int, delta: float) -> float:
    """Return Opacus' PRV epsilon (the upper end, about 0.01 above the PLD); runs beyond its memory are refused."""
    # Imported here: Opacus loads torch.distributed, a quarter of the start of every process, for this one accountant.
    from opacus.accountants import PRVAccountant
    from opacus.accountants.analysis.prv import PoissonSubsampledGaussianPRV
    from opacus.accountants.analysis.prv.domain import compute_safe_domain_size

    error = delta / 1000
    # Opacus warns of its search over orders and of log(0) in cells without mass: both harmless (privacy.md, 1.1).
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        half = compute_safe_domain_size(
            [PoissonSubsampledGaussianPRV(rate, noise)], [steps], eps_error=_PRV_ERROR, delta_error=error
        )
        points = 2 * half / (_PRV_ERROR / math.sqrt(steps * math.log(12 / error) / 2))
        if not points <= _PRV_POINTS:
            raise ValueError(
                f"accountant 'prv' would need {points:.3g} grid points for sample_rate {rate:g}, noise_multiplier "
                f"{noise:g} and steps {steps} (limit {_PRV_POINTS}: it runs out of memory or time); use 'pld'"
            )
        accountant = PRVAccountant()
        accountant.history = [(noise, rate, steps)]
        return float(accountant.get_epsilon(delta, eps_error=_PRV_ERROR, delta_error=error))


def noise_multiplier(
    *,
    target_epsilon: float,
    sample_rate: float,
    steps: int,
    delta: float,
    accountant: str = "pld",
    adjacency: str = "add-remove",
) -> float:
    """Return a noise multiplier whose epsilon lies in (0.98 target, target]: it never overshoots the target.

    The result is within about 0.05 % of the least such noise; 0.0 when nothing is ever sampled (rate or steps 0).
    ValueError where every noise multiplier above 0.001 spends less than 0.98 of the target.
    """
    target = real("target_epsilon", target_epsilon, open_low=True, open_high=True)
    rate = real("sample_rate", sample_rate, high=1.0)
    steps, delta = count("steps", steps), delta_of(delta)
    accountant, adjacency = accountant_of(accountant), adjacency_of(adjacency)
    if rate == 0 or steps == 0:
        return 0.0
    if rate == 1 and accountant == "pld":
        shift = 1 if adjacency == "add-remove" else 2
        noise = shift * math.sqrt(steps) * gaussian_noise(target_epsilon=target, delta=delta)
        while _epsilon(rate, noise, steps, delta, accountant, adjacency) > target:
            noise *= 1 + 1e-13
        return noise

    if accountant != "rdp" and -math.expm1(steps * math.log1p(-rate) if rate < 1 else -math.inf) <= delta:
        raise ValueError(
            f"target_epsilon {target:g} cannot be spent: delta {delta:g} covers the whole chance of ever being sampled "
            f"(sample_rate {rate:g}, steps {steps}), so epsilon is 0 without any noise; choose a smaller delta"
        )

    def spent(log_noise: float) -> float:
        return _epsilon(rate, math.exp(log_noise), steps, delta, accountant, adjacency)

    def cheap(log_noise: float) -> float:
        workload = Workload(adjacency).add_sampled(sample_rate=rate, noise_multiplier=math.exp(log_noise), steps=steps)
        return rdp_epsilon(workload, delta, _STEERING if accountant != "rdp" else ORDERS)

    floor = rdp_floor(delta)
    if accountant == "rdp" and target <= floor:
        raise ValueError(
            f"target_epsilon {target:g} is below what 'rdp' can certify at delta {delta:g} with orders up to 63 "
            f"({floor:.3g}, however much noise); use 'pld'"
        )
    return math.exp(_solve(spent, cheap, target, slack=1e-6 if accountant == "rdp" else 2e-4))


def _solve(spent, cheap, target: float, slack: float) -> float:
    """Return log noise with spent(log noise) in ((1 - 2 slack) target, target]; `cheap` >= `spent` steers the search.

    Both fall with the noise and stay nearly proportional, so each costly value of `spent` corrects the ratio and the
    next candidate solves ratio * cheap = (1 - slack) target; bisection takes over where that stops helping.
    """
    low, high = math.log(_LEAST_NOISE), math.log(_MOST_NOISE)
    aim = (1 - slack) * target

    def invert(value: float) -> float:
        left, right = math.log(0.3), math.log(3.0)
        while left > low and cheap(left) < value:
            left -= 1.5
        while right < high and cheap(right) > value:
            right += 1.5
        if cheap(left) <= value:
            return left
        if cheap(right) > value:
            return right
        return brentq(lambda point: math.log(max(cheap(point), 1e-300) / value), left, right, xtol=slack / 100)

    point, best = invert(aim), None
    for trial in range(60):
        point = min(max(point, low), high)
        value = spent(point)
        if (1 - 2 * slack) * target < value <= target:
            return point
        if value > target:
            low = point
        else:
            high, best = point, value
            if point <= math.log(_LEAST_NOISE):
                break
        if best is not None and best > 0.98 * target and (trial >= 12 or high - low < 1e-9):
            return high
        steered = invert(aim * cheap(point) / value) if 0 < value < math.inf and trial < 6 else None
        point = steered if steered is not None and low < steered < high else (low + high) / 2
    raise ValueError(
        f"target_epsilon {target:g} cannot be met within 2 %: at noise multiplier {math.exp(high):.3g} the run spends "
        f"{best if best is not None else spent(high):.3g}; epsilon jumps there because delta nearly covers the chance "
        "of being sampled at all. Choose a smaller delta or another target"
    )


def max_steps(
    *,
    target_epsilon: float,
    sample_rate: float,
    noise_multiplier: float,
    steps: int,
    delta: float,
    accountant: str = "pld",
    adjacency: str = "add-remove",
) -> int:
    """Return the largest number of steps, at most `steps`, whose epsilon stays <= `target_epsilon` (0 if none does)."""
    target = real("target_epsilon", target_epsilon)
    limit = count("steps", steps)
    rate = real("sample_rate", sample_rate, high=1.0)
    noise = real("noise_multiplier", noise_multiplier)
    delta, accountant, adjacency = delta_of(delta), accountant_of(accountant), adjacency_of(adjacency)

    def spent(number: int) -> float:
        return _epsilon(rate, noise, number, delta, accountant, adjacency)

    if spent(limit) <= target:
        return limit
    # RDP is an upper bound, so what it allows is allowed: a cheap start from below.
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _rdp_allows(rate, noise, middle, delta, adjacency, target) else (low, middle)
    if accountant == "rdp":
        return low
    high, gap = limit, max(1, low // 8)
    while low + gap < high:
        if spent(low + gap) <= target:
            low, gap = low + gap, 2 * gap
        else:
            high = low + gap
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if spent(middle) <= target else (low, middle)
    return low


def _rdp_allows(rate: float, noise: float, steps: int, delta: float, adjacency: str, target: float) -> bool:
    return _epsilon(rate, noise, steps, delta, "rdp", adjacency) <= target
