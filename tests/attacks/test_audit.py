"""Lower bounds on epsilon: published values, chance and perfect attacks, coverage by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from feddiff.attacks.audit import (
    clopper_pearson_epsilon,
    gaussian_dp_epsilon,
    gaussian_dp_mu,
    one_run_epsilon,
    one_run_fdp_epsilon,
    threshold_counts,
)
from feddiff.privacy.accounting import gaussian_epsilon
from feddiff.seeds import numpy_generator


def game(true_positives, positives, false_positives, negatives):
    return {
        "true_positives": true_positives,
        "positives": positives,
        "false_positives": false_positives,
        "negatives": negatives,
    }


@pytest.mark.parametrize(("trials", "ceiling"), [(100, 3.281), (1000, 5.601), (10000, 7.905)])
def test_ceiling_of_a_perfect_attack(trials, ceiling):
    assert clopper_pearson_epsilon(**game(trials, trials, 0, trials)) == pytest.approx(ceiling, abs=1e-3)
    # An attack that is always wrong proves nothing more than one that is always right, and is not oriented.
    assert clopper_pearson_epsilon(**game(0, trials, trials, trials)) == 0.0


def test_published_counts():
    assert clopper_pearson_epsilon(**game(300, 500, 5, 500), delta=1e-5) == pytest.approx(3.1766, abs=1e-4)
    assert gaussian_dp_mu(**game(500, 500, 0, 500)) == pytest.approx(4.880, abs=1e-3)


def test_chance_proves_nothing():
    assert clopper_pearson_epsilon(**game(250, 500, 250, 500)) == 0.0
    assert gaussian_dp_epsilon(**game(250, 500, 250, 500), delta=1e-5) == 0.0
    assert one_run_epsilon(canaries=1000, guesses=500, correct=250, delta=1e-5) == 0.0
    assert one_run_fdp_epsilon(canaries=1000, guesses=500, correct=250, delta=1e-5) == 0.0
    assert one_run_epsilon(canaries=10, guesses=0, correct=0, delta=1e-5) == 0.0


def test_delta_weakens_the_true_negative_side_too():
    # Nearly every non-member is recognised, hardly any member: the bound comes from TNR / FNR.
    flipped = game(500, 500, 300, 500)
    assert clopper_pearson_epsilon(**flipped) > 3
    assert clopper_pearson_epsilon(**flipped, delta=0.3) < clopper_pearson_epsilon(**flipped)


@pytest.mark.parametrize(
    ("canaries", "guesses", "correct", "delta", "expected"),
    [
        (1000, 1000, 1000, 0, 5.8091),
        (1000, 100, 100, 1e-5, 3.4654),
        (1000, 200, 150, 1e-5, 0.8200),
        (5000, 500, 500, 1e-5, 4.9778),
        (1000, 100, 60, 1e-5, 0.0495),
    ],
)
def test_one_run_values(canaries, guesses, correct, delta, expected):
    value = one_run_epsilon(canaries=canaries, guesses=guesses, correct=correct, delta=delta)
    assert value == pytest.approx(expected, abs=2e-4)


# Scores of 10,000 + 10,000 canaries at the normal's quantiles, shifted by 1, 2 or 4 (the case that jax_privacy tests):
# the best threshold's counts, its Bonferroni share over the thresholds of the ROC's convex hull, and the epsilon.
@pytest.mark.parametrize(
    ("guesses", "correct", "thresholds", "expected"),
    [(3376, 2807, 386, 1.13346), (4666, 4499, 374, 2.311945), (8233, 8223, 140, 4.395568)],
)
def test_one_run_matches_an_independent_implementation(guesses, correct, thresholds, expected):
    share = 0.05 / thresholds
    value = one_run_epsilon(canaries=20_000, guesses=guesses, correct=correct, delta=1e-6, significance=share)
    assert value == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize(
    ("guesses", "correct", "thresholds", "expected"), [(406, 379, 386, 2.164749), (938, 934, 374, 4.7218075)]
)
def test_one_run_fdp_matches_an_independent_implementation(guesses, correct, thresholds, expected):
    share = 0.05 / thresholds
    value = one_run_fdp_epsilon(canaries=20_000, guesses=guesses, correct=correct, delta=1e-6, significance=share)
    assert value == pytest.approx(expected, rel=2e-6)


def test_one_run_without_delta_is_the_binomial_tail():
    value = one_run_epsilon(canaries=400, guesses=300, correct=240, delta=0.0)
    assert binom.sf(239, 300, 1 / (1 + math.exp(-value))) == pytest.approx(0.05, rel=1e-6)


def test_more_right_guesses_prove_more():
    for audit in (one_run_epsilon, one_run_fdp_epsilon):
        values = [audit(canaries=1000, guesses=100, correct=v, delta=1e-5) for v in (55, 65, 75, 85, 95, 100)]
        assert values == sorted(values) and values[-1] > 3


@pytest.mark.parametrize("mu", [1.0, 2.0])
def test_bounds_cover_the_truth_of_the_gaussian_mechanism(mu):
    generator = numpy_generator(11, "coverage", str(mu))
    truth = gaussian_epsilon(noise_over_sensitivity=1 / mu, delta=1e-5)
    over = {"clopper-pearson": 0, "gaussian": 0}
    best = 0.0
    for _ in range(500):
        hits = int((generator.normal(mu, 1, 500) > mu / 2).sum())
        alarms = int((generator.normal(0, 1, 500) > mu / 2).sum())
        counted = clopper_pearson_epsilon(**game(hits, 500, alarms, 500), delta=1e-5)
        shaped = gaussian_dp_epsilon(**game(hits, 500, alarms, 500), delta=1e-5)
        over["clopper-pearson"] += counted > truth
        over["gaussian"] += shaped > truth
        best += shaped / 500
        assert counted <= shaped
    assert max(over.values()) <= 25  # at most 5 % of 500
    assert best > 0.7 * truth  # and not by proving nothing


def test_one_run_covers_randomised_response():
    generator = numpy_generator(12, "one run")
    truth = 1.5
    rate = 1 / (1 + math.exp(-truth))
    # Every canary answers its own coin by randomised response: exactly truth-DP, all guesses independent.
    proved = [
        one_run_epsilon(canaries=500, guesses=500, correct=int((generator.random(500) < rate).sum()), delta=0.0)
        for _ in range(500)
    ]
    over = np.mean(np.array(proved) > truth)
    assert 0.01 < over <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 500)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: clopper_pearson_epsilon(**game(6, 5, 0, 5)), "true_positives"),
        (lambda: clopper_pearson_epsilon(**game(0, 0, 0, 5)), "positives"),
        (lambda: clopper_pearson_epsilon(**game(1, 5, 0, 5), significance=0.0), "significance"),
        (lambda: gaussian_dp_epsilon(**game(1, 5, 0, 5), delta=0.0), "delta"),
        (lambda: one_run_epsilon(canaries=5, guesses=6, correct=3, delta=0.0), "guesses"),
        (lambda: one_run_fdp_epsilon(canaries=9, guesses=6, correct=7, delta=1e-5), "correct"),
    ],
)
def test_bad_counts_are_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


def test_threshold_counts_use_the_first_trials_for_the_threshold_only():
    scores = np.array([0.0, 1.0, 0.2, 0.9, 0.4, 0.6, 0.1, 0.7])
    present = np.array([False, True, False, True, True, False, False, True])
    # threshold (0.2 + 0.9) / 2 from the first four; of the others 0.6 is a false and 0.4 a missed member
    assert threshold_counts(scores, present) == game(1, 2, 1, 2)
    assert threshold_counts(scores, present, fit=2) == game(2, 3, 1, 3)


def test_threshold_counts_of_a_constant_score_call_nobody_a_member():
    assert threshold_counts(np.zeros(8), np.arange(8) % 2 == 0) == game(0, 2, 0, 2)


def test_threshold_counts_equal_a_search_by_hand():
    generator = numpy_generator(2, "threshold")
    for _ in range(20):
        present = generator.random(60) < 0.5
        scores = np.round(generator.standard_normal(60) + present, 1)
        values = np.unique(scores[:30])
        cuts = [*((values[1:] + values[:-1]) / 2), values[-1]]
        best = min(cuts, key=lambda cut: ((scores[:30] > cut) != present[:30]).sum())
        called = scores[30:] > best
        expected = game(
            (called & present[30:]).sum(), present[30:].sum(), (called & ~present[30:]).sum(), (~present[30:]).sum()
        )
        assert threshold_counts(scores, present) == expected


@pytest.mark.parametrize(("scores", "present", "fit", "word"), [
    ([1.0, 2.0], [True], 1, "one length"), ([1.0, math.nan], [True, False], 1, "finite"),
    ([1.0, 2.0], [True, False], 2, "fit"), ([1.0, 2.0], [True, False], 0, "fit"),
])
def test_threshold_counts_bad_input(scores, present, fit, word):
    with pytest.raises(ValueError, match=word):
        threshold_counts(np.array(scores), np.array(present), fit=fit)
