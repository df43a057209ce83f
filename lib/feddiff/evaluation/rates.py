"""Success rates of attacks with intervals, and what an attack gains over its control.

Counts become rates here and nowhere else. A rate of 0 or 1 in a small sample is not certain: Wilson's interval (1927)
shrinks towards 1/2, Clopper and Pearson's (1934) never covers less than it says.
"""

import math

from scipy.stats import beta, norm

from feddiff.evaluation.statistics import Estimate


def wilson(successes: float, trials: float, confidence: float = 0.95) -> Estimate:
    """Return Wilson's centre (k + z^2 / 2) / (n + z^2) of k = `successes` in n = `trials` with its score interval.

    All in [0, 1]; the interval is symmetric about the value (Wilson, 1927, eq. 8). Without trials: 1/2 in [0, 1].
    Expected counts (not whole) are allowed. ValueError unless 0 <= successes <= trials and 0 < confidence < 1.
    """
    _check(successes, trials, confidence)
    z_squared = norm.ppf((1 + confidence) / 2) ** 2
    variance = successes * (trials - successes) / trials if trials else 0.0
    centre = (successes + z_squared / 2) / (trials + z_squared)
    half = math.sqrt(z_squared * (variance + z_squared / 4)) / (trials + z_squared)
    # The ends of 0 of n and n of n are exactly 0 and 1; rounding must not carry them outside.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return Estimate(float(centre), float(low), float(high), int(trials))


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """Return the rate k / n with the exact binomial interval of Clopper and Pearson (1934); at least `confidence`.

    Without trials the value is NaN in [0, 1]. ValueError as for `wilson`, and for counts that are not whole.
    """
    _check(successes, trials, confidence)
    if successes != int(successes) or trials != int(trials):
        raise ValueError(f"exact intervals need whole counts, got {successes!r} of {trials!r}; use wilson")
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(beta.isf(tail, successes + 1, trials - successes))
    return Estimate(successes / trials if trials else math.nan, low, high, int(trials))


def excess(attack: Estimate, control: Estimate) -> Estimate:
    """Return (attack - control) / (1 - control), what the attack gains of what the control left; at most 1.

    `attack` and `control` are Wilson rates; their half-widths e are propagated to first order (Giomi et al., 2023):
    e^2 = (e_attack / (1 - control))^2 + (e_control (1 - attack) / (1 - control)^2)^2. Not clipped: may be negative.
    """
    left = 1 - control.value
    value = (attack.value - control.value) / left
    half = math.hypot(_half(attack) / left, _half(control) * (1 - attack.value) / left**2)
    return Estimate(value, value - half, value + half, attack.count)


def excess_risk(attack: Estimate, control: Estimate) -> Estimate:
    """Return `excess` with value and ends clipped to [0, 1]: an attack better on the control shows no risk."""
    gained = excess(attack, control)
    return Estimate(*(min(max(number, 0.0), 1.0) for number in gained[:3]), gained.count)


def _half(rate: Estimate) -> float:
    return (rate.high - rate.low) / 2


def _check(successes: float, trials: float, confidence: float) -> None:
    if not 0 <= successes <= trials or not math.isfinite(trials):
        raise ValueError(f"need 0 <= successes <= trials, both finite, got {successes!r} of {trials!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}")
