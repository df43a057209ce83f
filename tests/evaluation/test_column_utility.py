"""Utility column by column: scikit-learn's scores as oracle, planted dependence across silos, floors, refusals."""

import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import d2_absolute_error_score, f1_score

from feddiff.evaluation import column_utility as module
from feddiff.evaluation.boosting import classifier, regressor
from feddiff.evaluation.column_utility import (
    column_utility, columns_elsewhere, cross_silo_tstr, predictability, utility_score,
)

KINDS = {"x": "numeric", "y": "numeric", "c": "categorical", "noise": "numeric", "d": "categorical"}
PARTS = [["x", "c"], ["y", "noise", "d"]]


def table(rows, seed):
    """x and y depend on each other across the silos, as do c and d; noise on nothing."""
    g = np.random.default_rng(seed)
    x, c = g.normal(size=rows), g.choice(list("pqr"), rows)
    kept = g.random(rows) < 0.9
    return pd.DataFrame({
        "x": x, "y": x + 0.3 * g.normal(size=rows), "c": c, "noise": g.normal(size=rows),
        "d": np.where(kept, c, g.choice(list("pqr"), rows)),
    })


def independent(frame, seed, groups=None):
    g = np.random.default_rng(seed)
    groups = groups or [[name] for name in frame]
    return pd.concat(
        [frame[group].iloc[g.permutation(len(frame))].reset_index(drop=True) for group in groups], axis=1
    )[list(frame)]


@pytest.fixture(scope="module")
def tables():
    return table(700, 0), table(400, 1)


@pytest.fixture(scope="module")
def ceiling(tables):
    return predictability(*tables, kinds=KINDS).set_index("column")


def test_scores_are_sklearns_on_the_same_models(tables, ceiling):
    train, test = (frame.assign(c=frame["c"].map({"p": 0, "q": 1, "r": 2}), d=frame["d"].map({"p": 0, "q": 1, "r": 2}))
                   for frame in tables)
    features = ["c", "d", "noise", "x"]
    state = module.seeds.derive(0, "column utility", "y") % 2**32
    model = regressor(np.array([True, True, False, False]), state).fit(train[features].to_numpy(), train["y"])
    guess = model.predict(test[features].to_numpy())
    assert ceiling.loc["y", "score"] == pytest.approx(d2_absolute_error_score(test["y"], guess), abs=1e-12)
    by_hand = 1 - np.abs(test["y"] - guess).mean() / np.abs(test["y"] - test["y"].median()).mean()
    assert ceiling.loc["y", "score"] == pytest.approx(by_hand, abs=1e-12)
    features = ["c", "noise", "x", "y"]
    model = classifier(3, np.array([True, False, False, False]), 0).fit(train[features].to_numpy(), train["d"])
    guess = model.predict(test[features].to_numpy())
    assert ceiling.loc["d", "score"] == pytest.approx(f1_score(test["d"], guess, average="macro"), abs=1e-12)
    majority = np.full(len(test), train["d"].mode()[0])
    assert ceiling.loc["d", "floor"] == pytest.approx(f1_score(test["d"], majority, average="macro"), abs=1e-12)
    assert ceiling["metric"].to_dict() == {"x": "D2", "y": "D2", "c": "macro-F1", "noise": "D2", "d": "macro-F1"}


def test_planted_dependence_is_found_and_noise_is_not(ceiling):
    # y = x + .3 e: the best D2 is 1 - .3 / sqrt(1.09); the copy is right in .9 + .1 / 3 of the rows.
    assert 0.6 < ceiling.loc["y", "score"] < 0.73 and 0.88 < ceiling.loc["d", "score"] < 0.97
    assert ceiling.loc["noise", "score"] < 0.02 and abs(ceiling.loc["noise", "floor"]) < 0.02


def test_ratios_and_their_percentile(tables, ceiling):
    train, test = tables
    same = column_utility(train, train, test, kinds=KINDS, ceiling=ceiling.reset_index())
    assert same["ratio"].dropna().eq(100).all() and same.set_index("column")["ratio"].isna()["noise"]
    assert utility_score(same) == utility_score(same, ratio="ratio_above_floor") == 100
    lost = column_utility(train, independent(train, 2), test, kinds=KINDS, ceiling=ceiling.reset_index())
    rows = lost.set_index("column")
    assert rows.loc[["x", "y"], "ratio"].max() < 10
    # A blind guess keeps a third of macro-F1: hence the ratio above the floor.
    assert 15 < rows.loc["d", "ratio"] < 60
    assert rows.loc["d", "ratio_above_floor"] == pytest.approx(
        100 * (rows.loc["d", "synthetic"] - rows.loc["d", "floor"]) / (rows.loc["d", "real"] - rows.loc["d", "floor"]))
    expected = np.percentile(lost["ratio"].dropna(), 90)
    assert utility_score(lost) == pytest.approx(expected) and utility_score(lost, percentile=50) < expected
    fresh = column_utility(train, table(700, 3), test, kinds=KINDS, ceiling=ceiling.reset_index())
    assert utility_score(fresh, percentile=50) > 95


