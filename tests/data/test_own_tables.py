"""A user's own CSV or Parquet file: what is inferred, what may be overridden, and what is refused, by name."""

import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feddiff.data.codec import TableCodec
from feddiff.data.tables import describe, load
from feddiff.seeds import numpy_generator

ROWS = 200


def good() -> pd.DataFrame:
    rng = numpy_generator(1, "own table")
    return pd.DataFrame({
        "amount": rng.normal(100, 30, ROWS).round(2),
        "count": rng.integers(0, 500, ROWS),
        "code": rng.integers(1, 5, ROWS),
        "town": rng.choice(["Köln", "Ulm", "Bonn"], ROWS),
        "member": rng.random(ROWS) < 0.5,
        "income": np.where(rng.random(ROWS) < 0.2, np.nan, rng.normal(size=ROWS)),
        "children": np.where(rng.random(ROWS) < 0.2, np.nan, rng.integers(0, 100, ROWS)),
        "street": np.where(rng.random(ROWS) < 0.2, None, rng.choice(["A", "B"], ROWS)),
        "label": rng.integers(0, 2, ROWS),
    })


EXPECTED = {"amount": "numeric", "count": "integer", "code": "categorical", "town": "categorical",
            "member": "boolean", "income": "numeric", "children": "integer", "street": "categorical",
            "label": "categorical"}


def same(left: pd.DataFrame, right: pd.DataFrame, **options) -> None:
    # An absent text is None in one file format and NaN in the other.
    pd.testing.assert_frame_equal(left.fillna({"street": ""}), right.fillna({"street": ""}), **options)


@pytest.fixture
def write(tmp_path):
    def write_csv(frame=None, name="own.csv", encoding="utf-8", **options):
        path = tmp_path / name
        frame = good() if frame is None else frame
        if isinstance(frame, (str, bytes)):
            path.write_bytes(frame.encode(encoding) if isinstance(frame, str) else frame)
        elif name.endswith("parquet"):
            frame.to_parquet(path, **options)
        else:
            frame.to_csv(path, **({"index": False, "encoding": encoding} | options))
        return path

    return write_csv


@pytest.mark.parametrize("name", ["own.csv", "own.csv.gz", "own.parquet", "own.tsv", "OWN.CSV"])
def test_kinds_are_inferred(write, name):
    options = {"sep": "\t"} if name.endswith("tsv") else {}
    table = load(write(name=name, **options), target="label")
    assert table.kinds == EXPECTED and table.target == "label"
    assert table.source == "file" and table.name.lower().startswith("own") and len(table.sha256) == 64
    same(table.frame, good(), check_dtype=name.endswith("parquet"))
    seen = describe(table).set_index("column")
    assert seen.loc["income", "missing"] == good()["income"].isna().sum() > 0 and seen.loc["town", "levels"] == 3


def test_a_file_encodes_and_decodes_to_itself(write):
    table = load(write(), target="label")
    codec = TableCodec.fit(table.frame, table.kinds, columns=table.features, numerics="quantile-ties")
    decoded = codec.decode(codec.encode(table.frame, numpy_generator(1)))
    pd.testing.assert_frame_equal(decoded, table.frame[table.features], check_exact=True)


def test_parquet_keeps_dtypes(write):
    frame = good().astype({"town": pd.CategoricalDtype(["Ulm", "Bonn", "Köln"], ordered=True), "children": "Int64",
                           "street": "string", "amount": "float32", "code": "int8"})
    table = load(write(frame, name="own.parquet"), target="label")
    pd.testing.assert_frame_equal(table.frame, frame)
    assert table.kinds == EXPECTED
    codec = TableCodec.fit(table.frame, table.kinds, numerics="quantile-ties")
    pd.testing.assert_frame_equal(codec.decode(codec.encode(frame, numpy_generator(1))), frame, check_exact=True)


def test_parquet_keeps_a_named_index_as_a_column(write):
    table = load(write(good().rename_axis("visit"), name="own.parquet"))
    assert table.frame.columns[0] == "visit" and table.frame["visit"].tolist() == list(range(ROWS))


def test_overrides(write):
    kinds = {"code": "integer", "label": "boolean", "count": "categorical"}
    table = load(write(), target="label", kinds=kinds)
    assert table.kinds == EXPECTED | kinds


def test_small_tables_keep_numbers_as_numbers(write):
    frame = pd.DataFrame({"x": np.arange(20), "z": np.arange(20) % 7, "flag": np.arange(20) % 2})
    assert load(write(frame)).kinds == {"x": "integer", "z": "integer", "flag": "categorical"}


def test_separator_encoding_and_byte_order_mark(write):
    assert load(write(sep=";"), separator=";").kinds == EXPECTED
    same(load(write(encoding="latin-1"), encoding="latin-1").frame, good())
    assert list(load(write(encoding="utf-8-sig")).frame) == list(good())


