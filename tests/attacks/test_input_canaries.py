"""Input-space canaries: unlikely, distinct, typed as the table, and a pure function of the frame and a generator."""

import numpy as np
import pandas as pd
import pytest

from feddiff.attacks.audit import guess_counts, one_run_epsilon, one_run_fdp_epsilon
from feddiff.attacks.input_canaries import craft
from feddiff.data import tables
from feddiff.seeds import numpy_generator

KINDS = {"age": "integer", "pay": "numeric", "job": "categorical", "owner": "boolean", "label": "categorical"}


def people(rows=300):
    draw = numpy_generator(4, "people")
    return pd.DataFrame({
        "age": draw.integers(18, 90, rows).astype(np.uint8), "pay": draw.normal(10, 3, rows).astype(np.float32),
        "job": pd.Categorical(draw.choice(["clerk", "nurse", "smith"], rows, p=[0.6, 0.35, 0.05])),
        "owner": draw.random(rows) < 0.8, "label": draw.choice(["no", "yes"], rows, p=[0.9, 0.1]),
    })


def made(frame=None, canaries=50, seed=0, **changes):
    frame = people() if frame is None else frame
    given = dict(kinds=KINDS, target="label", canaries=canaries, generator=numpy_generator(seed, "craft"))
    return craft(frame, **given | changes)


def test_canaries_have_the_schema_of_the_table_and_leave_it_alone():
    frame = people()
    before = frame.copy(deep=True)
    found = made(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert list(found.frame.columns) == list(frame.columns) and found.frame.dtypes.equals(frame.dtypes)
    assert len(found.frame) == len(found.origins) == 50 and list(found.frame.index) == list(range(50))
    assert not found.frame.isna().any().any()


@pytest.mark.parametrize("name", ["bank-marketing", "adult"])
def test_no_two_canaries_are_equal_and_none_is_a_row_of_the_table(name):
    table = tables.load(name)
    found = made(table.frame, 400, kinds=table.kinds, target=table.target).frame
    assert not pd.concat([table.frame.drop_duplicates(), found], ignore_index=True).duplicated().any()
    for column in table.features:
        assert table.kinds[column] in ("integer", "numeric") or found[column].isin(table.frame[column]).all()


def test_numbers_lie_at_or_beyond_either_end_and_categories_and_the_label_are_others():
    frame = people()
    found = made(frame, 200)
    origin = frame.iloc[found.origins].reset_index(drop=True)
    for column in ("age", "pay"):
        low, high = found.frame[column] <= frame[column].min(), found.frame[column] >= frame[column].max()
        assert (low | high).all() and 60 < low.sum() < 140
    for column in ("job", "owner", "label"):
        assert (found.frame[column].astype(object) != origin[column].astype(object)).all(), column
    assert (found.frame["job"] == "smith").mean() > 0.5, "a rare label is more likely"


def test_a_table_without_a_target_or_with_a_number_has_none_to_flip():
    assert len(made(target=None).frame) == len(made(target="pay").frame) == 50


def test_missing_values_are_no_values_and_whole_numbers_stay_whole():
    frame = people().astype({"age": float})
    frame.loc[::3, "age"] = np.nan
    frame["job"] = frame["job"].astype(object)
    frame.loc[::2, "job"] = None
    found = made(frame).frame
    assert not found.isna().any().any() and (found["age"] % 1 == 0).all()
    assert set(found["job"]) <= {"clerk", "nurse", "smith"}


def test_same_generator_same_canaries():
    pd.testing.assert_frame_equal(made(seed=1).frame, made(seed=1).frame)
    assert not made(seed=1).frame.equals(made(seed=2).frame)


@pytest.mark.parametrize(("change", "words"), [
    (dict(frame=people(1).iloc[:0]), "without rows"), (dict(kinds={"age": "integer"}), "kinds"),
    (dict(kinds=KINDS | {"pay": "magic"}), "kinds"), (dict(target="nobody"), "nobody"), (dict(canaries=0), "canaries"),
    (dict(frame=people().assign(pay=np.float32(np.nan))), "'pay' has no values"),
    (dict(frame=people().assign(label="no")), "one label"),
    (dict(frame=people()[["label"]], kinds={"label": "categorical"}, canaries=3), "too narrow"),
])
def test_bad_input_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        made(**change)


@pytest.mark.parametrize(("bound", "ceiling"), [(one_run_epsilon, 3.49), (one_run_fdp_epsilon, 7.15)])
def test_a_memorising_scorer_reaches_the_ceiling_and_permuted_coins_prove_nothing(bound, ceiling):
    """A scorer that knows the rows it saw guesses 100 of 100, the most there is: .05 = (1 + exp(-3.49))^-100."""
    frame = made(canaries=200).frame
    coins = numpy_generator(0, "coins").random(200) < 0.5
    remembered = set(frame[coins].itertuples(index=False, name=None))
    scores = np.array([row in remembered for row in frame.itertuples(index=False, name=None)], dtype=float)
    counts = guess_counts(scores, coins, 100)
    assert counts["correct"] == 100 and bound(**counts, delta=1e-5) == pytest.approx(ceiling, rel=0.01)
    dealt = numpy_generator(1, "permuted").permutation(coins)
    assert bound(**guess_counts(scores, dealt, 100), delta=1e-5) == 0
