"""What shuffled and fixed batches really cost, beside the Poisson epsilon that is usually quoted for them.

Source: Chua, Ghazi, Kamath, Kumar, Manurangsi, Sinha, Zhang 2024, "How Private are DP-SGD Implementations?": the
adaptive batch linear queries (ABLQ) pair under zero-out adjacency: one batch sum of T is 2 against 1, the others are 0.
"""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_ndtr

from feddiff.privacy.arguments import count, delta_of, real
from feddiff.privacy.gaussian import gaussian_epsilon


def shuffle_epsilon_lower_bound(*, noise_multiplier: float, batches: int, delta: float) -> float:
    """Return a value that the true epsilon of one epoch over `batches` shuffled batches is never below.

    From one family of events only, "some batch sum exceeds c" (Chua et al. 2024, Section 4), so the truth may be
    higher; several epochs cost at least as much. Zero-out adjacency; `noise_multiplier` in [0, inf], `delta` in (0, 1).
    """
    noise = real("noise_multiplier", noise_multiplier)
    batches, delta = count("batches", batches, low=1), delta_of(delta)
    if noise == 0:
        return math.inf
    if noise == math.inf:
        return 0.0

    def log_ratio(threshold):
        others = (batches - 1) * log_ndtr(threshold / noise)
        present = -np.expm1(others + log_ndtr((threshold - 2) / noise))
        absent = -np.expm1(others + log_ndtr((threshold - 1) / noise))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log(present - delta) - np.log(absent)
        return np.where((present > delta) & (absent > 0), ratio, -np.inf)

    grid = np.linspace(-10 * noise, 2 + 12 * noise + noise * math.sqrt(2 * math.log(batches)), 4001)
    values = log_ratio(grid)
    best = int(np.argmax(values))
    left, right = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    refined = minimize_scalar(lambda point: -float(log_ratio(point)), bounds=(left, right), method="bounded")
    return max(0.0, float(values[best]), -float(refined.fun))


def fixed_batches_epsilon(*, noise_multiplier: float, epochs: int, delta: float) -> float:
    """Return the exact epsilon of fixed (never reshuffled) batches: a record sits in one batch, once per epoch.

    Parallel composition over the batches leaves one Gaussian release per epoch (zero-out or add-remove adjacency with
    the batch of every record held fixed).
    """
    noise = real("noise_multiplier", noise_multiplier)
    epochs = count("epochs", epochs)
    if epochs == 0:
        return 0.0
    return gaussian_epsilon(noise_over_sensitivity=noise / math.sqrt(epochs), delta=delta)