def test_thousands_of_levels_warn_and_are_described(write):
    number = np.arange(3000)
    many = pd.DataFrame({"name": [f"n{i}" for i in number], "x": number, "y": number % 2})
    with pytest.warns(UserWarning, match="'name'.*3,000 levels"):
        table = load(write(many), target="y")
    assert "3,000 levels" in describe(table).set_index("column").loc["name", "warnings"]
    almost = many.assign(name=[str(i) if i else "n/k" for i in range(3000)])
    with pytest.warns(UserWarning, match="'name'.*mostly numbers.*'n/k'"):
        load(write(almost), target="y")


def test_a_clean_file_does_not_warn(write):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(write(), target="label")


# name of the case: (content, file name, arguments of load, message)
REFUSED = {
    "unknown target": (good(), "own.csv", {"target": "labl"}, "'labl'.*'label'"),
    "target with holes": (good(), "own.csv", {"target": "street"}, r"'street' has \d+ missing"),
    "constant column": (good().assign(town="Ulm"), "own.csv", {}, "'town'.*constant.*'Ulm'"),
    "constant number": (good().assign(count=3), "own.csv", {}, "'count'.*constant"),
    "all missing": (good().assign(income=np.nan), "own.csv", {}, "'income'.*missing"),
    "duplicate names": ("a,b,a\n" + "1,2,3\n" * 20, "own.csv", {}, "'a' appears 2 times"),
    "unnamed column": (good(), "index.csv", {}, "column 1 has no name"),
    "too few rows": (good()[:9], "own.csv", {}, "9 rows; at least 10"),
    "header only": (good()[:0], "own.csv", {}, "0 rows"),
    "infinity": (good().assign(amount=[np.inf] + [1.5] * (ROWS - 1)), "own.csv", {}, "'amount'.*infinite"),
    "wrong encoding": (good().to_csv(index=False).encode("latin-1"), "own.csv", {}, "'town'.*'Köln'.*latin-1"),
    "wrong encoding of a name": ("Größe,b\n1,2\n".encode("latin-1"), "own.csv", {}, "'Größe'.*encoding="),
    "unknown encoding": (good(), "own.csv", {"encoding": "utf-9"}, "utf-9"),
    "unknown kind": (good(), "own.csv", {"kinds": {"town": "word"}}, "'town'.*'word'"),
    "kind for an unknown column": (good(), "own.csv", {"kinds": {"twon": "categorical"}}, "'twon'.*'town'"),
    "number kind for text": (good(), "own.csv", {"kinds": {"town": "numeric"}}, "'town'.*needs numbers"),
    "integer kind for fractions": (good(), "own.csv", {"kinds": {"amount": "integer"}}, "'amount'.*whole"),
    "boolean kind for three values": (good(), "own.csv", {"kinds": {"town": "boolean"}}, "'town'.*3"),
    "unsupported ending": (b"PK", "own.xlsx", {}, r"own\.xlsx.*\.csv"),
    "empty file": (b"", "own.csv", {}, "own.csv.*empty"),
    "blank file": (b"\n\n", "own.csv", {}, "own.csv.*no columns"),
    "wrong separator": (good().to_csv(index=False, sep=";"), "own.csv", {}, "separator="),
    "ragged rows": ("a,b\n" + "1,2\n" * 20 + "1,2,3\n", "own.csv", {}, "own.csv.*line 22"),
    "rows longer than the header": ("a,b\n" + "1,2,3\n" * 20, "own.csv", {}, "own.csv.*header"),
    "not Parquet": (b"a,b\n1,2\n", "own.parquet", {}, "own.parquet.*not a Parquet"),
    "dates": (good().assign(day=pd.Timestamp(2020, 1, 1)), "own.parquet", {}, "'day'.*datetime64"),
    "nested cells": (good().assign(tags=[["x"]] * ROWS), "own.parquet", {}, "'tags'.*(list|ndarray)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case, write):
    content, name, arguments, message = REFUSED[case]
    options = {"index": True} if name == "index.csv" else {}
    with pytest.raises(ValueError, match=message):
        load(write(content, name=name, **options), **arguments)


def test_duplicate_names_in_parquet(tmp_path):
    pq.write_table(pa.Table.from_arrays([pa.array(range(20))] * 2, names=["a", "a"]), tmp_path / "own.parquet")
    with pytest.raises(ValueError, match="'a' appears 2 times"):
        load(tmp_path / "own.parquet")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.csv"):
        load(tmp_path / "absent.csv")
    with pytest.raises(FileNotFoundError, match="folder.csv"):
        (tmp_path / "folder.csv").mkdir()
        load(tmp_path / "folder.csv")
