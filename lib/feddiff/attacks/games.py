"""What an anonymity game returns: counts first, and the risk they amount to.

Every game is played three times with the same rules: against the rows the release was made from, against control rows
it never saw, and blindly. What succeeds against the control too is knowledge about the population; what succeeds
blindly is no attack at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from feddiff.evaluation.rates import excess, excess_risk, wilson
from feddiff.evaluation.statistics import Estimate


@dataclass(frozen=True)
class Counts:
    """Attacks made and won; each pair (attacks, successes) has its own denominator.

    The control's counts may be expectations (not whole) where it has another size than the original.
    """

    attacks: int
    successes: int
    control_attacks: float
    control_successes: float
    baseline_attacks: int
    baseline_successes: int


@dataclass(frozen=True)
class Result:
    """The outcome of one game.

    risk, low, high: (attack_rate - control_rate) / (1 - control_rate) with its interval, in [0, 1], 0 is best.
    attack_rate, control_rate, baseline_rate: Wilson-smoothed success rates in [0, 1]. attacks: attacks really made.
    too_weak: the attack does no better than a blind guess; a low risk then says nothing about privacy.
    """

    game: str
    risk: float
    low: float
    high: float
    attack_rate: float
    control_rate: float
    baseline_rate: float
    attacks: int
    too_weak: bool
    counts: Counts


def judge(game: str, counts: Counts, confidence: float = 0.95) -> Result:
    """Return the risk that `counts` show, with an interval of the given two-sided `confidence`."""
    attack, control = _rates(counts, confidence)
    baseline = wilson(counts.baseline_successes, counts.baseline_attacks, confidence)
    risk = excess_risk(attack, control)
    # Raw shares: smoothing pulls the smaller sample towards 1/2 and would let an attack never made beat a blind one.
    weak = not counts.attacks or (
        counts.successes * counts.baseline_attacks <= counts.baseline_successes * counts.attacks
    )
    return Result(
        game=game, risk=risk.value, low=risk.low, high=risk.high, attack_rate=attack.value,
        control_rate=control.value, baseline_rate=baseline.value, attacks=counts.attacks, too_weak=bool(weak),
        counts=counts,
    )


def mean_of(results: Sequence[Result], confidence: float = 0.95) -> dict[str, object]:
    """Return the mean of risks, rates and upper ends, the sum of attacks, and whether any attack was too weak.

    The lower end averages the ends before they were clipped at 0: games without risk do not add up to one. Averaged
    ends hold however the games depend on each other.
    """
    names = [field.name for field in fields(Result) if field.type is float]
    mean = {name: float(np.mean([getattr(result, name) for result in results])) for name in names}
    lows = [excess(*_rates(result.counts, confidence)).low for result in results]
    return mean | {
        "game": "mean",
        "low": max(0.0, float(np.mean(lows))),
        "attacks": sum(result.attacks for result in results),
        "too_weak": any(result.too_weak for result in results),
    }


def _rates(counts: Counts, confidence: float) -> tuple[Estimate, Estimate]:
    attack = wilson(counts.successes, counts.attacks, confidence)
    return attack, wilson(counts.control_successes, counts.control_attacks, confidence)
