"""Audits: statistical lower bounds on epsilon from the outcome of a membership game.

Counts come from a decision rule that was fixed before these outcomes were seen (a threshold chosen on a separate split,
or a number of guesses registered in advance): the bounds correct for no search. "Trials" are independent trainings, or
independent steps; many records of one training are not independent, and belong to the one-run audits.
"""

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, binom, norm

from feddiff.privacy.accounting import gaussian_epsilon, gaussian_noise
from feddiff.privacy.arguments import count, delta_of, real


def _upper(successes: int, trials: int, significance: float) -> float:
    """Return the one-sided Clopper-Pearson upper limit of a proportion."""
    return 1.0 if successes == trials else float(beta.ppf(1 - significance, successes + 1, trials - successes))


def _error_limits(
    true_positives: int, positives: int, false_positives: int, negatives: int, significance: float
) -> tuple[float, float]:
    """Return upper limits of the false positive and the false negative rate, each at significance / 2."""
    positives, negatives = count("positives", positives, low=1), count("negatives", negatives, low=1)
    significance = real("significance", significance, high=1.0, open_low=True, open_high=True)
    for name, part, whole in (
        ("true_positives", true_positives, positives),
        ("false_positives", false_positives, negatives),
    ):
        if count(name, part) > whole:
            raise ValueError(f"{name} must be at most the number of trials {whole}, got {part}")
    false_positive = _upper(false_positives, negatives, significance / 2)
    false_negative = _upper(positives - true_positives, positives, significance / 2)
    return false_positive, false_negative


def threshold_counts(scores: np.ndarray, present: np.ndarray, *, fit: int | None = None) -> dict[str, int]:
    """Return the counts of a game for the bounds below: "member" where the score exceeds a threshold.

    scores, present: (trials,), the record was there or not. The first `fit` trials (default: half) choose the threshold
    with the fewest errors among the midpoints of their scores; only the other trials are counted.
    """
    scores, present = np.asarray(scores, dtype=np.float64), np.asarray(present, dtype=bool)
    if scores.ndim != 1 or scores.shape != present.shape or not np.isfinite(scores).all():
        raise ValueError(f"scores and present must be finite and of one length, got {scores.shape}, {present.shape}")
    fit = len(scores) // 2 if fit is None else count("fit", fit, low=1)
    if not 0 < fit < len(scores):
        raise ValueError(f"fit must leave trials to count: 0 < fit < {len(scores)}, got {fit}")
    values, inverse = np.unique(scores[:fit], return_inverse=True)
    inside = np.bincount(inverse, weights=present[:fit], minlength=len(values))
    outside = np.bincount(inverse, weights=~present[:fit], minlength=len(values))
    # errors[i]: the threshold lies between values[i] and values[i + 1]; the last one calls nobody a member
    errors = np.cumsum(inside) + outside.sum() - np.cumsum(outside)
    best = int(errors.argmin())
    threshold = values[-1] if best == len(values) - 1 else (values[best] + values[best + 1]) / 2
    called, truth = scores[fit:] > threshold, present[fit:]
    return {
        "true_positives": int((called & truth).sum()),
        "positives": int(truth.sum()),
        "false_positives": int((called & ~truth).sum()),
        "negatives": int((~truth).sum()),
    }


def clopper_pearson_epsilon(
    *,
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    delta: float = 0.0,
    significance: float = 0.05,
) -> float:
    """Return a lower bound (>= 0) on epsilon at `delta` that holds with probability 1 - `significance`.

    `true_positives` of `positives` trials with the record, and `false_positives` of `negatives` without it, were called
    members. Jagielski, Ullman, Oprea 2020: max of ln((TPR - delta) / FPR) and ln((TNR - delta) / FNR) at the limits.
    """
    delta = real("delta", delta, high=1.0)
    false_positive, false_negative = _error_limits(
        true_positives, positives, false_positives, negatives, significance
    )
    candidates = [0.0]
    for detected, error in ((1 - false_negative, false_positive), (1 - false_positive, false_negative)):
        if detected > delta:
            candidates.append(math.log((detected - delta) / error))
    return max(candidates)


