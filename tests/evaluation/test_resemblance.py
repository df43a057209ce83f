"""Resemblance: equal tables score 100, every part against its oracle, the readings that fail shown to fail."""

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from feddiff.evaluation.association import mixed_association
from feddiff.evaluation.resemblance import PARTS, resemblance, resemblance_score

KINDS = {"x": "numeric", "count": "integer", "colour": "categorical", "flag": "boolean", "constant": "numeric"}
FAULTY = ("faulty", "reversed")


def table(rows, seed, shift=0.0, share=0.6):
    g = np.random.default_rng(seed)
    x = g.normal(size=rows)
    frame = pd.DataFrame({
        "x": x + shift, "count": g.poisson(np.exp(0.8 * x)), "constant": 3.0,
        "colour": g.choice(["a", "b", "c"], rows, p=[share, 0.8 - share, 0.2]), "flag": x + g.normal(size=rows) > 0,
    })
    frame.loc[g.random(rows) < 0.1, "x"] = np.nan
    frame.loc[g.random(rows) < 0.1, "colour"] = None
    return frame


@pytest.fixture(scope="module")
def pair():
    return table(600, 0), table(450, 1, shift=0.5, share=0.3)


@pytest.fixture(scope="module")
def scores(pair):
    return resemblance(*pair, kinds=KINDS, readings="all")


def reading(scores, part, words=""):
    found = scores[(scores["part"] == part) & scores["reading"].str.contains(words, regex=False)]
    return found["score"].iloc[0] / 100


def test_equal_tables_score_100_in_every_sound_reading():
    real = table(300, 2)
    scores = resemblance(real, real.sample(frac=1, random_state=0), kinds=KINDS, readings="all")
    sound = scores[~scores["reading"].str.contains("|".join(FAULTY))]
    np.testing.assert_allclose(sound["score"], 100, atol=1e-6)
    assert scores.groupby("part")["default"].sum().to_dict() == dict.fromkeys(PARTS, 1)
    default = resemblance(real, real, kinds=KINDS)
    assert tuple(default["part"]) == PARTS and default["default"].all()
    assert default["score"].mean() == resemblance_score(default) == pytest.approx(100)


def test_literal_pearson_of_unpaired_rows_is_about_zero():
    g = np.random.default_rng(3)
    real = pd.DataFrame({"x": g.normal(size=2000), "y": g.normal(size=2000), "c": g.choice(list("ab"), 2000)})
    same_rows = resemblance(real, real, readings="all")
    other_order = resemblance(real, real.sample(frac=1, random_state=1), readings="all")
    assert reading(same_rows, "column similarity", "rows as they come") == pytest.approx(1)
    assert reading(other_order, "column similarity", "rows as they come") < 0.03
    assert reading(other_order, "column similarity") == pytest.approx(1)


def test_column_similarity_by_hand():
    real = pd.DataFrame({"x": [3.0, 1, 2, 4] * 5, "c": ["a"] * 18 + ["b"] * 2, "k": [1.0] * 20})
    other = pd.DataFrame({"x": [2.0, 4, 6, 9] * 5, "c": ["a"] * 12 + ["b"] * 8, "k": [2.0] * 20})
    scores = resemblance(real, other, readings="all")
    first, second = np.sort(real["x"]), np.sort(other["x"])
    cosine = (0.9 * 0.6 + 0.1 * 0.4) / np.sqrt((0.81 + 0.01) * (0.36 + 0.16))
    # Different constants are not alike: 0.
    expected = (np.corrcoef(first, second)[0, 1] + cosine + 0) / 3
    assert reading(scores, "column similarity") == pytest.approx(expected, abs=1e-12)
    # Sorted categories side by side: 12 a-a, 6 a-b, 2 b-b.
    entropy = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1))
    given = 0.4 * -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    expected = (np.corrcoef(first, second)[0, 1] + (entropy - given) / entropy) / 3
    assert reading(scores, "column similarity", "sorted columns, Theil's U") == pytest.approx(expected, abs=1e-12)


def test_correlation_similarity_compares_associations(pair, scores):
    real, synthetic = pair
    first, second = (mixed_association(frame, kinds=KINDS).to_numpy() for frame in (real, synthetic))
    off = ~np.eye(5, dtype=bool)
    part = "correlation similarity"
    assert reading(scores, part) == pytest.approx(np.corrcoef(first[off], second[off])[0, 1], abs=1e-9)
    assert reading(scores, part, "mean |difference|") == pytest.approx(1 - np.abs(first - second)[off].mean(), abs=1e-9)
    assert reading(scores, part, "whole matrix") > reading(scores, part)
    g = np.random.default_rng(4)
    shuffled = pd.DataFrame({name: g.permutation(real[name].to_numpy()) for name in real})
    lost = resemblance(real, shuffled, kinds=KINDS)
    assert reading(lost, part) < 0.5 and reading(lost, "Jensen-Shannon similarity") == pytest.approx(1)


