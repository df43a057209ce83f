"""Audits: statistical lower bounds on epsilon from the outcome of a membership game.

Threat model: an auditor plays the adversary of the definition of DP. It knows the mechanism and every record but the
canaries' coins, sees whatever the attack behind the scores sees, and says of each canary: in, out, or nothing.

Counts come from a decision rule that was fixed before these outcomes were seen (a threshold chosen on a separate split,
or a number of guesses registered in advance): the bounds correct for no search, `best_of` does. "Trials" are
independent trainings, or independent steps; many records of one training are not independent, and belong to the one-run
audits.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
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
            grown = max(wrong, float(ndtr(ndtri(right) - mu)))
            if grown == wrong:
                break
            right = min(1.0, right + (grown - wrong) * level / (guesses - level))
            wrong = grown
        return guesses / canaries - (right + wrong)

    return _largest_refuted(margin)


def guess_counts(scores: np.ndarray, present: np.ndarray, guesses: int) -> dict[str, int]:
    """Return the arguments of the one-run bounds: the `guesses` / 2 highest scores are called in, the lowest out.

    scores, present: (canaries,). `guesses` is even and fixed before the scores were seen. Ties are broken by place.
    """
    scores, present = np.asarray(scores, dtype=np.float64), np.asarray(present, dtype=bool)
    if scores.ndim != 1 or scores.shape != present.shape or not np.isfinite(scores).all():
        raise ValueError(f"scores and present must be finite and of one length, got {scores.shape}, {present.shape}")
    if count("guesses", guesses, low=2) % 2 or guesses > len(scores):
        raise ValueError(f"guesses must be even and at most the {len(scores)} canaries, got {guesses}")
    order = np.argsort(scores, kind="stable")
    right = present[order[-(guesses // 2) :]].sum() + (~present[order[: guesses // 2]]).sum()
    return {"canaries": len(scores), "guesses": guesses, "correct": int(right)}


def best_of(bounds: Sequence[Callable[[float], float]], significance: float = 0.05) -> float:
    """Return the best of several lower bounds on one epsilon, each a function of its significance (Bonferroni).

    Each is asked at significance / len(bounds), so that all hold at once with probability 1 - `significance` and the
    best may be picked: over thresholds or numbers of guesses (fixed before the scores were seen), attacks or canaries.
    """
    significance = real("significance", significance, high=1.0, open_low=True, open_high=True)
    if not bounds:
        raise ValueError("bounds is empty: give at least one")
    return max(bound(significance / len(bounds)) for bound in bounds)


def p_value(bound: Callable[[float], float], claimed: float) -> float:
    """Return the smallest significance at which a lower bound exceeds the `claimed` epsilon; 1 where none does.

    bound(significance) -> lower bound, rising in the significance. Below 1e-12 it is not resolved and 1e-12 returned.
    """
    claimed = real("claimed", claimed)
    low, high = math.log(1e-12), math.log(1 - 1e-9)
    if bound(math.exp(high)) <= claimed:
        return 1.0
    if bound(math.exp(low)) > claimed:
        return 1e-12
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if bound(math.exp(middle)) > claimed else (middle, high)
    return math.exp(high)


def holm(p_values: Mapping[str, float], significance: float = 0.05) -> dict[str, bool]:
    """Return which of several claims are refuted: none of those that hold, with probability 1 - `significance`.

    Holm 1979: the i-th smallest of m p-values (i = 0, 1, ...) against significance / (m - i), up to the first that is
    not below. Valid however the audits depend on each other, and never weaker than Bonferroni.
    """
    significance = real("significance", significance, high=1.0, open_low=True, open_high=True)
    if not p_values:
        raise ValueError("p_values is empty: give at least one")
    values = {name: real(f"p_values[{name!r}]", value, high=1.0) for name, value in p_values.items()}
    refuted, still = {}, True
    for rank, name in enumerate(sorted(values, key=values.__getitem__)):
        still = still and values[name] <= significance / (len(values) - rank)
        refuted[name] = still
    return {name: refuted[name] for name in p_values}


def _largest_refuted(margin) -> float:
    """Return the epsilon where `margin` (negative while a claim is refuted, rising) crosses 0; 0 if none is refuted."""
    low, high = 1e-6, 1.0
    if margin(low) >= 0:
        return 0.0
    while margin(high) < 0:
        low, high = high, 2 * high
    return float(brentq(margin, low, high, xtol=1e-9))
