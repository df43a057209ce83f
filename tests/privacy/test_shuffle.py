"""Shuffled and fixed batches: the table of the literature's bound, the event by simulation, limits."""

import math

import numpy as np
import pytest

from feddiff.privacy import accounting
from feddiff.privacy.shuffle import fixed_batches_epsilon, shuffle_epsilon_lower_bound
from feddiff.seeds import numpy_generator

TABLE = [
    (100, 0.4, 12.225, 13.207, 13.207),
    (100, 0.5, 6.476, 9.997, 9.997),
    (100, 0.8, 1.511, 5.624, 5.680),
    (300, 0.8, 0.749, 5.522, 5.680),
    (1000, 0.5, 3.239, 9.997, 9.997),
    (1000, 0.6, 1.425, 7.988, 8.004),
    (1000, 0.8, 0.304, 5.235, 5.680),
    (1000, 1.0, 0.149, 2.882, 4.377),
    (10000, 0.8, 0.063, 3.836, 5.680),
    (10000, 1.0, 0.040, 1.134, 4.377),
    (12, 0.4, 19.061, 13.207, 13.207),
]


@pytest.mark.parametrize(("batches", "noise", "poisson", "shuffled", "fixed"), TABLE)
def test_table_of_bounds(batches, noise, poisson, shuffled, fixed):
    lower = shuffle_epsilon_lower_bound(noise_multiplier=noise, batches=batches, delta=1e-5)
    assert lower == pytest.approx(shuffled, abs=1e-3)
    exact = fixed_batches_epsilon(noise_multiplier=noise, epochs=1, delta=1e-5)
    assert exact == pytest.approx(fixed, abs=1e-3)
    assert lower <= exact + 1e-9
    assert poisson != pytest.approx(lower, rel=0.05)  # the Poisson number is not the shuffled one


@pytest.mark.parametrize(("batches", "noise", "poisson"), [(100, 0.8, 1.511), (1000, 0.8, 0.304), (12, 0.4, 19.061)])
def test_poisson_column(batches, noise, poisson, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDDIFF_CACHE", str(tmp_path))
    value = accounting.epsilon(sample_rate=1 / batches, noise_multiplier=noise, steps=batches, delta=1e-5)
    assert value == pytest.approx(poisson, abs=2e-3)


def test_one_batch_is_one_gaussian():
    lower = shuffle_epsilon_lower_bound(noise_multiplier=1.0, batches=1, delta=1e-5)
    exact = accounting.gaussian_epsilon(noise_over_sensitivity=1.0, delta=1e-5)
    assert lower <= exact and lower == pytest.approx(exact, rel=0.06)


def test_the_event_happens_as_often_as_claimed():
    # Simulate both worlds; the event at the best threshold must separate them by the bound.
    batches, noise, delta = 20, 0.8, 1e-2
    generator = numpy_generator(4, "shuffle")
    draws = 200_000
    sums = generator.normal(0, noise, (draws, batches))
    absent = np.maximum(sums[:, 0] + 1, sums[:, 1:].max(axis=1))
    sums = generator.normal(0, noise, (draws, batches))
    present = np.maximum(sums[:, 0] + 2, sums[:, 1:].max(axis=1))
    thresholds = np.linspace(1, 6, 101)
    hits = [((present > c).mean(), (absent > c).mean()) for c in thresholds]
    best = max(math.log((p - delta) / q) for p, q in hits if p > delta + 0.01 and q > 2e-4)
    bound = shuffle_epsilon_lower_bound(noise_multiplier=noise, batches=batches, delta=delta)
    assert bound == pytest.approx(best, abs=0.15)


def test_shuffle_degenerate_and_bad_input():
    assert shuffle_epsilon_lower_bound(noise_multiplier=0, batches=5, delta=1e-5) == math.inf
    assert shuffle_epsilon_lower_bound(noise_multiplier=1e6, batches=5, delta=1e-5) == 0.0
    assert fixed_batches_epsilon(noise_multiplier=1.0, epochs=0, delta=1e-5) == 0.0
    four = fixed_batches_epsilon(noise_multiplier=2.0, epochs=4, delta=1e-5)
    assert four == pytest.approx(accounting.gaussian_epsilon(noise_over_sensitivity=1.0, delta=1e-5), rel=1e-12)
    with pytest.raises(ValueError, match="batches"):
        shuffle_epsilon_lower_bound(noise_multiplier=1.0, batches=0, delta=1e-5)
