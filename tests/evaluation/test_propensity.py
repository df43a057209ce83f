"""Propensity: equal tables are exactly indistinguishable, different ones are not, and the faulty forms are faulty."""

import numpy as np
import pandas as pd
import pytest

from feddiff.evaluation import propensity as module
from feddiff.evaluation.propensity import STRONG, indistinguishable, propensity, reversed_form, unordered

KINDS = {"x": "numeric", "y": "numeric", "c": "categorical"}


def table(rows, seed, shift=0.0, rho=0.9):
    g = np.random.default_rng(seed)
    x = g.normal(size=rows)
    y = rho * x + np.sqrt(1 - rho**2) * g.normal(size=rows)
    frame = pd.DataFrame({"x": x + shift, "y": y, "c": np.where(y > 0.5, "up", "down")})
    frame.loc[g.random(rows) < 0.05, "x"] = np.nan
    return frame


def score(real, synthetic, **options):
    return indistinguishable(*propensity(real, synthetic, kinds=KINDS, **options))


@pytest.mark.parametrize("max_rows", [400, 150])
@pytest.mark.parametrize("strength", [module.CALM, STRONG])
def test_equal_tables_are_exactly_indistinguishable(max_rows, strength):
    real = table(400, 0)
    shuffled = real.sample(frac=1, random_state=1)
    chances = propensity(real, shuffled, kinds=KINDS, max_rows=max_rows, strength=strength)
    assert all(len(p) == max_rows for p in chances)
    np.testing.assert_allclose(np.concatenate(chances), 0.5, atol=1e-9)
    assert indistinguishable(*chances) == pytest.approx(1) and reversed_form(*chances) == pytest.approx(0.5)


def test_twins_in_different_folds_would_call_a_copy_separable(monkeypatch):
    # The mutant: folds at random. Each real row's twin is in training with the other label.
    real = table(400, 0)
    monkeypatch.setattr(module, "_folds", lambda first, second, g: [g.integers(0, 5, len(first)) for _ in range(2)])
    assert score(real, real, strength=STRONG) < 0.75


def test_fresh_rows_score_high_and_shifted_or_independent_ones_low():
    real = table(1000, 0)
    fresh, shifted = score(real, table(1000, 1)), score(real, table(1000, 2, shift=1.0))
    independent, apart = score(real, table(1000, 3, rho=0.0)), score(real, table(1000, 4, shift=9.0))
    assert fresh > 0.85 and shifted < 0.5 and independent < 0.7 and apart < 0.1


def test_the_reversed_form_rewards_bad_tables_and_in_sample_punishes_good_ones():
    real = table(600, 0)
    good, bad = (propensity(real, other, kinds=KINDS) for other in (table(600, 1), table(600, 2, shift=9.0)))
    assert reversed_form(*good) == pytest.approx(0.5, abs=0.05) and reversed_form(*bad) > 0.93
    assert unordered(*good) > 0.85 and unordered(*bad) < 0.02
    # Seen rows are told apart by memory; mean |p - .5| alone hides it, as a sure model is sure out of fold as well.
    fresh = table(600, 1)
    seen, unseen = (unordered(*propensity(real, fresh, kinds=KINDS, strength=STRONG, out_of_fold=out))
                    for out in (False, True))
    assert seen < 0.6 < 0.8 < unseen


def test_forms_by_hand():
    real, synthetic = np.array([0.2, 0.4]), np.array([0.9, 0.3])
    assert indistinguishable(real, synthetic) == pytest.approx(1 - 2 * (0.3 + 0.1 + 0.4 + 0.2) / 4)
    assert reversed_form(real, synthetic) == pytest.approx(1 - (0.2 + 0.4 + 0.1 + 0.7) / 4)
    assert unordered(real, synthetic) == pytest.approx(1 - abs(2 * 0.75 - 1))


def test_folds_couple_equal_rows_and_balance_the_labels():
    g = np.random.default_rng(5)
    real, synthetic = g.integers(0, 30, 200), g.integers(10, 40, 200)
    folds = module._folds(real, synthetic, g)
    for fold in range(module.FOLDS):
        assert (folds[0] == fold).sum() == (folds[1] == fold).sum() == 40
    for content in range(10, 30):
        shared = min((real == content).sum(), (synthetic == content).sum())
        counts = [np.bincount(folds[side][codes == content], minlength=5) for side, codes in
                  enumerate((real, synthetic))]
        assert np.minimum(*counts).sum() >= shared


def test_the_order_of_rows_changes_nothing_but_the_seed_does():
    real, synthetic = table(300, 6), table(250, 7, shift=0.3)
    one = score(real, synthetic, seed=3)
    assert one == score(real.iloc[::-1], synthetic.sample(frac=1, random_state=0), seed=3)
    assert one == score(real, synthetic, seed=3) != score(real, synthetic, seed=4)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="at least 10 rows"):
        propensity(table(5, 0), table(50, 0))
    with pytest.raises(ValueError, match="max_rows"):
        propensity(table(50, 0), table(50, 0), max_rows=3)
