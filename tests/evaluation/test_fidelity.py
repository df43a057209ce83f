"""Fidelity: SDMetrics as oracle, hand-computed frames, invariances, and types that must not be compared as they are."""

import warnings

import numpy as np
import pandas as pd
import pytest

from feddiff.evaluation import fidelity

METRICS = (fidelity.column_shapes, fidelity.pair_trends, fidelity.pair_trends_quantile)


def mixed(rows: int, seed: int, shift: float = 0.0) -> pd.DataFrame:
    g = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "normal": g.normal(shift, 1, rows),
        "count": g.integers(0, 50, rows),
        "heavy": np.exp(2 * g.normal(size=rows)).round(2),
        "letter": g.choice(["x", "y", "z"], rows, p=[0.5, 0.3, 0.2]),
        "vendor": g.choice([f"v{i}" for i in range(500)], rows),
        "clerk": g.choice([f"w{i}" for i in range(400)], rows),
        "flag": g.random(rows) < 0.3,
        "code": g.integers(0, 5, rows),
        "category": pd.Categorical(g.choice(["p", "q", "r"], rows)),
        "nullable": pd.array(g.integers(0, 9, rows), dtype="Int64"),
        "text": pd.array(g.choice(["s", "t"], rows), dtype="string"),
    })
    frame["follows"] = 2 * frame["normal"] + g.normal(size=rows)
    for name in ("follows", "letter", "nullable", "category", "vendor", "text"):
        frame.loc[g.random(rows) < 0.1, name] = None
    return frame


@pytest.fixture(scope="module")
def pair():
    real, synthetic = mixed(900, 0), mixed(700, 1, shift=0.4)
    synthetic["letter"] = synthetic["letter"].replace("z", "new")
    synthetic["constant"] = real["constant"] = 3.0
    kinds = {**fidelity.kinds_of(real), "code": "categorical"}
    return real, synthetic, kinds


def sdtype(kind: str) -> str:
    return "numerical" if kind in ("numeric", "integer") else "boolean" if kind == "boolean" else "categorical"


def test_column_scores_equal_sdmetrics(pair):
    from sdmetrics.single_column import KSComplement, TVComplement

    real, synthetic, kinds = pair
    scores = fidelity.column_scores(real, synthetic, kinds=kinds).set_index("column")["score"]
    for name, kind in kinds.items():
        oracle = KSComplement if sdtype(kind) == "numerical" else TVComplement
        assert scores[name] == pytest.approx(oracle.compute(real[name], synthetic[name]), abs=1e-9), name


