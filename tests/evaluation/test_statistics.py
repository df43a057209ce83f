"""Intervals: hand-computed values, coverage from both sides, and refusals."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from feddiff.evaluation import statistics


def test_mean_interval_is_student():
    estimate = statistics.mean_interval([1.0, 2.0, 3.0])
    # t_{.975, 2} = 4.302653, standard error 1 / sqrt 3
    assert estimate == pytest.approx((2.0, 2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5, 3), abs=1e-6)
    low, high = stats.ttest_1samp([1.0, 2.0, 3.0], 0).confidence_interval(0.9)
    assert statistics.mean_interval([1, 2, 3], 0.9)[1:3] == pytest.approx((low, high))
    assert str(estimate) == "2.000 [-0.484, 4.484] (n=3)"


def test_one_value_has_no_interval():
    estimate = statistics.mean_interval([0.7])
    assert estimate.value == 0.7 and np.isnan(estimate.low) and np.isnan(estimate.high) and estimate.count == 1
    assert str(estimate) == "0.700 (n=1)"
    assert np.isnan(statistics.relative_change([2.0], [1.0]).low)


def test_paired_difference_removes_what_seeds_share():
    g = np.random.default_rng(0)
    shared = g.normal(size=8) * 10
    first, second = shared + 1 + 0.01 * g.normal(size=8), shared
    estimate = statistics.paired_difference(first, second, 0.999)
    assert estimate.low < 1 < estimate.high and estimate.high - estimate.low < 0.05
    low, high = stats.ttest_rel(first, second).confidence_interval(0.999)
    assert estimate[1:3] == pytest.approx((low, high))
    with pytest.raises(ValueError, match="same seeds on both sides, got 2 and 3"):
        statistics.paired_difference([1, 2], [1, 2, 3])


def coverage(interval, truth, repeats=600):
    hits = [truth_in(interval(np.random.default_rng(seed)), truth) for seed in range(repeats)]
    return np.mean(hits)


def truth_in(estimate, truth):
    return estimate.low <= truth <= estimate.high


@pytest.mark.parametrize("paired", [True, False])
def test_relative_change_covers_the_true_ratio(paired):
    def interval(g):
        shared = g.normal(size=6) if paired else 0.0
        value = 8 + shared + 0.5 * g.normal(size=6)
        baseline = 10 + shared + g.normal(size=6)
        return statistics.relative_change(value, baseline, 0.9, paired=paired)

    assert abs(coverage(interval, -0.2) - 0.9) < 4 * np.sqrt(0.09 / 600)


def test_relative_change_by_hand_and_where_it_has_no_bounds():
    exact = statistics.relative_change([3.0, 3.0, 3.0], [4.0, 4.0, 4.0])
    assert exact == pytest.approx((-0.25, -0.25, -0.25, 3))
    # A constant baseline divides the t interval.
    scaled = statistics.relative_change([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    mean = statistics.mean_interval([1.0, 2.0, 3.0])
    assert scaled[:3] == pytest.approx((0.0, mean.low / 2 - 1, mean.high / 2 - 1))
    loose = statistics.relative_change([1.0, 2.0, 3.0], [-1.0, 0.5, 1.0])
    assert np.isnan(loose.low) and np.isnan(loose.high)
    with pytest.raises(ValueError, match="baseline has mean 0"):
        statistics.relative_change([1.0, 2.0], [-1.0, 1.0])


def test_bootstrap_covers_and_repeats():
    def interval(g):
        return statistics.bootstrap_interval(g.exponential(size=60), generator=g, confidence=0.9, resamples=300)

    assert 0.82 < coverage(interval, 1.0, 300) < 0.95
    values = np.random.default_rng(3).normal(size=40)
    one, two = (
        statistics.bootstrap_interval(values, generator=np.random.default_rng(7), statistic=np.median) for _ in "ab")
    assert one == two and one.value == np.median(values) and one.low < one.value < one.high


def test_summarise_long_records():
    records = pd.DataFrame({
        "epsilon": [1.0, 1.0, 1.0, np.inf, np.inf], "metric": "pairs", "seed": [0, 1, 2, 0, 1],
        "value": [0.90, 0.91, 0.92, 0.95, 0.96],
    })
    table = statistics.summarise(records, by=["epsilon", "metric"])
    assert table["mean"].tolist() == pytest.approx([0.91, 0.955]) and table["count"].tolist() == [3, 2]
    assert (table["low"] < table["mean"]).all() and (table["mean"] < table["high"]).all()
    pd.testing.assert_frame_equal(
        table, statistics.summarise(records.sample(frac=1, random_state=0), by=["epsilon", "metric"]))
    with pytest.raises(ValueError, match="seed 0 occurs twice"):
        statistics.summarise(pd.concat([records, records.iloc[:1]]), by=["epsilon", "metric"])
    with pytest.raises(ValueError, match=r"lack the columns \['arm'\]"):
        statistics.summarise(records, by=["arm"])


def test_bad_values_are_refused():
    for bad in ([], [[1.0, 2.0]], [1.0, np.nan], [np.inf]):
        with pytest.raises(ValueError, match="values"):
            statistics.mean_interval(bad)
    with pytest.raises(ValueError, match="confidence"):
        statistics.mean_interval([1.0, 2.0], 95)
    with pytest.raises(ValueError, match="resamples"):
        statistics.bootstrap_interval([1.0, 2.0], generator=np.random.default_rng(0), resamples=5)