def test_across_silos_only_joint_tables_score(tables):
    train, test = tables
    joint, apart = (cross_silo_tstr(frame, test, parts=PARTS, kinds=KINDS).set_index("column") for frame in
                    (train, independent(train, 4, PARTS)))
    assert joint["part"].to_dict() == {"x": 0, "y": 1, "c": 0, "noise": 1, "d": 1}
    assert joint.loc["y", "score"] > 0.6 and joint.loc["c", "score"] > 0.88
    assert apart.loc[["x", "y"], "score"].max() < 0.05 and apart.loc[["c", "d"], "score"].max() < 0.45


def test_across_silos_the_own_silo_is_not_used(tables):
    # The mutant: with the own silo's columns a copy inside the silo would be read off.
    train, test = (frame.assign(twin=frame["noise"]) for frame in tables)
    parts = [PARTS[0], [*PARTS[1], "twin"]]
    kinds = KINDS | {"twin": "numeric"}
    assert columns_elsewhere(test, parts, "noise") == ["x", "c"]
    assert cross_silo_tstr(train, test, parts=parts, kinds=kinds, targets=["noise"])["score"].iloc[0] < 0.05
    assert predictability(train, test, kinds=kinds, targets=["noise"])["score"].iloc[0] > 0.9


def test_degenerate_targets(tables):
    train, test = tables
    names = [f"n{i}" for i in range(60)]
    g = np.random.default_rng(5)
    extra = [frame[["x"]].assign(
        one="same", flat=1.0, many=g.choice(names, len(frame)), gap=frame["c"].where(g.random(len(frame)) < 0.8),
        hole=frame["y"].where(g.random(len(frame)) < 0.8)) for frame in tables]
    rows = predictability(*extra).set_index("column")
    assert rows.loc[["one", "flat", "many"], ["score", "floor"]].isna().all(axis=None)
    assert rows.loc["hole", "score"] > 0.6 and np.isfinite(rows.loc["gap", "score"])
    single = predictability(train.assign(d="p"), test, kinds=KINDS, targets=["d"]).iloc[0]
    assert single["score"] == single["floor"]
    unseen = predictability(train.assign(c=train["c"].replace("r", "new")), test, kinds=KINDS, targets=["c", "d"])
    assert unseen["score"].between(0.2, 0.95).all()


def test_same_seed_same_scores_and_row_caps(tables):
    train, test = tables
    options = {"kinds": KINDS, "targets": ["d"], "max_rows": 100}
    one, two, other = (predictability(train, test, seed=seed, **options) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(one, two)
    assert one["train_rows"].iloc[0] == 100 and one["score"].iloc[0] != other["score"].iloc[0]
    reordered = predictability(train.iloc[:, ::-1], test.iloc[:, ::-1], **options)
    assert reordered["score"].iloc[0] == one["score"].iloc[0]


def test_bad_input_is_refused(tables, ceiling):
    train, test = tables
    with pytest.raises(ValueError, match="ghost"):
        predictability(train, test, targets=["ghost"])
    with pytest.raises(ValueError, match="list of columns"):
        predictability(train, test, targets="x")
    with pytest.raises(ValueError, match="other columns than itself"):
        predictability(train, test, targets=["x"], given={"x": ["x", "y"]})
    with pytest.raises(ValueError, match="max_rows"):
        predictability(train, test, max_rows=0)
    with pytest.raises(ValueError, match="one row per column"):
        column_utility(train, train, test, kinds=KINDS, ceiling=ceiling.reset_index().iloc[1:])
    with pytest.raises(ValueError, match="in one part"):
        cross_silo_tstr(train, test, parts=[list(train)], kinds=KINDS)
    with pytest.raises(ValueError, match="no column has a ratio"):
        utility_score(pd.DataFrame({"column": ["a"], "ratio": [np.nan], "ratio_above_floor": [np.nan]}))
    with pytest.raises(ValueError, match="ratio must be"):
        utility_score(ceiling, ratio="other")


@pytest.mark.slow
def test_judging_five_thousand_rows_of_fourteen_columns_takes_seconds():
    from feddiff.evaluation.resemblance import resemblance

    frames = [pd.concat([table(5000, seed + k).add_suffix(str(k)) for k in range(3)], axis=1).iloc[:, :14]
              for seed in (0, 10)]
    start = time.process_time()
    resemblance(*frames)
    predictability(*frames)
    assert time.process_time() - start < 10
