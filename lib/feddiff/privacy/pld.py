"""Epsilon of a workload by its privacy-loss distribution (PLD): the number that is reported.

The distributions are those of dp_accounting (connect-the-dots, Doroshenko et al. 2022), always rounded so that the
result is an upper bound. What is chosen here is the grid: rounding one step's loss onto a grid of width h adds about
h^2 / 6 to its variance, so the relative error of epsilon is about h^2 n / (12 V) for n steps of total variance V.
"""

import functools
import math
from importlib import metadata

import dp_accounting
import numpy as np
from dp_accounting.pld import common, privacy_loss_distribution
from scipy.stats import binom

from feddiff.privacy import cache
from feddiff.privacy.gaussian import gaussian_epsilon
from feddiff.privacy.renyi import ORDERS, epsilon_from_rdp, pure_rdp, sampled_gaussian_rdp
from feddiff.privacy.workload import Workload

SMALLEST_DELTA = 1e-12  # below it, rounding in the Fourier transform is no longer small beside delta
_WIDTH = 1e-4
_POINTS_OF_A_STEP, _POINTS_IN_ALL = 200_000, 2**24
_RELATION = {
    "add-remove": dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": dp_accounting.NeighboringRelation.REPLACE_ONE,
}


def workload_epsilon(workload: Workload, delta: float) -> float:
    """Return the epsilon of a workload at `delta`; exact where a closed form exists, else by PLD (cached on disk)."""
    if workload.infinite:
        return math.inf
    if not workload.sampled and not workload.pure:
        return _gaussian_only(workload, delta)
    if not workload.sampled and not workload.gaussian_mu2 and sum(workload.pure.values()) == 1:
        return next(iter(workload.pure))
    if delta < SMALLEST_DELTA:
        raise ValueError(f"delta must be >= {SMALLEST_DELTA:g} for the 'pld' accountant, got {delta!r}; use 'rdp'")
    version = metadata.version("dp-accounting")
    width = grid_width(workload, delta)
    key = {"what": "pld epsilon", "dp_accounting": version, "delta": delta, "width": width, **workload.key()}
    return cache.remembered(key, lambda: _distribution_epsilon(workload, delta, width))


def _gaussian_only(workload: Workload, delta: float) -> float:
    if workload.gaussian_mu2 == 0:
        return 0.0
    return gaussian_epsilon(noise_over_sensitivity=1 / math.sqrt(workload.gaussian_mu2), delta=delta)


def _distribution_epsilon(workload: Workload, delta: float, width: float) -> float:
    epsilon = float(_compose(workload, width).get_epsilon_for_delta(delta))
    if not workload.sampled and not workload.gaussian_mu2:
        epsilon = min(epsilon, math.fsum(spent * times for spent, times in workload.pure.items()))
    return epsilon


def grid_width(workload: Workload, delta: float) -> float:
    """Return the width of the loss grid: 1e-4 unless that is too coarse (small losses) or needlessly fine (large)."""
    steps, variance, reach = 0, workload.gaussian_mu2, 0.0
    for (rate, noise, records), times in workload.sampled.items():
        shift = records if workload.adjacency == "add-remove" else 2 * records
        steps += times
        variance += times * min((rate * shift) ** 2 * math.expm1(min(noise**-2, 50.0)), 1.0)
        largest = math.log(rate) + shift * (shift / 2 + 10 * noise) / noise**2
        reach = max(reach, float(np.logaddexp(math.log1p(-rate), largest)), -math.log1p(-rate))
    for spent, times in workload.pure.items():
        steps += times
        variance += times * min(spent * spent, 1.0)
    error = _WIDTH**2 * steps / (12 * variance)
    # A mixture of Gaussians costs some hundred times more per point: coarser, still within 1e-4.
    grouped = any(records > 1 for _, _, records in workload.sampled)
    aim, widest = (1e-4, 100 * _WIDTH) if grouped else (1e-5, 10 * _WIDTH)
    if error > 1.2e-3:
        width = _WIDTH * math.sqrt(1e-4 / error)
    else:
        width = max(_WIDTH, min(widest, _WIDTH * math.sqrt(aim / error)))
    span = reach + 2 * rdp_epsilon(workload, delta)
    return max(width, reach / _POINTS_OF_A_STEP, span / _POINTS_IN_ALL)


def rdp_epsilon(workload: Workload, delta: float, orders: np.ndarray = ORDERS) -> float:
    """Return the epsilon of a workload by RDP composition; an upper bound."""
    if workload.infinite:
        return math.inf
    total = workload.gaussian_mu2 / 2 * orders
    for (rate, noise, records), steps in workload.sampled.items():
        # A batch that holds any of the person's rows is taken to hold all of them (an upper bound for records > 1).
        total = total + steps * sampled_gaussian_rdp(
            sample_rate=-math.expm1(records * math.log1p(-rate)),
            noise_multiplier=noise / records,
            adjacency=workload.adjacency,
            orders=orders,
        )
    for spent, times in workload.pure.items():
        total = total + times * pure_rdp(spent, orders)
    return epsilon_from_rdp(orders, total, delta)


def _compose(workload: Workload, width: float) -> privacy_loss_distribution.PrivacyLossDistribution:
    parts = [_step(*term, workload.adjacency, width).self_compose(steps) for term, steps in workload.sampled.items()]
    if workload.gaussian_mu2:
        # mu2 already holds the doubling of replace-one; a Gaussian's loss is the same in both directions.
        gaussian = privacy_loss_distribution.from_gaussian_mechanism(
            1 / math.sqrt(workload.gaussian_mu2), value_discretization_interval=width
        )
        parts.append(gaussian)
    for spent, times in workload.pure.items():
        release = privacy_loss_distribution.from_privacy_parameters(
            common.DifferentialPrivacyParameters(spent, 0.0), value_discretization_interval=width
        )
        parts.extend([release] * times)
    return functools.reduce(lambda left, right: left.compose(right), parts)


@functools.lru_cache(maxsize=16)
def _step(rate: float, noise: float, records: int, adjacency: str, width: float):
    if records == 1:
        return privacy_loss_distribution.from_gaussian_mechanism(
            noise,
            value_discretization_interval=width,
            sampling_prob=rate,
            neighboring_relation=_RELATION[adjacency],
        )
    # Each of the person's rows enters the batch on its own: their number is binomial, and the worst case is that their
    # clipped gradients align (Choquette-Choo, Ganesh, Steinke, Thakurta 2023, Corollary 4.7).
    present = np.arange(records + 1)
    return privacy_loss_distribution.from_mixture_gaussian_mechanism(
        noise,
        sensitivities=present.astype(float).tolist(),
        sampling_probs=binom.pmf(present, records, rate).tolist(),
        value_discretization_interval=width,
    )
