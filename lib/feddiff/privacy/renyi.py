"""Renyi differential privacy (RDP) of subsampled Gaussian steps and of one-shot releases.

Sources: Mironov, Talwar, Zhang 2019, "Renyi Differential Privacy of the Sampled Gaussian Mechanism" (the divergence);
Canonne, Kamath, Steinke 2020, Proposition 12 (conversion to epsilon). The orders are those of Opacus'
RDPAccountant; the divergence is integrated numerically (all orders at once) instead of summed as a series, which
agrees with Opacus to rounding and costs a millisecond.
"""

import functools
import math

import numpy as np
from scipy.special import logsumexp

ORDERS = np.array([1 + step / 10 for step in range(1, 100)] + list(range(12, 64)), dtype=float)
_LARGEST_GRID = 4_000_000
_ROUNDING = 4e-15


def sampled_gaussian_rdp(*, sample_rate: float, noise_multiplier: float, adjacency: str, orders=None) -> np.ndarray:
    """Return the RDP of one Poisson-subsampled Gaussian step at every order (> 1; Opacus' 151 by default), in nats.

    Sensitivity is one clipping norm per record added or removed. For replace-one the pair is (1-q) N(0) + q N(1)
    against (1-q) N(0) + q N(-1).
    """
    orders = ORDERS if orders is None else np.asarray(orders, dtype=float)
    return _rdp(float(sample_rate), float(noise_multiplier), adjacency, orders.tobytes()).copy()


@functools.lru_cache(maxsize=256)
def _rdp(rate: float, noise: float, adjacency: str, packed: bytes) -> np.ndarray:
    orders = np.frombuffer(packed, dtype=float)
    shift = 1.0 if adjacency == "add-remove" else 2.0
    if rate == 0 or noise == math.inf:
        return np.zeros_like(orders)
    if noise == 0:
        return np.full_like(orders, math.inf)
    full_batch = orders * shift**2 / (2 * noise**2)
    if rate == 1:
        return full_batch
    if adjacency == "add-remove":
        rdp = _integrate_add_remove(rate, noise, orders)
    else:
        rdp = _integrate_replace_one(rate, noise, orders)
    return np.clip(rdp, 0.0, full_batch)


def _log_mixture(x: np.ndarray, rate: float, noise: float, mean: float) -> np.ndarray:
    """Return log of ((1-q) N(0, s^2) + q N(mean, s^2)) / N(0, s^2) at x."""
    return np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * mean * x - mean**2) / (2 * noise**2))


def _integrate_add_remove(rate: float, noise: float, orders: np.ndarray) -> np.ndarray:
    # log E_{x ~ N(0, s^2)} (mixture(x) / N(x))^order. The integrand lives around 0 and around x = order; the trapezoid
    # rule converges exponentially once the step resolves both the noise and the kink of the mixture (width s^2).
    step = min(noise / 2, max(0.7 * noise**2, noise / 200))
    reach = math.ceil(10 * noise / step)
    near = np.arange(-reach, reach + 1) * step
    first = np.maximum(reach + 1, np.floor(orders / step).astype(np.int64) - reach)
    centre = logsumexp(_tail(near[None, :], rate, noise, orders[:, None]), axis=1)
    rows = max(1, _LARGEST_GRID // (2 * reach + 1))
    far = []
    for start in range(0, len(orders), rows):
        piece = slice(start, start + rows)
        points = (first[piece, None] + np.arange(2 * reach + 1)[None, :]) * step
        far.append(logsumexp(_tail(points, rate, noise, orders[piece, None]), axis=1))
    log_moment = np.logaddexp(centre, np.concatenate(far))
    log_moment += math.log(step) - math.log(noise) - 0.5 * math.log(2 * math.pi)
    # A tiny sampling rate leaves a moment of 1 + 1e-12 or less: never let rounding take from the bound.
    return (log_moment + _ROUNDING) / (orders - 1)


def _tail(x: np.ndarray, rate: float, noise: float, orders: np.ndarray) -> np.ndarray:
    return -(x**2) / (2 * noise**2) + orders * _log_mixture(x, rate, noise, 1.0)


def _integrate_replace_one(rate: float, noise: float, orders: np.ndarray) -> np.ndarray:
    # As above for P^order Q^(1 - order): its mass lies around 0, around order (where P is its far component and Q its
    # near one), around 2 order - 1 (both far) and around the point where Q changes from one to the other.
    step = min(noise / 4, max(noise**2 / 4, noise / 400))
    reach = np.arange(-math.ceil(12 * noise / step), math.ceil(12 * noise / step) + 1)
    turn = noise**2 * (math.log(rate) - math.log1p(-rate)) - 0.5
    rdp = np.empty_like(orders)
    for index, order in enumerate(orders):
        centres = np.round(np.array([0.0, order, 2 * order - 1, turn]) / step).astype(np.int64)
        x = np.unique(centres[:, None] + reach[None, :]) * step
        exponent = order * _log_mixture(x, rate, noise, 1.0) + (1 - order) * _log_mixture(x, rate, noise, -1.0)
        log_moment = logsumexp(exponent - x**2 / (2 * noise**2))
        rdp[index] = log_moment + math.log(step) - math.log(noise) - 0.5 * math.log(2 * math.pi)
    return (rdp + _ROUNDING) / (orders - 1)


def pure_rdp(epsilon: float, orders: np.ndarray) -> np.ndarray:
    """Return the RDP of an epsilon-DP release: that of randomised response, which dominates every other one."""
    if epsilon == math.inf:
        return np.full_like(orders, math.inf)
    top, bottom = -math.log1p(math.exp(-epsilon)), -math.log1p(math.exp(-epsilon)) - epsilon
    moment = np.logaddexp(orders * top + (1 - orders) * bottom, orders * bottom + (1 - orders) * top)
    return np.maximum(moment, 0.0) / (orders - 1)


def rdp_floor(delta: float) -> float:
    """Return the epsilon that the conversion leaves at the default orders when almost nothing was spent."""
    return epsilon_from_rdp(ORDERS, np.full_like(ORDERS, 1e-300), delta)


def epsilon_from_rdp(orders: np.ndarray, rdp: np.ndarray, delta: float) -> float:
    """Return the best epsilon over the orders (Canonne et al. 2020, Proposition 12); never negative, inf if none."""
    orders, rdp = np.asarray(orders, dtype=float), np.asarray(rdp, dtype=float)
    if not np.any(rdp > 0):
        return 0.0
    candidates = rdp - (math.log(delta) + np.log(orders)) / (orders - 1) + np.log1p(-1 / orders)
    return max(0.0, float(np.min(candidates)))
