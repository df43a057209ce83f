"""How well scores tell members from non-members: area under the ROC curve, and power at a small false-positive rate.

A higher score means "more likely a member". Both functions look at ranks only, keep ties honest, and refuse scores
that are no numbers.
"""

import numpy as np
from scipy.stats import rankdata


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