def test_jensen_shannon_by_scipy(pair, scores):
    real, synthetic = pair
    part, numeric, discrete = "Jensen-Shannon similarity", ("x", "count", "constant"), ("colour", "flag")

    def categories():
        for name in discrete:
            levels = sorted(set(real[name].dropna()) | set(synthetic[name].dropna()))
            yield [[*((frame[name] == level).sum() for level in levels), frame[name].isna().sum()]
                   for frame in (real, synthetic)]

    def binned(edges_of):
        for name in numeric:
            edges = [np.array(edges) for edges in edges_of(real[name].dropna(), synthetic[name].dropna())]
            for cuts in edges:
                cuts[[0, -1]] = -np.inf, np.inf
            # Intervals open on the left, as in the module; the values are continuous or integers apart from the edges.
            yield [[*pd.cut(frame[name], cuts).value_counts(sort=False), frame[name].isna().sum()]
                   for frame, cuts in zip((real, synthetic), edges)]

    own = {"the real range": lambda r, s: [np.histogram_bin_edges(r, 10)] * 2,
           "the common range": lambda r, s: [np.histogram_bin_edges(np.concatenate([r, s]), 10)] * 2,
           "its own range": lambda r, s: [np.histogram_bin_edges(r, 10), np.histogram_bin_edges(s, 10)]}
    for words, edges_of in own.items():
        distances = np.array([jensenshannon(*counts, base=2) for counts in (*binned(edges_of), *categories())])
        if "own" in words:
            assert reading(scores, part, words) == pytest.approx(1 - distances.mean(), abs=1e-6)
            continue
        assert reading(scores, part, f"distance, bins on {words}") == pytest.approx(1 - distances.mean(), abs=1e-6)
        squared = (distances**2).mean()
        assert reading(scores, part, f"divergence, bins on {words}") == pytest.approx(1 - squared, abs=1e-6)


def test_bins_on_separate_ranges_miss_a_shift():
    g = np.random.default_rng(5)
    real = pd.DataFrame({name: g.normal(size=500) for name in "xyz"})
    scores = resemblance(real, real + 100, readings="all")
    part = "Jensen-Shannon similarity"
    assert reading(scores, part) < 0.5 and reading(scores, part, "faulty") == pytest.approx(1)
    assert reading(scores, "KS similarity") == 0 and reading(scores, "propensity") < 0.05


def test_ks_similarity_by_scipy(pair, scores):
    real, synthetic = pair
    gaps = {name: ks_2samp(real[name].dropna(), synthetic[name].dropna()).statistic for name in ("x", "count")}
    gaps["constant"] = 0.0
    part = "KS similarity"
    assert reading(scores, part, "numbers only") == pytest.approx(1 - np.mean(list(gaps.values())), abs=1e-9)
    codes = [frame["colour"].dropna().map({"a": 0, "b": 1, "c": 2}) for frame in pair]
    flags = [frame["flag"].astype(int) for frame in pair]
    every = [*gaps.values(), ks_2samp(*codes).statistic, ks_2samp(*flags).statistic]
    assert reading(scores, part) == pytest.approx(1 - np.mean(every), abs=1e-9)
    variation = [0.5 * (first.value_counts(normalize=True) - second.value_counts(normalize=True)).abs().sum()
                 for first, second in (codes, flags)]
    expected = 1 - np.mean([*gaps.values(), *variation])
    assert reading(scores, part, "total variation") == pytest.approx(expected, abs=1e-9)


def test_the_reversed_propensity_raises_the_score_of_bad_tables():
    real = table(500, 6)
    good, bad = (resemblance(real, other, kinds=KINDS, readings="all") for other in
                 (table(500, 7), table(500, 8, shift=30.0)))
    assert reading(good, "propensity") > 0.8 > 0.2 > reading(bad, "propensity")
    assert reading(good, "propensity", "reversed") < 0.6 < reading(bad, "propensity", "reversed")
    assert resemblance_score(good) > 90 and resemblance_score(good) > resemblance_score(bad) + 15


def test_scores_stay_in_range_types_align_and_inputs_stay(pair):
    real, synthetic = pair[0], pair[1][list(pair[1])[::-1]]
    before = real.copy(), synthetic.copy()
    scores = resemblance(real, synthetic, kinds=KINDS, readings="all")
    assert scores["score"].between(0, 100).all()
    pd.testing.assert_frame_equal(real, before[0])
    pd.testing.assert_frame_equal(synthetic, before[1])
    coded = {"c": "categorical", "d": "categorical", "e": "categorical"}
    numbers = pd.DataFrame(np.random.default_rng(9).integers(0, 3, (60, 3)), columns=list("cde"))
    only_codes = resemblance(numbers, numbers.astype(str), kinds=coded, readings="all")
    assert resemblance_score(only_codes) == pytest.approx(100)
    undefined = only_codes[only_codes["score"].isna()]
    assert list(undefined["reading"]) == ["numbers only"]


def test_bad_input_is_refused():
    frame = table(50, 10)
    with pytest.raises(ValueError, match="readings must be"):
        resemblance(frame, frame, kinds=KINDS, readings="some")
    with pytest.raises(ValueError, match="at least three columns"):
        resemblance(frame[["x", "flag"]], frame[["x", "flag"]])
    with pytest.raises(ValueError, match="same columns"):
        resemblance(frame, frame.drop(columns="x"))
