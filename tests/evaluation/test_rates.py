"""Success rates: published intervals, coverage by simulation, and risks at the ends."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from feddiff.evaluation.rates import clopper_pearson, excess_risk, wilson
from feddiff.evaluation.statistics import Estimate
from feddiff.seeds import numpy_generator


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (1, 10), (5, 10), (10, 10), (37, 280), (280, 280)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_intervals_equal_an_independent_implementation(successes, trials, confidence):
    test = binomtest(successes, trials)
    for interval, method in ((wilson, "wilson"), (clopper_pearson, "exact")):
        expected = test.proportion_ci(confidence, method=method)
        found = interval(successes, trials, confidence)
        assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert clopper_pearson(successes, trials).value == successes / trials


def test_wilson_by_hand():
    # z = 1.959964: (4 + z^2 / 2) / (4 + z^2) for 4 of 4, and half of that shortfall for the ends.
    assert wilson(4, 4) == pytest.approx((0.755054, 0.510109, 1.0, 4), abs=1e-6)
    assert wilson(0, 0) == Estimate(0.5, 0.0, 1.0, 0)


def test_risk_by_hand():
    # Value (.8 - .5) / .5 and half-width sqrt((.05 / .5)^2 + (.1 * .2 / .25)^2).
    risk = excess_risk(Estimate(0.8, 0.75, 0.85, 100), Estimate(0.5, 0.4, 0.6, 100))
    half = np.hypot(0.1, 0.08)
    assert risk == pytest.approx((0.6, 0.6 - half, 0.6 + half, 100))
    assert excess_risk(wilson(10, 100), wilson(60, 100))[:2] == (0.0, 0.0)
    assert excess_risk(wilson(1000, 1000), wilson(0, 1000)).high == 1.0


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
def test_exact_interval_never_covers_less_than_it_says(rate):
    outcomes = np.arange(41)
    intervals = [clopper_pearson(int(count), 40) for count in outcomes]
    covered = [interval.low <= rate <= interval.high for interval in intervals]
    assert binom.pmf(outcomes, 40, rate)[covered].sum() >= 0.95


@pytest.mark.parametrize(("attack", "control"), [(0.3, 0.1), (0.5, 0.5), (0.9, 0.2), (0.15, 0.05), (0.95, 0.6)])
def test_risk_interval_covers_at_about_its_confidence(attack, control):
    generator = numpy_generator(0, "coverage", f"{attack} {control}")
    truth, trials, covered = (attack - control) / (1 - control), 300, 0
    wins = generator.binomial(trials, [attack, control], size=(2000, 2))
    for ours, theirs in wins:
        risk = excess_risk(wilson(ours, trials), wilson(theirs, trials))
        covered += risk.low <= truth <= risk.high
    # Two-sided: 2000 repetitions have a standard error of .005; clipping at 0 covers a risk of 0 more often.
    assert 0.93 <= covered / 2000 <= (0.99 if truth == 0 else 0.97)


@pytest.mark.parametrize(("arguments", "message"), [
    ((3, 2), "0 <= successes <= trials"),
    ((-1, 2), "0 <= successes <= trials"),
    ((float("nan"), 2), "0 <= successes <= trials"),
    ((1, 2, 95), "confidence must lie in"),
])
@pytest.mark.parametrize("interval", [wilson, clopper_pearson])
def test_impossible_counts_are_refused(interval, arguments, message):
    with pytest.raises(ValueError, match=message):
        interval(*arguments)


def test_exact_intervals_need_whole_counts():
    with pytest.raises(ValueError, match="whole counts"):
        clopper_pearson(1.5, 3)
