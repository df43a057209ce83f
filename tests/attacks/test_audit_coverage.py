"""One-run audits and many audits at once, over 500 simulated Gaussian mechanisms: never above epsilon too often."""

import math
from bisect import bisect_left
from functools import cache, partial

import numpy as np
import pytest

from feddiff.attacks.audit import (
    best_of,
    clopper_pearson_epsilon,
    gaussian_dp_mu,
    guess_counts,
    holm,
    one_run_epsilon,
    one_run_fdp_epsilon,
    p_value,
)
from feddiff.privacy.accounting import gaussian_epsilon
from feddiff.seeds import numpy_generator

TRIALS, DELTA, SIGNIFICANCE = 500, 1e-5, 0.05
# At most what a binomial of 5 % passes with probability 1e-3.
ALLOWED = TRIALS * SIGNIFICANCE + 3.1 * math.sqrt(TRIALS * SIGNIFICANCE * (1 - SIGNIFICANCE))


def simulated(mu, canaries, guesses, name):
    """Return the number of right guesses of TRIALS one-run audits of a Gaussian mechanism with sensitivity / sd mu."""
    generator = numpy_generator(21, name, str(mu))
    coins = generator.random((TRIALS, canaries)) < 0.5
    order = np.argsort(coins * mu + generator.standard_normal((TRIALS, canaries)), axis=1)
    sorted_coins = np.take_along_axis(coins, order, axis=1)
    half = guesses // 2
    return sorted_coins[:, -half:].sum(axis=1) + (~sorted_coins[:, :half]).sum(axis=1)


@pytest.mark.parametrize("mu", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("audit", [one_run_epsilon, one_run_fdp_epsilon])
def test_one_run_bounds_hold_over_simulated_mechanisms(audit, mu):
    truth = gaussian_epsilon(noise_over_sensitivity=1 / mu, delta=DELTA)
    bound = partial(audit, canaries=400, guesses=80, delta=DELTA, significance=SIGNIFICANCE)
    right = simulated(mu, 400, 80, "one run")
    # More right guesses prove more (a test of its own): one search instead of 500 bounds.
    too_many = bisect_left(range(81), True, key=lambda correct: bound(correct=correct) > truth)
    assert (right >= too_many).sum() <= ALLOWED
    # and not by proving nothing
    assert bound(correct=int(np.median(right))) > {0.5: 0.2, 1.0: 0.2, 2.0: 0.25}[mu] * truth * (
        audit is one_run_fdp_epsilon
    )


def test_the_trade_off_proves_more_than_epsilon_alone():
    for mu in (1.0, 2.0):
        right = int(np.median(simulated(mu, 400, 80, "one run")))
        counts = dict(canaries=400, guesses=80, correct=right, delta=DELTA)
        assert one_run_fdp_epsilon(**counts) > one_run_epsilon(**counts) > 0


@cache
def lower_mu(hit, alarm, trials, level):
    """Return the lower bound on mu (the epsilon of a Gaussian mechanism, in its own scale) of one game's counts."""
    return gaussian_dp_mu(true_positives=hit, positives=trials, false_positives=alarm, negatives=trials,
                          significance=level)


def test_picking_the_best_of_many_audits_needs_the_correction():
    """10 audits of randomised response: the best passes the truth in 40 % of the families, `best_of` in 5 %."""
    truth, generator = 1.5, numpy_generator(22, "audits")
    rights = generator.binomial(200, 1 / (1 + math.exp(-truth)), (TRIALS, 10))
    bound = cache(lambda correct, level: one_run_epsilon(
        canaries=200, guesses=200, correct=correct, delta=0.0, significance=level))
    families = [[partial(bound, right) for right in family] for family in rights.tolist()]
    naive = sum(max(one(SIGNIFICANCE) for one in family) > truth for family in families)
    corrected = sum(best_of(family, SIGNIFICANCE) > truth for family in families)
    assert corrected <= ALLOWED < naive / 2


def test_holm_by_hand_and_against_bonferroni():
    given = {"a": 0.012, "b": 0.001, "c": 0.04, "d": 0.03}
    assert holm(given) == {"a": True, "b": True, "c": False, "d": False}
    assert holm({"a": 0.02, "b": 0.04}) == {"a": True, "b": True}, "Bonferroni refutes only a"
    assert holm({"a": 0.03, "b": 0.001, "c": 0.03}) == {"a": False, "b": True, "c": False}


def test_holm_keeps_the_family_error_over_audits_that_share_their_noise():
    """Ten right mechanisms audited on the same run: a true claim is refuted in at most 5 % of the families."""
    generator, mu = numpy_generator(23, "family"), 1.0

    @cache
    def value(hit, alarm):
        return p_value(partial(lower_mu, hit, alarm, 60), mu)

    shared = generator.standard_normal((2, TRIALS, 1, 60))
    own = generator.standard_normal((2, TRIALS, 10, 60))
    noise = math.sqrt(0.5) * (shared + own)
    hits, alarms = (noise[0] + mu > mu / 2).sum(axis=2), (noise[1] > mu / 2).sum(axis=2)
    refuted = [
        any(holm({str(k): value(int(h), int(a)) for k, (h, a) in enumerate(zip(*both, strict=True))}).values())
        for both in zip(hits, alarms, strict=True)
    ]
    assert sum(refuted) <= ALLOWED


def test_p_values_turn_where_the_bound_does():
    game = dict(true_positives=90, positives=100, false_positives=10, negatives=100)

    def bound(level):
        return clopper_pearson_epsilon(**game, significance=level)

    for claimed in (0.5, 1.0, 1.5):
        found = p_value(bound, claimed)
        assert bound(found * 1.001) > claimed >= bound(found * 0.999)
    assert p_value(bound, 50.0) == 1.0 and p_value(bound, 0.0) == 1e-12
    assert p_value(bound, 1.5) > p_value(bound, 1.0)


def test_guess_counts_by_hand():
    scores, present = np.array([5.0, 4.0, 0.1, -3.0, -2.0, 0.0]), np.array([True, False, True, False, True, True])
    assert guess_counts(scores, present, 4) == {"canaries": 6, "guesses": 4, "correct": 2}
    assert guess_counts(scores, present, 2) == {"canaries": 6, "guesses": 2, "correct": 2}


@pytest.mark.parametrize(("call", "word"), [
    (lambda: guess_counts(np.zeros(4), np.zeros(4), 3), "even"),
    (lambda: guess_counts(np.zeros(4), np.zeros(4), 6), "canaries"),
    (lambda: guess_counts(np.zeros(4), np.zeros(3), 2), "one length"),
    (lambda: best_of([]), "bounds"),
    (lambda: best_of([lambda level: 0.0], 0.0), "significance"),
    (lambda: holm({}), "p_values"),
    (lambda: holm({"a": 1.5}), "p_values"),
    (lambda: p_value(lambda level: 0.0, -1.0), "claimed"),
])
def test_bad_input_is_named(call, word):
    with pytest.raises(ValueError, match=word):
        call()
