"""The cost of hyper-parameter search: the reference table, limits, and the distribution of the number of runs."""

import math

import numpy as np
import pytest

from feddiff.privacy import accounting
from feddiff.privacy.tuning import draw_trials, success_rate, tuning_epsilon
from feddiff.seeds import numpy_generator

BASE = {"sample_rate": 0.01, "noise_multiplier": 1.0, "steps": 10000, "delta": 1e-5}


@pytest.mark.parametrize(
    ("trials", "mean", "expected"),
    [
        ("geometric", 2, 8.359),
        ("geometric", 10, 11.313),
        ("geometric", 50, 13.491),
        ("logarithmic", 1 / math.log(2), 7.543),
        ("logarithmic", 9 / math.log(10), 9.085),
        ("logarithmic", 49 / math.log(50), 10.290),
        ("poisson", 10, 13.67),
    ],
)
def test_reference_table(trials, mean, expected):
    assert tuning_epsilon(**BASE, trials=trials, mean_trials=mean) == pytest.approx(expected, abs=2e-3)


def test_one_run_costs_the_base_and_more_runs_cost_more():
    base = accounting.epsilon(**BASE, accountant="rdp")
    assert base == pytest.approx(6.713, abs=2e-3)
    spent = [tuning_epsilon(**BASE, mean_trials=mean) for mean in (1.001, 2, 5, 20, 100)]
    assert spent == sorted(spent) and spent[0] > base
    ten_released = accounting.epsilon(**{**BASE, "steps": 100_000}, accountant="rdp")
    assert ten_released == pytest.approx(27.24, abs=0.05)
    assert tuning_epsilon(**BASE, mean_trials=10) < ten_released


@pytest.mark.parametrize("trials", ["geometric", "logarithmic", "poisson"])
def test_drawn_trials_have_the_stated_mean(trials):
    generator = numpy_generator(3, "trials", trials)
    drawn = np.array([draw_trials(trials=trials, mean_trials=3.0, generator=generator) for _ in range(4000)])
    assert abs(drawn.mean() - 3.0) < 4 * drawn.std() / math.sqrt(len(drawn))
    assert drawn.min() == (0 if trials == "poisson" else 1)


def test_geometric_success_rate_is_one_over_the_mean():
    assert success_rate(trials="geometric", mean_trials=8.0) == pytest.approx(1 / 8, rel=1e-9)


def test_tuning_degenerate_and_bad_input():
    assert tuning_epsilon(**{**BASE, "steps": 0}, mean_trials=5) == 0.0
    assert tuning_epsilon(**{**BASE, "noise_multiplier": 0.0}, mean_trials=5) == math.inf
    with pytest.raises(ValueError, match="trials"):
        tuning_epsilon(**BASE, trials="grid", mean_trials=5)
    with pytest.raises(ValueError, match="mean_trials"):
        tuning_epsilon(**BASE, mean_trials=1.0)
