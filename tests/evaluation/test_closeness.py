"""Closest records: exact copies at exactly 0, brute force as oracle, and what the detector sees and does not see."""

import numpy as np
import pandas as pd
import pytest

from feddiff.evaluation import closeness, nearest


def brute_force(queries, reference):
    return np.array([np.sqrt(np.square(reference - query).sum(1).min()) for query in queries])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("shape", [(1, 1, 1), (300, 700, 5), (1100, 513, 30)])
def test_equals_brute_force(shape, scale):
    queries, records, width = shape
    g = np.random.default_rng(0)
    reference, points = scale * g.normal(size=(records, width)) + 7, scale * g.normal(size=(queries, width)) + 7
    np.testing.assert_allclose(nearest.nearest_distances(points, reference), brute_force(points, reference), rtol=1e-12)


def test_copies_are_at_exactly_zero_and_near_copies_are_not_doubled():
    """torch.cdist puts such copies at up to .005."""
    g = np.random.default_rng(1)
    reference = g.normal(size=(3000, 30)) * 5 + 100
    assert (nearest.nearest_distances(reference[::3], reference) == 0).all()
    moved = reference[::3].copy()
    moved[:, 0] += 1e-5
    np.testing.assert_allclose(nearest.nearest_distances(moved, reference), 1e-5, rtol=1e-6)


def test_repeated_and_tied_records_are_cheap_and_right():
    reference = np.repeat(np.array([[0.0, -0.0], [1.0, 1.0]]), 20_000, axis=0)
    np.testing.assert_allclose(
        nearest.nearest_distances(np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 1.0]]), reference), [0.0, 1.0, 2.0])


@pytest.mark.parametrize(("queries", "reference", "message"), [
    (np.zeros((0, 2)), np.zeros((3, 2)), "queries is"),
    (np.zeros((3, 2)), np.zeros((3, 1)), "reference is"),
    (np.zeros((3, 2)), np.full((3, 2), np.nan), "reference holds values that are not finite"),
])
def test_bad_points_are_named(queries, reference, message):
    with pytest.raises(ValueError, match=message):
        nearest.nearest_distances(queries, reference)


def mixed(rows, seed):
    g = np.random.default_rng(seed)
    frame = pd.DataFrame({
        "age": g.integers(0, 90, rows), "income": np.exp(g.normal(size=rows)), "sex": g.choice(["f", "m"], rows),
        "vendor": g.choice([f"v{i}" for i in range(300)], rows), "member": g.random(rows) < 0.5,
    })
    frame.loc[g.random(rows) < 0.2, "income"] = np.nan
    frame.loc[g.random(rows) < 0.2, "sex"] = None
    return frame


def test_mixed_tables_equal_the_documented_distance():
    queries, reference = mixed(200, 0), mixed(400, 1)
    expected = []
    spans = {name: reference[name].max() - reference[name].min() for name in ("age", "income")}
    for _, query in queries.iterrows():
        squared = np.zeros(len(reference))
        for name, span in spans.items():
            gap = ((reference[name] - query[name]) / span) ** 2
            one_missing = reference[name].isna() != pd.isna(query[name])
            both_missing = reference[name].isna() & pd.isna(query[name])
            present = query[name] if not pd.isna(query[name]) else 0.0
            filled = ((reference[name].fillna(0.0) - present) / span) ** 2
            squared += np.where(both_missing, 0.0, np.where(one_missing, filled + 1, gap))
        for name in ("sex", "vendor", "member"):
            same = (reference[name] == query[name]) | (reference[name].isna() & pd.isna(query[name]))
            squared += ~same.to_numpy()
        expected.append(np.sqrt(squared.min()))
    np.testing.assert_allclose(closeness.distance_to_closest_record(queries, reference), expected, rtol=1e-12)
    assert (closeness.distance_to_closest_record(reference, reference) == 0).all()


def test_hand_computed_distances():
    reference = pd.DataFrame({"n": [0, 10], "c": ["a", "b"]})
    queries = pd.DataFrame({"n": [0, 5, 20], "c": ["a", "a", "z"]})
    np.testing.assert_allclose(closeness.distance_to_closest_record(queries, reference), [0, 0.5, np.sqrt(2)])


def test_copy_detector_sees_copies_and_not_fresh_rows():
    train, holdout, fresh = mixed(1500, 2), mixed(600, 3), mixed(1500, 4)
    g = np.random.default_rng
    copies = closeness.copy_detector(train.sample(frac=1, random_state=0), train, holdout, generator=g(0))
    # 600 of the 1,500 training rows are kept to match the hold-out; copies of these are at 0.
    assert copies.exact_copies == pytest.approx(0.4)
    assert copies.exact_copies_holdout == 0 and copies.rows_compared == 600 and copies.closer_to_train > 0.65
    equal = closeness.copy_detector(train.iloc[:600], train.iloc[:600], holdout, generator=g(0))
    assert equal.exact_copies == equal.closer_to_train == 1.0 and equal.dcr_median == equal.dcr_5 == 0.0
    honest = closeness.copy_detector(fresh, train, holdout, generator=g(0))
    # Few columns and missing values: a fresh row can equal a training row by chance.
    assert honest.exact_copies < 0.005 and abs(honest.closer_to_train - 0.5) < 0.08
    assert honest.dcr_median == pytest.approx(honest.holdout_dcr_median, rel=0.1)
    assert honest.label == "copy detector, not privacy"


def test_a_shifted_copy_of_every_row_passes_which_is_why_this_is_no_privacy_metric():
    g = np.random.default_rng(5)
    train, holdout = (pd.DataFrame(g.normal(size=(1000, 10)), columns=list("abcdefghij")) for _ in range(2))
    report = closeness.copy_detector(train + 1.5, train, holdout, generator=g)
    assert report.exact_copies == 0 and report.dcr_5 > report.holdout_dcr_5 and report.closer_to_train < 0.65


def test_ties_count_half_and_inputs_stay():
    frame = pd.DataFrame({"c": ["a", "b"] * 50, "n": 1})
    before = frame.copy(deep=True)
    report = closeness.copy_detector(frame, frame, frame, generator=np.random.default_rng(0))
    assert report.closer_to_train == 0.5 and report.exact_copies == report.exact_copies_holdout == 1.0
    pd.testing.assert_frame_equal(frame, before)


def test_bad_tables_are_named():
    frame = pd.DataFrame({"n": [1.0, 2.0], "c": ["a", "b"]})
    g = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"the synthetic table lacks \['c'\]"):
        closeness.copy_detector(frame[["n"]], frame, frame, generator=g)
    with pytest.raises(ValueError, match="the hold-out table is empty"):
        closeness.copy_detector(frame, frame, frame.iloc[:0], generator=g)
    with pytest.raises(ValueError, match="holds no value"):
        closeness.distance_to_closest_record(frame.assign(n=np.nan), frame)