def gaussian_dp_mu(
    *, true_positives: int, positives: int, false_positives: int, negatives: int, significance: float = 0.05
) -> float:
    """Return a lower bound (>= 0) on mu = sensitivity / noise of a Gaussian trade-off (Nasr et al. 2023)."""
    false_positive, false_negative = _error_limits(
        true_positives, positives, false_positives, negatives, significance
    )
    if 1.0 in (false_positive, false_negative):
        return 0.0
    return max(0.0, float(norm.isf(false_positive) - norm.ppf(false_negative)))


def gaussian_dp_epsilon(
    *,
    true_positives: int,
    positives: int,
    false_positives: int,
    negatives: int,
    delta: float,
    significance: float = 0.05,
) -> float:
    """Return the exact epsilon at `delta` of the mu that the game proves; far tighter than counting at small delta.

    Valid where the trade-off is Gaussian (full batch, known canary); for Poisson sampling it is "under the GDP
    approximation". Nasr et al. 2023, "Tight Auditing of Differentially Private Machine Learning".
    """
    delta = delta_of(delta)
    mu = gaussian_dp_mu(
        true_positives=true_positives,
        positives=positives,
        false_positives=false_positives,
        negatives=negatives,
        significance=significance,
    )
    return gaussian_epsilon(noise_over_sensitivity=1 / mu, delta=delta) if mu > 0 else 0.0


def _check_one_run(canaries: int, guesses: int, correct: int, significance: float) -> None:
    count("canaries", canaries, low=1)
    if not count("correct", correct) <= count("guesses", guesses) <= canaries:
        raise ValueError(f"expected correct <= guesses <= canaries, got {correct}, {guesses}, {canaries}")
    real("significance", significance, high=1.0, open_low=True, open_high=True)


def one_run_epsilon(
    *, canaries: int, guesses: int, correct: int, delta: float, significance: float = 0.05
) -> float:
    """Return a lower bound (>= 0) on epsilon at `delta` from one training run (Steinke, Nasr, Jagielski 2023, Thm 5.2).

    Each of `canaries` records was included by its own fair coin; `guesses` of them were guessed (the others abstained),
    `correct` rightly. The number of guesses must not depend on how right they were.
    """
    _check_one_run(canaries, guesses, correct, significance)
    delta = real("delta", delta, high=1.0)

    def p_value(epsilon: float) -> float:
        rate = 1 / (1 + math.exp(-epsilon))
        slack = 0.0
        if delta > 0 and correct > 0:
            back = np.arange(1, correct + 1)
            below = binom.cdf(correct - 1, guesses, rate) - binom.cdf(correct - back - 1, guesses, rate)
            slack = 2 * canaries * delta * float(np.max(below / back))
        return float(binom.sf(correct - 1, guesses, rate)) + slack

    return _largest_refuted(lambda epsilon: p_value(epsilon) - significance)


def one_run_fdp_epsilon(
    *, canaries: int, guesses: int, correct: int, delta: float, significance: float = 0.05
) -> float:
    """Return a lower bound (>= 0) on epsilon at `delta` from one run, for a Gaussian trade-off (GDP).

    Mahloujifar, Melis, Chaudhuri 2024, "Auditing f-Differential Privacy in One Run", the recursion on (r, h): h bounds
    the mass of outcomes with few correct guesses through the trade-off function, r that of the others. Arguments as in
    `one_run_epsilon`.
    """
    _check_one_run(canaries, guesses, correct, significance)
    delta = delta_of(delta)
    if guesses == 0:
        return 0.0

    def margin(epsilon: float) -> float:
        mu = 1 / gaussian_noise(target_epsilon=epsilon, delta=delta)
        right, wrong = significance * correct / canaries, significance * (guesses - correct) / canaries
        for level in range(correct - 1, -1, -1):
            grown = max(wrong, float(norm.cdf(norm.ppf(right) - mu)))
            if grown == wrong:
                break
            right = min(1.0, right + (grown - wrong) * level / (guesses - level))
            wrong = grown
        return guesses / canaries - (right + wrong)

    return _largest_refuted(margin)


def _largest_refuted(margin) -> float:
    """Return the epsilon where `margin` (negative while a claim is refuted, rising) crosses 0; 0 if none is refuted."""
    low, high = 1e-6, 1.0
    if margin(low) >= 0:
        return 0.0
    while margin(high) < 0:
        low, high = high, 2 * high
    return float(brentq(margin, low, high, xtol=1e-9))
