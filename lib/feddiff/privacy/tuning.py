"""What hyper-parameter search costs: the epsilon of releasing the best of a random number of private runs.

Source: Papernot and Steinke 2022, "Hyperparameter Tuning with Renyi Differential Privacy": Theorem 2 (truncated
negative binomial number of runs, with the geometric at eta = 1 and the logarithmic at eta = 0) and Theorem 6 (Poisson).
"""

import math

import numpy as np
from scipy.optimize import brentq

from feddiff.privacy.arguments import count, delta_of, real
from feddiff.privacy.renyi import ORDERS, epsilon_from_rdp, sampled_gaussian_rdp

_ORDERS = np.concatenate([ORDERS, np.arange(64, 256)])
TRIALS = {"geometric": 1.0, "logarithmic": 0.0, "poisson": None}


def _mean(eta: float, gamma: float) -> float:
    """Return E[K] of the truncated negative binomial (Papernot and Steinke 2022, Definition 1)."""
    if eta == 0:
        return (1 / gamma - 1) / math.log(1 / gamma)
    return eta * (1 - gamma) / (gamma * (1 - gamma**eta))


def success_rate(*, trials: str, mean_trials: float) -> float:
    """Return the gamma in (0, 1) for which "geometric" or "logarithmic" trials have this mean (> 1)."""
    eta = TRIALS[_trials_of(trials)]
    if eta is None:
        raise ValueError("poisson trials have a mean and no gamma")
    mean = real("mean_trials", mean_trials, low=1.0, open_low=True, open_high=True)
    return math.exp(brentq(lambda log_gamma: _mean(eta, math.exp(log_gamma)) - mean, -60.0, -1e-12, xtol=1e-13))


def draw_trials(*, trials: str, mean_trials: float, generator: np.random.Generator) -> int:
    """Return a number of runs to make: at least 1 for "geometric" and "logarithmic", possibly 0 for "poisson"."""
    if _trials_of(trials) == "poisson":
        return int(generator.poisson(real("mean_trials", mean_trials, open_low=True, open_high=True)))
    gamma = success_rate(trials=trials, mean_trials=mean_trials)
    return int(generator.geometric(gamma) if trials == "geometric" else generator.logseries(1 - gamma))


def tuning_epsilon(
    *,
    sample_rate: float,
    noise_multiplier: float,
    steps: int,
    delta: float,
    trials: str = "geometric",
    mean_trials: float,
    adjacency: str = "add-remove",
) -> float:
    """Return the epsilon at `delta` of releasing only the best of K runs of DP-SGD, K random with mean `mean_trials`.

    `trials`: "geometric", "logarithmic" or "poisson". The base run's RDP at orders up to 255 enters, so the value
    compares with accountant "rdp". Selection must read the runs' scores only; all K runs released costs K-fold
    composition instead.
    """
    rate, noise = real("sample_rate", sample_rate, high=1.0), real("noise_multiplier", noise_multiplier)
    steps, delta = count("steps", steps), delta_of(delta)
    mean = real("mean_trials", mean_trials, open_low=True, open_high=True)
    if rate == 0 or steps == 0:
        return 0.0
    step = sampled_gaussian_rdp(sample_rate=rate, noise_multiplier=noise, adjacency=adjacency, orders=_ORDERS)
    base = steps * step
    if not np.all(np.isfinite(base)):
        return math.inf
    if _trials_of(trials) == "poisson":
        # The (eps_hat, delta_hat) of the base run with eps_hat = ln(1 + 1 / (order - 1)), from its own RDP.
        target = np.log1p(1 / (_ORDERS - 1))
        log_delta = (_ORDERS - 1) * (base - target[:, None] + np.log1p(-1 / _ORDERS)) - np.log(_ORDERS)
        tail = np.exp(np.minimum(0.0, log_delta.min(axis=1)))
        rdp = base + mean * tail + math.log(mean) / (_ORDERS - 1)
    else:
        eta, gamma = TRIALS[trials], success_rate(trials=trials, mean_trials=mean)
        search = (1 + eta) * float(np.min((1 - 1 / _ORDERS) * base + math.log(1 / gamma) / _ORDERS))
        rdp = base + search + math.log(mean) / (_ORDERS - 1)
    return epsilon_from_rdp(_ORDERS, rdp, delta)


def _trials_of(trials: str) -> str:
    if trials not in TRIALS:
        raise ValueError(f"trials must be one of {', '.join(TRIALS)}; got {trials!r}")
    return trials
