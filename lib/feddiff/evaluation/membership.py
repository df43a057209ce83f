"""How well scores tell members from non-members: area under the ROC curve, power at a small false-positive rate.

A higher score means "more likely a member". All functions look at ranks only, keep ties honest, and refuse scores
that are no numbers. Intervals are over the records of one game (the target model is given); what another training of
the target would have given is a matter of seeds, and of `evaluation.statistics`.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from feddiff.evaluation.rates import clopper_pearson
from feddiff.evaluation.statistics import Estimate

FALSE_POSITIVE_RATES = (0.1, 0.01, 0.001)


def auc(member_scores: np.ndarray, nonmember_scores: np.ndarray) -> float:
    """Return the probability that a member scores above a non-member, ties counting half; [0, 1], .5 is chance.

    `member_scores` (m,) and `nonmember_scores` (n,); the Mann-Whitney U statistic divided by m n.
    """
    members, others = _checked(member_scores, nonmember_scores)
    ranks = rankdata(np.concatenate([members, others]))
    wins = ranks[: len(members)].sum() - len(members) * (len(members) + 1) / 2
    return float(wins / (len(members) * len(others)))


def tpr_at_fpr(member_scores: np.ndarray, nonmember_scores: np.ndarray, fpr: float) -> float:
    """Return the largest share of members above a threshold that at most a share `fpr` of non-members passes; [0, 1].

    Conservative: the threshold is an observed score that must be exceeded, so ties with it count as "not a member" on
    both sides and nothing is interpolated between points of the curve. Chance is about `fpr`.
    Raises ValueError where `fpr` is not in (0, 1], or below 1 / len(nonmember_scores): the sample cannot resolve it.
    """
    members, others = _checked(member_scores, nonmember_scores)
    if not 0 < fpr <= 1:
        raise ValueError(f"fpr must lie in (0, 1], got {fpr!r}")
    # The slack keeps 0.07 * 100 = 7.000000000000001 and 0.29 * 100 = 28.999999999999996 whole.
    allowed = int(np.floor(fpr * len(others) + 1e-9))
    if allowed < 1:
        raise ValueError(
            f"fpr = {fpr:g} is below 1 / {len(others)} non-members: no threshold has it; "
            f"use at least {int(np.ceil(1 / fpr))} non-members or a larger fpr"
        )
    if allowed == len(others):
        return 1.0
    threshold = np.partition(others, len(others) - allowed - 1)[len(others) - allowed - 1]
    return float(np.mean(members > threshold))


def auc_interval(member_scores: np.ndarray, nonmember_scores: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Return `auc` with Newcombe's interval for it (2006, method 5), which stays inside [0, 1] and is wide at its ends.

    The ends solve |auc - theta| = z sqrt(V(theta)) with the variance V of Hanley and McNeil (1982), whose sample sizes
    are replaced by their mean; unlike a Wald interval it has a width where every member outscores every non-member.
    """
    value = auc(member_scores, nonmember_scores)
    m, n = len(member_scores), len(nonmember_scores)
    z, between = norm.ppf((1 + _share(confidence, "confidence")) / 2), (m + n) / 2 - 1

    def gap(theta: float) -> float:
        spread = 1 + between * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (value - theta) ** 2 - z**2 * theta * (1 - theta) * spread / (m * n)

    low = 0.0 if value == 0 else brentq(gap, 0.0, value) if value < 1 else brentq(gap, 0.0, 1 - 1e-12)
    high = 1.0 if value == 1 else brentq(gap, value, 1.0) if value > 0 else brentq(gap, 1e-12, 1.0)
    return Estimate(value, float(low), float(high), m + n)


def advantage(member_scores: np.ndarray, nonmember_scores: np.ndarray, confidence: float = 0.95) -> Estimate:
    """Return the largest TPR - FPR over all thresholds (Yeom et al., 2018), in [0, 1], with a band by Massart (1990).

    The best threshold is chosen on these scores: without any leak the value is still above 0, on average about
    0.63 sqrt(1/m + 1/n) (the mean maximum of a Brownian bridge, sqrt(pi / 8)). The band covers both empirical
    distribution functions at once, whatever the threshold; its low end is 0 unless the scores really differ.
    """
    members, others = _checked(member_scores, nonmember_scores)
    thresholds = np.unique(np.concatenate([members, others]))
    passed = [len(s) - np.searchsorted(np.sort(s), thresholds, side="left") for s in (members, others)]
    value = max(0.0, float(np.max(passed[0] / len(members) - passed[1] / len(others))))
    tail = (1 - _share(confidence, "confidence")) / 2  # each of the two functions gets half
    half = sum(math.sqrt(math.log(2 / tail) / (2 * len(s))) for s in (members, others))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half), len(members) + len(others))


def report(
    member_scores: np.ndarray,
    nonmember_scores: np.ndarray,
    *,
    false_positive_rates: Sequence[float] = FALSE_POSITIVE_RATES,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return measure, value, low, high, chance: `auc`, `advantage` and `tpr_at_<rate>` for every rate.

    The interval of a true positive rate is Clopper's and Pearson's over the members, the threshold taken as given.
    A rate below 1 / len(nonmember_scores) cannot be resolved: its row holds NaN instead of a number.
    """
    members, others = _checked(member_scores, nonmember_scores)
    found = {
        "auc": (auc_interval(members, others, confidence), 0.5),
        "advantage": (advantage(members, others, confidence), 0.0),
    }
    unresolved = Estimate(math.nan, math.nan, math.nan, len(members))
    for rate in false_positive_rates:
        resolved = rate * len(others) + 1e-9 >= 1
        share = tpr_at_fpr(members, others, rate) if resolved else math.nan
        count = round(share * len(members)) if resolved else 0
        found[f"tpr_at_{rate:g}"] = (
            clopper_pearson(count, len(members), confidence) if resolved else unresolved, float(rate)
        )
    rows = [(name, *estimate[:3], chance) for name, (estimate, chance) in found.items()]
    return pd.DataFrame(rows, columns=["measure", "value", "low", "high", "chance"])


def _share(value: float, name: str) -> float:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie in (0, 1), got {value!r}")
    return value


def _checked(member_scores: np.ndarray, nonmember_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    checked = []
    for scores, name in ((member_scores, "member_scores"), (nonmember_scores, "nonmember_scores")):
        scores = np.asarray(scores, dtype=float)
        if scores.ndim != 1 or len(scores) == 0:
            raise ValueError(f"{name} must be a non-empty vector of scores, got shape {scores.shape}")
        if np.isnan(scores).any():
            raise ValueError(f"{name} holds {int(np.isnan(scores).sum())} scores that are not numbers (NaN)")
        checked.append(scores)
    return checked[0], checked[1]