@pytest.mark.filterwarnings("ignore")
def test_reports_equal_sdmetrics(pair):
    from sdmetrics.reports.single_table._properties import ColumnPairTrends, ColumnShapes

    real, synthetic, kinds = pair
    metadata = {"columns": {name: {"sdtype": sdtype(kind)} for name, kind in kinds.items()}}
    shapes, trends = ColumnShapes(), ColumnPairTrends()
    trends.num_rows_subsample = None
    assert fidelity.column_shapes(real, synthetic, kinds=kinds) == pytest.approx(
        shapes.get_score(real, synthetic, metadata), abs=1e-9)
    assert fidelity.pair_trends(real, synthetic, kinds=kinds, edges="own") == pytest.approx(
        trends.get_score(real, synthetic, metadata), abs=1e-9)
    ours = fidelity.pair_scores(real, synthetic, kinds=kinds, edges="own")
    np.testing.assert_allclose(ours["score"], trends.details["Score"].astype(float), atol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_pair_scores_equal_the_metric_classes(pair):
    from sdmetrics.column_pairs import ContingencySimilarity, CorrelationSimilarity

    real, synthetic, kinds = pair
    ours = fidelity.pair_scores(real, synthetic, kinds=kinds).set_index(["column_1", "column_2"])
    assert len(ours) == len(kinds) * (len(kinds) - 1) // 2
    for (one, two), row in ours.iterrows():
        numeric = [name for name in (one, two) if sdtype(kinds[name]) == "numerical"]
        sides = [frame[[one, two]].copy() for frame in (real, synthetic)]
        if len(numeric) == 2:
            if "constant" in numeric:
                assert np.isnan(row["score"])
                continue
            oracle = CorrelationSimilarity.compute(*sides)
        else:
            # Nullable integers with NA cannot go through the oracle's numpy binning.
            sides = [side.astype({name: float for name in numeric}) for side in sides]
            oracle = ContingencySimilarity.compute(*sides, continuous_column_names=numeric or None)
        assert row["score"] == pytest.approx(oracle, abs=1e-9), (one, two)


def test_hand_computed_column_scores():
    real = pd.DataFrame({"n": [1, 2, 3, 4], "c": ["a", "a", "b", "b"]})
    synthetic = pd.DataFrame({"n": [3, 4, 5, 6, 7], "c": ["a", "b", "b", "b", "b"]})
    scores = fidelity.column_scores(real, synthetic)
    # F_r(2) = 1/2 and F_s(2) = 0, F_r(4) = 1 and F_s(4) = 2/5: sup = .6; TV = |.5 - .2|.
    assert scores["score"].tolist() == pytest.approx([0.4, 0.7])
    assert scores["metric"].tolist() == ["KSComplement", "TVComplement"]
    assert fidelity.column_shapes(real, synthetic) == pytest.approx(0.55)


def test_hand_computed_pair_scores():
    real = pd.DataFrame({"x": [0, 1, 2, 3], "y": [0, 2, 4, 6], "c": list("aabb")})
    synthetic = pd.DataFrame({"x": [0, 1, 2, 3], "y": [6, 4, 2, 0], "c": list("aabb")})
    scores = fidelity.pair_scores(real, synthetic).set_index(["column_1", "column_2"])["score"]
    assert scores["x", "y"] == pytest.approx(0.0)
    assert scores["x", "c"] == 1.0
    assert scores["y", "c"] == pytest.approx(0.0)


def test_quantile_bins_see_what_equal_widths_do_not():
    g = np.random.default_rng(0)
    real = pd.DataFrame({"x": np.append(g.random(999), 1e6), "c": "a"})
    real["c"] = np.where(real["x"] < 0.5, "low", "high")
    shuffled = real.assign(c=g.permutation(real["c"]))
    assert fidelity.pair_trends(real, shuffled) > 0.99
    assert fidelity.pair_trends_quantile(real, shuffled) < 0.6


def test_a_heap_at_the_minimum_has_its_own_quantile_bin():
    real = pd.DataFrame({"x": [0] * 80 + list(range(1, 21)), "c": ["a"] * 80 + ["b"] * 20})
    wrong = real.assign(c=["a"] * 60 + ["b"] * 20 + ["a"] * 20)
    assert fidelity.pair_trends_quantile(real, wrong) == pytest.approx(0.6)


@pytest.mark.parametrize("metric", METRICS)
def test_identity_invariance_and_untouched_input(metric, pair):
    real, synthetic, kinds = pair
    real, synthetic = real.drop(columns="constant"), synthetic.drop(columns="constant")
    assert metric(real, real.copy(), kinds=kinds) == 1.0
    before = real.copy(deep=True), synthetic.copy(deep=True)
    score = metric(real, synthetic, kinds=kinds)
    assert 0 < score < 1
    pd.testing.assert_frame_equal(real, before[0])
    pd.testing.assert_frame_equal(synthetic, before[1])
    moved = synthetic.sample(frac=1, random_state=1)[list(synthetic.columns[::-1])]
    moved.index = np.arange(len(moved)) * 7 + 3
    assert metric(real.sample(frac=1, random_state=2), moved, kinds=kinds) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_more_noise_scores_lower(metric):
    g = np.random.default_rng(3)
    x = g.normal(size=2000)
    real = pd.DataFrame({"x": x, "y": x + 0.1 * g.normal(size=2000)})
    scores = [metric(real, real.assign(y=real["y"] + noise * g.normal(size=2000))) for noise in (0.0, 0.5, 3.0)]
    assert scores[0] == 1.0 > scores[1] > scores[2]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("other", [
    lambda codes: codes.astype(str),
    lambda codes: codes.astype(float),
    lambda codes: codes.astype(float).astype(str),
    lambda codes: codes.astype("category"),
    lambda codes: codes.astype(str).astype("category"),
    lambda codes: codes.astype("Int64"),
])
def test_one_code_in_another_dtype_is_the_same_value(metric, other):
    """Trap D4: decoded strings against integer codes scored 1e-9 in the authors' code."""
    g = np.random.default_rng(4)
    real = pd.DataFrame({"sex": g.integers(1, 3, 300), "age": g.integers(20, 60, 300)})
    kinds = {"sex": "categorical", "age": "integer"}
    synthetic = real.assign(sex=other(real["sex"]))
    assert metric(real, synthetic, kinds=kinds) == 1.0
    assert metric(synthetic, real, kinds=kinds) == 1.0


def test_truth_values_as_text_and_numbers_as_text_align():
    real = pd.DataFrame({"flag": [True, False, True, True], "n": [1.5, 2.0, 3.0, 7.0]})
    assert fidelity.column_shapes(real, real.assign(flag=real["flag"].astype(str))) == 1.0
    assert fidelity.column_shapes(real, real.assign(n=real["n"].astype(str))) == 1.0
    assert fidelity.column_shapes(real, real.assign(flag=real["flag"].astype(int))) == 1.0


def test_types_that_cannot_be_aligned_are_refused():
    real = pd.DataFrame({"sex": ["male", "female", "male"], "n": [1, 2, 3]})
    with pytest.raises(TypeError, match="'sex' holds text .* and numbers"):
        fidelity.column_shapes(real, real.assign(sex=[0, 1, 0]))
    with pytest.raises(TypeError, match="'n' of the synthetic table is compared as a number but holds 'one'"):
        fidelity.pair_trends(real, real.assign(n=["one", "two", "three"]))


def test_text_that_shares_no_value_is_an_honest_zero():
    real = pd.DataFrame({"c": ["a", "b"], "d": ["a", "b"]})
    other = pd.DataFrame({"c": ["x", "y"], "d": ["a", "b"]})
    assert fidelity.column_shapes(real, other) == pytest.approx(0.5, abs=1e-5)
    # "01" and "1" are two categories: spelling must not merge them.
    codes = pd.DataFrame({"c": ["01", "1"], "d": ["a", "b"]})
    assert fidelity.column_scores(codes, codes.assign(c=["1.0", "2.0"]))["score"][0] < 1e-5


def test_constant_columns_are_left_out_of_the_mean_aloud():
    g = np.random.default_rng(5)
    real = pd.DataFrame({"x": g.normal(size=50), "y": g.normal(size=50), "z": g.normal(size=50)})
    collapsed = real.assign(z=0.1)
    with pytest.warns(UserWarning, match=r"2 of 3 pairs have no correlation.*'z'"):
        assert fidelity.pair_trends(real, collapsed) == 1.0
    with pytest.raises(ValueError, match="no pair has a score"):
        fidelity.pair_trends(real[["x", "z"]], collapsed[["x", "z"]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fidelity.pair_trends_quantile(real, collapsed) < 0.5


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("damage", "error", "message"), [
    (lambda f: f.drop(columns="b"), ValueError, r"lacks \['b'\]"),
    (lambda f: f.assign(extra=1), ValueError, r"has \['extra'\]"),
    (lambda f: f.iloc[:0], ValueError, "synthetic table is empty"),
    (lambda f: f.to_numpy(), TypeError, "must be a pandas DataFrame"),
    (lambda f: f.assign(a=np.nan), ValueError, "'a' of the synthetic table holds no value"),
    (lambda f: f.assign(b=None), ValueError, "'b' of the synthetic table holds no value"),
    (lambda f: f.assign(a=[1.0, np.inf, 2.0]), ValueError, "'a' of the synthetic table holds 1 infinite"),
    (lambda f: f.set_axis(["a", "a"], axis=1), ValueError, r"duplicate column names \['a'\]"),
])
def test_bad_tables_are_named(metric, damage, error, message):
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "x"]})
    with pytest.raises(error, match=message):
        metric(frame, damage(frame))


def test_bad_arguments_are_named():
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "x"]})
    with pytest.raises(ValueError, match=r"no kind for the columns \['b'\]"):
        fidelity.column_shapes(frame, frame, kinds={"a": "numeric"})
    with pytest.raises(ValueError, match="unknown kinds {'b': 'ordinal'}"):
        fidelity.column_shapes(frame, frame, kinds={"a": "numeric", "b": "ordinal"})
    with pytest.raises(ValueError, match="at least two columns"):
        fidelity.pair_trends(frame[["a"]], frame[["a"]])
    with pytest.raises(ValueError, match="edges must be"):
        fidelity.pair_trends(frame, frame, edges="both")
    with pytest.raises(ValueError, match="bins must be an integer"):
        fidelity.pair_trends_quantile(frame, frame, bins=1)


def test_object_columns_of_numbers_with_none_are_numbers():
    real = pd.DataFrame({"n": pd.Series([1, 2, None, 4], dtype=object), "d": pd.to_datetime(["2020"] * 3 + ["2021"])})
    assert fidelity.column_scores(real, real)["metric"].tolist() == ["KSComplement", "KSComplement"]
    assert fidelity.column_shapes(real, real) == 1.0
