"""Numbers as ordered cells: ties stay whole, codes come back in their cell, missing values and bad input."""

import numpy as np
import pandas as pd
import pytest

from feddiff.data.cells import CellCodec, cell_edges
from feddiff.data.codec import TableCodec

KINDS = {"gain": "integer", "age": "integer", "income": "numeric", "colour": "categorical"}


def frame(rows=3000):
    g = np.random.default_rng(0)
    return pd.DataFrame({
        "gain": np.where(g.random(rows) < 0.9, 0, g.integers(1, 9000, rows)),
        "age": g.integers(17, 90, rows),
        "colour": g.choice(["red", "blue"], rows),
        "income": np.where(g.random(rows) < 0.1, np.nan, g.lognormal(3, 1, rows).round(2)),
    })


def codec(cells=20, numerics="quantile-ties"):
    return CellCodec(TableCodec.fit(frame(), KINDS, numerics=numerics), cells)


def test_codes_are_ordered_cells_of_the_values_and_ties_are_whole():
    own, rows = codec(), frame()
    encoded = own.encode(rows, np.random.default_rng(1))
    assert encoded.numbers.shape == (len(rows), 0) and encoded.codes.shape[1] == len(own.levels) == 5
    assert own.code_columns == ("colour", "income is missing", "gain", "age", "income")
    assert own.ordinal == (False, False, True, True, True)
    for name in ("gain", "age"):
        codes = encoded.codes[:, own.code_columns.index(name)]
        ranges = rows.groupby(codes)[name].agg(["min", "max"])
        assert (ranges["max"].to_numpy()[:-1] < ranges["min"].to_numpy()[1:]).all(), "a value lies in two cells"
        assert codes.max() < own.levels[own.code_columns.index(name)]
    gain = encoded.codes[:, own.code_columns.index("gain")]
    assert rows.loc[gain == 0, "gain"].unique().tolist() == [0] and (gain[rows["gain"] == 0] == 0).all()


def test_decoding_returns_a_value_of_the_cell_with_schema_and_missing_values():
    own, rows = codec(), frame()
    encoded = own.encode(rows, np.random.default_rng(1))
    decoded = own.decode(encoded, np.random.default_rng(2))
    assert list(decoded.columns) == list(rows.columns) and (decoded.dtypes == rows.dtypes).all()
    assert decoded["colour"].equals(rows["colour"]) and (decoded["income"].isna() == rows["income"].isna()).all()
    again = own.encode(decoded, np.random.default_rng(3))
    # Decoded values are rounded, so a few cross into the neighbouring cell; none goes further.
    assert np.abs(again.codes - encoded.codes).max() <= 1 and (again.codes == encoded.codes).mean() > 0.97
    for name in ("gain", "age"):
        assert abs(decoded[name].mean() - rows[name].mean()) < 0.03 * rows[name].std()


def test_edges_rise_from_zero_to_one():
    for column in codec().base.columns:
        if column.name != "colour":
            edges = cell_edges(column, 20)
            assert edges[0] == 0 and edges[-1] == 1 and (np.diff(edges) > 0).all()


def test_other_codecs_and_single_cells_are_refused():
    with pytest.raises(ValueError, match="quantile-ties"):
        codec(numerics="quantile")
    with pytest.raises(ValueError, match="cells must be"):
        codec(cells=1)
