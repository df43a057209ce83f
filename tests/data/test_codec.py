"""The codec: scikit-learn's quantiles, exact normality and exact inverse with tie-breaking, every kind, every dtype."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from feddiff.data import tables
from feddiff.data.codec import Encoded, LabelCodec, TableCodec, missing_name
from feddiff.data.columns import NUMERICS, CategoryColumn, NumericColumn
from feddiff.seeds import numpy_generator

TIES = "quantile-ties"


def samples(rows: int = 3000) -> dict[str, np.ndarray]:
    rng = numpy_generator(1, "codec samples")
    return {
        "normal": rng.normal(size=rows),
        "heavy tail": np.exp(3 * rng.normal(size=rows)),
        "zero-inflated": np.where(rng.random(rows) < 0.9, 0.0, rng.exponential(1000, rows).round(2)),
        "ties at both ends": np.clip(rng.normal(size=rows), -1, 1),
        "few integers": rng.integers(17, 90, rows).astype(float),
        "two values": rng.integers(0, 2, rows).astype(float),
        "small sample": rng.normal(size=rows)[:40],
        "negative": -rng.exponential(5, rows),
    }


@pytest.mark.parametrize("name", samples())
def test_quantile_is_scikit_learns_quantile_transformer(name):
    x = samples()[name]
    other = np.concatenate([x, np.linspace(x.min() - 1, x.max() + 1, 500)])
    reference = QuantileTransformer(n_quantiles=min(1000, len(x)), output_distribution="normal", subsample=None)
    expected = reference.fit(x[:, None]).transform(other[:, None])[:, 0]
    column = NumericColumn.fit(pd.Series(x, name="x"), numerics="quantile")
    z = column.encode(pd.Series(other, name="x"))
    np.testing.assert_allclose(z, expected, atol=2e-6)
    draws = np.concatenate([numpy_generator(2).normal(size=2000), [-9.0, 9.0]])
    inverse = reference.inverse_transform(draws[:, None])[:, 0]
    rounding = 0.5 * 10.0**-column.decimals if column.decimals is not None else 0.0
    np.testing.assert_allclose(column.decode(draws), inverse, atol=rounding + 1e-4 * np.ptp(x) / len(x), rtol=1e-5)


def test_quantile_sends_a_tied_minimum_to_the_threshold_and_tie_breaking_does_not():
    x = pd.Series([0.0] * 900 + list(range(1, 101)), name="x")
    assert NumericColumn.fit(x, numerics="quantile").encode(x)[0] == pytest.approx(-5.199, abs=1e-3)
    z = NumericColumn.fit(x, numerics=TIES).encode(x, numpy_generator(3))
    assert z[:900].mean() == pytest.approx(stats.norm.expect(ub=stats.norm.ppf(0.9), conditional=True), abs=0.1)
    assert z[:900].max() < stats.norm.ppf(0.9) + 1e-6


@pytest.mark.parametrize("name", samples())
def test_tie_breaking_makes_every_column_standard_normal_and_inverts_exactly(name):
    x = pd.Series(samples()[name], name="x")
    column = NumericColumn.fit(x, numerics=TIES)
    z = column.encode(x, numpy_generator(4))
    # Ranks are random inside each tie only, so the sample is at least as even as one drawn from N(0, 1).
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert z.dtype == np.float32 and np.abs(z).max() < 5.3
    pd.testing.assert_series_equal(column.decode(z), x, check_exact=True)


class ExtremeRanks:
    """Stands for a generator and draws the ends of [0, 1) only."""

    def random(self, size):
        return np.where(np.arange(size) % 2, 0.0, 1 - 2.0**-53)


def test_the_ends_of_a_tie_still_decode_to_the_tie():
    x = pd.Series(np.repeat(numpy_generator(7).permutation(997), 12), name="x")
    column = NumericColumn.fit(x, numerics=TIES)
    pd.testing.assert_series_equal(column.decode(column.encode(x, ExtremeRanks())), x)


def test_standard_is_scikit_learns_standard_scaler():
    x = samples()["heavy tail"]
    column = NumericColumn.fit(pd.Series(x, name="x"), numerics="standard")
    np.testing.assert_allclose(column.encode(pd.Series(x)), StandardScaler().fit_transform(x[:, None])[:, 0], atol=1e-5)
    decoded = column.decode(np.array([-100.0, 100.0]))
    assert decoded.tolist() == [x.min(), x.max()]


def test_the_order_of_numbers_is_kept():
    x = pd.Series(np.sort(samples()["zero-inflated"]), name="x")
    z = NumericColumn.fit(x, numerics=TIES).encode(x, numpy_generator(5))
    group = x.rank(method="dense").to_numpy(dtype=int)
    highest = np.array([z[group == g].max() for g in range(1, group.max() + 1)])
    lowest = np.array([z[group == g].min() for g in range(1, group.max() + 1)])
    assert (highest[:-1] < lowest[1:]).all()


def mixed(seed: int, rows: int) -> tuple[pd.DataFrame, dict[str, str]]:
    """A random table with every kind and dtype; some columns tied, constant or with missing values."""
    rng = numpy_generator(seed, "mixed")
    hole = rng.random(rows) < rng.choice([0.02, 0.3])
    hole[:2] = [True, False]
    labels = np.array(["b", "a", "ö", "", "other thing"], dtype=object)
    text = labels[rng.integers(0, 5, rows)]
    integers = rng.integers(-(10 ** rng.integers(1, 10)), 10 ** rng.integers(1, 10), rows)
    frame = pd.DataFrame({
        "ordered": pd.Categorical(rng.choice(["low", "high"], rows), ["low", "mid", "high"], ordered=True),
        "integer": integers,
        "small": rng.integers(0, 200, rows).astype("uint8"),
        "money": np.exp(rng.normal(3, 3, rows)).round(2),
        "float": rng.normal(size=rows) * 10.0 ** rng.integers(-8, 8),
        "float32": rng.normal(size=rows).astype("float32"),
        "constant": np.full(rows, 7),
        "nullable integer": pd.array(np.where(hole, 0, rng.integers(0, 9, rows)), dtype="Int64"),
        "float with holes": np.where(hole, np.nan, rng.normal(size=rows)),
        "whole float with holes": np.where(hole, np.nan, rng.integers(0, 50, rows)),
        "text": text,
        "text with holes": np.where(hole, np.nan, text),
        "string": pd.array(np.where(hole, None, text), dtype="string"),
        "category with holes": pd.Categorical(np.where(hole, None, text), labels[::-1]),
        "coded": rng.choice([-2, -1, 0, 8], rows),
        "coded with holes": np.where(hole, np.nan, rng.choice([1.0, 2.5], rows)),
        "flag": rng.random(rows) < 0.5,
        "nullable flag": pd.array(np.where(hole, None, rng.random(rows) < 0.5), dtype="boolean"),
        "flag with holes": pd.Series(np.where(hole, np.nan, (rng.random(rows) < 0.5).astype(object)), dtype=object),
    })
    frame.loc[hole, "nullable integer"] = pd.NA
    numeric = {"money": "numeric", "float": "numeric", "float32": "numeric", "float with holes": "numeric",
               "small": "numeric"}
    integer = dict.fromkeys(["integer", "constant", "nullable integer", "whole float with holes"], "integer")
    boolean = dict.fromkeys(["flag", "nullable flag", "flag with holes"], "boolean")
    kinds = {name: (numeric | integer | boolean).get(name, "categorical") for name in frame.columns}
    order = rng.permutation(frame.columns.to_numpy())
    return frame[list(order)], {name: kinds[name] for name in order}


@pytest.mark.parametrize("seed", range(12))
def test_round_trip_of_random_mixed_tables_is_exact(seed):
    frame, kinds = mixed(seed, rows=int(numpy_generator(seed).integers(12, 800)))
    codec = TableCodec.fit(frame, kinds, numerics=TIES)
    encoded = codec.encode(frame, numpy_generator(seed, "ties"))
    assert encoded.codes.dtype == np.int64 and encoded.codes.shape == (len(frame), len(codec.levels))
    assert encoded.numbers.dtype == np.float32 and encoded.numbers.shape == (len(frame), len(codec.number_columns))
    assert (encoded.codes >= 0).all() and (encoded.codes < np.array(codec.levels)).all()
    assert np.isfinite(encoded.numbers).all()
    pd.testing.assert_frame_equal(codec.decode(encoded), frame, check_exact=True)
    again = TableCodec.from_json(codec.to_json())
    assert again == codec
    pd.testing.assert_frame_equal(again.decode(encoded), frame, check_exact=True)


@pytest.mark.parametrize("numerics", ["quantile", "standard"])
def test_round_trip_of_the_other_transforms_keeps_kinds_and_comes_close(numerics):
    frame, kinds = mixed(3, rows=500)
    codec = TableCodec.fit(frame, kinds, numerics=numerics)
    decoded = codec.decode(codec.encode(frame))
    assert decoded.dtypes.equals(frame.dtypes) and decoded.isna().equals(frame.isna())
    for name in codec.number_columns:
        spread = float(np.ptp(frame[name].dropna().to_numpy(dtype=float))) or 1.0
        assert (decoded[name] - frame[name]).abs().max() <= 1e-5 * spread
    codes = [name for name in frame.columns if kinds[name] in ("categorical", "boolean")]
    pd.testing.assert_frame_equal(decoded[codes], frame[codes])


def test_any_point_of_the_space_decodes_into_the_fitted_domain():
    frame, kinds = mixed(5, rows=400)
    rng = numpy_generator(9)
    for numerics in NUMERICS:
        codec = TableCodec.fit(frame, kinds, numerics=numerics)
        codes = np.column_stack([rng.integers(0, levels, 1000) for levels in codec.levels])
        numbers = rng.normal(size=(1000, len(codec.number_columns)), scale=3).astype(np.float32)
        decoded = codec.decode(Encoded(codes, numbers))
        assert decoded.dtypes.equals(frame.dtypes)
        for name in codec.number_columns:
            assert decoded[name].min() >= frame[name].min() and decoded[name].max() <= frame[name].max()
        for name in ("integer", "whole float with holes"):
            assert (decoded[name].dropna() % 1 == 0).all()
        assert set(decoded["text"]) <= set(frame["text"])
        assert (decoded["money"].round(2) == decoded["money"]).all()


def test_missing_numbers_get_a_code_column_and_the_median():
    frame = pd.DataFrame({"a": [1.0, np.nan, 3.0, 9.0], "b": ["x", "y", "x", None]})
    codec = TableCodec.fit(frame, {"a": "numeric", "b": "categorical"}, numerics=TIES)
    assert codec.code_columns == (missing_name("a"), "b") == ("a is missing", "b")
    assert codec.levels == (2, 3) and codec.number_columns == ("a",) and codec.names == ("a", "b")
    encoded = codec.encode(frame, numpy_generator(0))
    assert encoded.codes.tolist() == [[0, 0], [1, 1], [0, 0], [0, 2]]
    assert encoded.numbers[1, 0] == encoded.numbers[2, 0] == pytest.approx(0.0, abs=1e-6)
    assert codec.decode(Encoded(encoded.codes * 0 + [1, 2], encoded.numbers)).isna().all(axis=None)


def test_nothing_depends_on_rows_outside_the_fit():
    table = tables.load("bank-marketing")
    train, test = tables.split(table, 0.2, numpy_generator(1))
    codec = TableCodec.fit(train.frame, train.kinds, columns=train.features, numerics=TIES)
    top = train.frame["balance"].max()
    held_out = test.frame.assign(balance=top + 10_000)
    decoded = codec.decode(codec.encode(held_out, numpy_generator(1)))
    assert (decoded["balance"] == top).all() and list(decoded) == train.features
    close = codec.decode(codec.encode(test.frame, numpy_generator(2)))
    error = (close["balance"] - test.frame["balance"].clip(train.frame["balance"].min(), top)).abs()
    assert error.median() == 0 and (error <= 0.01 * test.frame["balance"].abs() + 1).mean() > 0.98


def test_adult_encodes_in_well_under_a_second():
    table = tables.load("adult")
    codec = TableCodec.fit(table.frame, table.kinds, columns=table.features, numerics=TIES)
    start = time.process_time()
    encoded = codec.encode(table.frame, numpy_generator(0))
    assert time.process_time() - start < 1.5
    pd.testing.assert_frame_equal(codec.decode(encoded), table.frame[table.features])
    for numbers in encoded.numbers.T:
        assert abs(numbers.mean()) < 0.02 and abs(numbers.std() - 1) < 0.02


def test_codec_from_public_bounds_and_vocabulary():
    codec = TableCodec(
        (
            NumericColumn.from_quantiles("age", [17, 90], [0, 1], dtype="int64", decimals=0),
            NumericColumn.from_quantiles("gain", [0, 0, 0, 50, 100], [0, 0.5, 0.9, 0.95, 1], missing=True),
            CategoryColumn(name="sex", vocabulary=("f", "m", "unknown"), other="unknown"),
        ),
        provenance="public",
    )
    frame = pd.DataFrame({"age": [17, 40, 120], "gain": [0.0, np.nan, 75.0], "sex": ["m", "x", "f"]})
    encoded = codec.encode(frame, numpy_generator(1))
    decoded = codec.decode(encoded)
    assert decoded["age"].tolist() == [17, 40, 90] and decoded["sex"].tolist() == ["m", "unknown", "f"]
    assert decoded["gain"][0] == 0.0 and np.isnan(decoded["gain"][1])
    assert decoded["gain"][2] == pytest.approx(75, abs=1e-3)
    assert codec.columns[1].middle == 0.0 and codec.columns[0].middle == pytest.approx(53.5)
    assert TableCodec.from_json(codec.to_json()) == codec and codec.provenance == "public"
    uniform = codec.columns[0].decode(numpy_generator(2).normal(size=20_000))
    assert uniform.mean() == pytest.approx(53.5, abs=0.6) and uniform.std() == pytest.approx(73 / 12**0.5, abs=0.6)


def test_same_generator_same_codes():
    x = pd.DataFrame({"x": [0.0] * 50 + [1.0] * 50})
    codec = TableCodec.fit(x, {"x": "numeric"}, numerics=TIES)
    first, second, third = (codec.encode(x, numpy_generator(s)).numbers for s in (1, 1, 2))
    assert np.array_equal(first, second) and not np.array_equal(first, third)


def test_label_codec():
    codec = LabelCodec.fit(pd.Series(["no", "yes", "no"], name="y"))
    assert codec.classes == ("no", "yes") and codec.name == "y"
    assert codec.encode(pd.Series(["yes", "no"])).tolist() == [1, 0]
    assert codec.decode(np.array([1, 0])).tolist() == ["yes", "no"]
    assert LabelCodec.from_json(codec.to_json()) == codec
    ordered = LabelCodec.fit(pd.Series(pd.Categorical(["b", "a"], ["b", "a"]), name="y"))
    assert ordered.classes == ("b", "a") and isinstance(ordered.decode(np.array([0])).dtype, pd.CategoricalDtype)
    integers = LabelCodec.fit(pd.Series([0, 1, 1], name="y"))
    assert integers.decode(np.array([1])).dtype == np.int64


def test_unseen_labels_have_a_declared_home():
    train = pd.DataFrame({"job": ["a", "b", "b"], "code": [3, 3, 5]})
    kinds = {"job": "categorical", "code": "categorical"}
    codec = TableCodec.fit(train, kinds, unseen="other")
    decoded = codec.decode(codec.encode(pd.DataFrame({"job": ["z", "a"], "code": [99, 5]})))
    assert decoded["job"].tolist() == ["other", "a"] and decoded["code"].tolist() == [3, 5]
    assert codec.levels == (3, 2)


FRAME = pd.DataFrame({"x": [1.0, 2.0, 2.0], "c": ["a", "b", "a"]})
KINDS = {"x": "numeric", "c": "categorical"}
FIT = TableCodec.fit(FRAME, KINDS)
REFUSED = {
    "unknown column": (lambda: TableCodec.fit(FRAME, KINDS, columns=["nope"]), "'nope'"),
    "no kind": (lambda: TableCodec.fit(FRAME, {"x": "numeric"}), "'c'"),
    "unknown kind": (lambda: TableCodec.fit(FRAME, KINDS | {"c": "word"}), "'c'.*'word'"),
    "unknown transform": (lambda: TableCodec.fit(FRAME, KINDS, numerics="log"), "numerics.*'log'"),
    "unknown policy": (lambda: TableCodec.fit(FRAME, KINDS, unseen="drop"), "unseen.*'drop'"),
    "unknown provenance": (lambda: TableCodec.fit(FRAME, KINDS, provenance="dp"), "provenance.*'dp'"),
    "no rows": (lambda: TableCodec.fit(FRAME[:0], KINDS), "without rows"),
    "all missing": (lambda: TableCodec.fit(FRAME.assign(x=np.nan), KINDS), "'x'.*missing"),
    "all labels missing": (lambda: TableCodec.fit(FRAME.assign(c=None), KINDS), "'c'.*missing"),
    "infinite": (lambda: TableCodec.fit(FRAME.assign(x=np.inf), KINDS), "'x'.*infinite"),
    "not whole": (lambda: TableCodec.fit(FRAME.assign(x=0.5), KINDS | {"x": "integer"}), "'x'.*0.5"),
    "huge integers": (lambda: TableCodec.fit(FRAME.assign(x=2**60), KINDS), "'x'.*2\\^53"),
    "column gone": (lambda: FIT.encode(FRAME[["x"]]), "'c'"),
    "unseen label": (lambda: FIT.encode(FRAME.assign(c="z")), "'c'.*'z'"),
    "unseen missing label": (lambda: FIT.encode(FRAME.assign(c=None)), "'c'.*missing"),
    "unseen missing number": (lambda: FIT.encode(FRAME.assign(x=np.nan)), "'x'.*missing"),
    "infinite to encode": (lambda: FIT.encode(FRAME.assign(x=-np.inf)), "'x'.*infinite"),
    "no generator": (lambda: TableCodec.fit(FRAME, KINDS, numerics=TIES).encode(FRAME), "'x'.*generator"),
    "NaN sample": (lambda: FIT.decode(Encoded(np.zeros((1, 1), int), np.full((1, 1), np.nan))), "'x'.*NaN"),
    "code out of range": (lambda: FIT.decode(Encoded(np.full((1, 1), 2), np.zeros((1, 1)))), "'c'.*\\[0, 2\\)"),
    "wrong width": (lambda: FIT.decode(Encoded(np.zeros((1, 2), int), np.zeros((1, 1)))), "1 code and 1 number"),
    "unequal rows": (lambda: Encoded(np.zeros((1, 1)), np.zeros((2, 1))), "equally many rows"),
    "column twice": (lambda: TableCodec((*FIT.columns, FIT.columns[0])), "'x' appears twice"),
    "falling knots": (lambda: NumericColumn.from_quantiles("x", [2, 1], [0, 1]), "'x'"),
    "falling probabilities": (lambda: NumericColumn.from_quantiles("x", [1, 2], [1, 0]), "'x'.*rise"),
    "infinite bound": (lambda: NumericColumn.from_quantiles("x", [1, np.inf], [0, 1]), "'x'.*finite"),
    "missing in int64": (
        lambda: NumericColumn.from_quantiles("x", [1, 2], [0, 1], dtype="int64", missing=True), "'x'.*Int64"
    ),
    "missing in bool": (
        lambda: CategoryColumn(name="c", vocabulary=(True,), dtype="bool", missing=True), "'c'.*nullable"
    ),
    "empty vocabulary": (lambda: CategoryColumn(name="c", vocabulary=()), "'c'.*empty"),
    "label twice": (lambda: CategoryColumn(name="c", vocabulary=("a", "a")), "'c'.*twice"),
    "missing label in vocabulary": (lambda: CategoryColumn(name="c", vocabulary=("a", None)), "'c'.*None"),
    "unknown home": (lambda: CategoryColumn(name="c", vocabulary=("a",), other="b"), "'c'.*'b'"),
    "missing class": (lambda: LabelCodec.fit(pd.Series(["a", None], name="y")), "'y'.*1 missing"),
    "unknown class": (lambda: LabelCodec.fit(pd.Series(["a"], name="y")).encode(pd.Series(["b"])), "'y'.*'b'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()
