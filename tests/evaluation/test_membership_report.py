"""Intervals of membership scores: coverage where the truth is known, ends, and what a sample cannot resolve."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from feddiff.evaluation import membership
from feddiff.seeds import numpy_generator


def _games(shift: float, m: int, n: int, games: int):
    generator = numpy_generator(0, "membership", f"{shift} {m} {n}")
    for _ in range(games):
        yield generator.normal(shift, 1, m), generator.normal(0, 1, n)


@pytest.mark.parametrize(("shift", "m", "n"), [(0.0, 40, 40), (1.0, 30, 80), (2.5, 50, 50)])
def test_auc_interval_covers_the_truth_as_often_as_it_says(shift, m, n):
    truth = norm.cdf(shift / math.sqrt(2))
    inside = [low <= truth <= high for _, low, high, _ in
              (membership.auc_interval(*game) for game in _games(shift, m, n, 400))]
    assert 0.92 <= np.mean(inside) <= 0.995  # 95 % less and plus the noise of 400 games; the method is a little wide


def test_auc_interval_has_a_width_at_the_ends():
    best = membership.auc_interval(np.arange(10, 20), np.arange(10))
    worst = membership.auc_interval(np.arange(10), np.arange(10, 20))
    assert best.value == 1 == best.high and 0.6 < best.low < 0.95
    assert worst.value == 0 == worst.low and worst.high == pytest.approx(1 - best.low, abs=1e-6)


def test_advantage_is_the_kolmogorov_smirnov_distance_in_one_direction():
    members, others = next(_games(1.0, 200, 300, 1))
    by_hand = max(np.mean(members >= t) - np.mean(others >= t) for t in np.concatenate([members, others]))
    found = membership.advantage(members, others)
    assert found.value == pytest.approx(by_hand)
    assert found.low < 2 * norm.cdf(0.5) - 1 < found.high
    assert membership.advantage(others - 9, members).value == 0


def test_advantage_band_of_no_leak_starts_at_zero():
    lows = [membership.advantage(*game).low for game in _games(0.0, 60, 60, 200)]
    assert np.mean(np.array(lows) > 0) <= 0.05


def test_advantage_without_a_leak_is_as_large_as_its_docstring_says():
    values = [membership.advantage(*game).value for game in _games(0.0, 400, 400, 300)]
    assert np.mean(values) == pytest.approx(math.sqrt(math.pi / 8) * math.sqrt(2 / 400), rel=0.08)


def test_report_says_what_it_cannot_resolve():
    members, others = next(_games(2.0, 500, 200, 1))
    table = membership.report(members, others).set_index("measure")
    assert list(table.index) == ["auc", "advantage", "tpr_at_0.1", "tpr_at_0.01", "tpr_at_0.001"]
    assert table.loc["tpr_at_0.001", ["value", "low", "high"]].isna().all()
    known = table.drop("tpr_at_0.001")
    assert (known["low"] <= known["value"]).all() and (known["value"] <= known["high"]).all()
    assert known.loc["tpr_at_0.01", "value"] == membership.tpr_at_fpr(members, others, 0.01)
    assert known["chance"].tolist() == [0.5, 0.0, 0.1, 0.01]


def test_report_of_permuted_labels_holds_chance():
    scores = numpy_generator(1, "permuted").normal(size=400)
    table = membership.report(scores[::2], scores[1::2], false_positive_rates=[0.1]).set_index("measure")
    assert (table["low"] <= table["chance"]).all() and (table["chance"] <= table["high"]).all()


@pytest.mark.parametrize("confidence", [0, 1, 1.5])
def test_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence must lie in"):
        membership.auc_interval(np.arange(3), np.arange(3), confidence)
    with pytest.raises(ValueError, match="confidence must lie in"):
        membership.advantage(np.arange(3), np.arange(3), confidence)
