"""Tight audit of the private step with gradient-space canaries (Nasr et al., 2023), and the planted faults it catches.

privacy.md 3.3. The mutant that samples without replacement is caught by the statistics of test_sampling.py.
"""

import numpy as np
import pytest

from feddiff.attacks.audit import clopper_pearson_epsilon, gaussian_dp_mu, one_run_epsilon, threshold_counts
from feddiff.attacks.canaries import observe_run, observe_steps
from feddiff.attacks.step_mutants import CORRECT, MUTANTS
from feddiff.privacy.accounting import epsilon
from feddiff.seeds import numpy_generator

SIGMAS = [0.5, 1.0, 2.0]


def gaussian_lower_bound(seen, coins):
    """Return mu_lo of the Gaussian trade-off: the threshold from the first half, the rates from the second."""
    return gaussian_dp_mu(**threshold_counts(seen, coins))


def test_the_bound_itself_holds_on_a_plain_gaussian_and_has_the_reference_ceiling():
    """privacy.md 3.3: 500 + 500 perfect guesses give 4.88; a right mechanism lies between half its mu and its mu."""
    generator = numpy_generator(1, "audit")
    coins = generator.random(2000) < 0.5
    noise = generator.standard_normal(2000)
    for mu, low in ((2.0, 1.0), (1.0, 0.5), (0.5, 0.0)):
        assert low < gaussian_lower_bound(coins * mu + noise, coins) < mu
    assert gaussian_lower_bound(coins * 100.0 + noise, coins) == pytest.approx(4.88, abs=0.03)
    assert gaussian_lower_bound(noise, coins) < 0.05


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", CORRECT)
def test_the_step_leaks_no_more_than_it_claims(name, sigma):
    found, truth = gaussian_lower_bound(*observe_steps(CORRECT[name], sigma=sigma, seed=11)), 1 / sigma
    assert found <= truth
    if sigma <= 1 and name != "correct, per-layer":  # a canary in one of two layers is clipped to C / sqrt(2) there
        assert found > truth / 2, "the audit has lost its power"


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", MUTANTS)
def test_every_planted_bug_is_caught(name, sigma):
    assert gaussian_lower_bound(*observe_steps(MUTANTS[name], sigma=sigma, seed=11)) > 1 / sigma


def test_scores_of_a_correct_step_are_the_claimed_gaussians():
    seen, coins = observe_steps(CORRECT["correct"], sigma=2.0, seed=3, canaries=100, steps=100)
    for present, mean in ((True, 1.0), (False, 0.0)):
        part = seen[coins == present]
        assert abs(part.mean() - mean) < 4 * 2.0 / np.sqrt(len(part))
        assert part.std() == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("sigma", [0.6, 1.0])
def test_a_whole_run_with_poisson_batches_stays_below_the_accountant(sigma):
    plan = {"sample_rate": 0.1, "steps": 40}
    scores, coins = observe_run(CORRECT["correct"], sigma=sigma, seed=5, **plan)
    truth = epsilon(noise_multiplier=sigma, delta=1e-5, **plan)
    counted = clopper_pearson_epsilon(**threshold_counts(scores, coins), delta=1e-5)
    order = np.argsort(scores)
    correct = int((~coins[order[:100]]).sum() + coins[order[-100:]].sum())
    one_run = one_run_epsilon(canaries=len(coins), guesses=200, correct=correct, delta=1e-5)
    assert 0 < counted <= truth and 0.5 < one_run <= truth
    scores, coins = observe_run(MUTANTS["noise divided twice"], sigma=sigma, seed=5, **plan)
    assert clopper_pearson_epsilon(**threshold_counts(scores, coins), delta=1e-5) > counted + 1


@pytest.mark.parametrize("name", ["sigma", "steps", "canaries", "sample_rate"])
def test_bad_input_is_named(name):
    given = {"sigma": 1.0, "sample_rate": 0.1, "steps": 2, "canaries": 3, "seed": 0, name: 0}
    with pytest.raises(ValueError, match=name):
        observe_run(CORRECT["correct"], **given)
