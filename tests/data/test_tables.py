"""Known tables by name, embedded files, hold-out split, and what `describe` says."""

import importlib.resources
import hashlib
import re

import numpy as np
import pandas as pd
import pytest

from feddiff.data import known, tables
from feddiff.data.tables import Table, describe, load, split
from feddiff.seeds import numpy_generator

EMBEDDED = {
    "adult": (32_561, 14, 9, "income"),
    "bank-marketing": (4_521, 17, 10, "y"),
    "breast-cancer": (569, 31, 1, "target"),
    "wine": (178, 14, 1, "target"),
    "iris": (150, 5, 1, "target"),
    "digits": (1_797, 65, 1, "target"),
}


@pytest.mark.parametrize("name", EMBEDDED)
def test_embedded_tables_load_without_folder_or_network(name, monkeypatch):
    monkeypatch.delenv("FEDDIFF_DATA", raising=False)
    rows, columns, categories, target = EMBEDDED[name]
    table = load(name)
    assert (len(table), table.frame.shape[1], table.target) == (rows, columns, target)
    assert isinstance(table.frame.index, pd.RangeIndex) and table.source == "embedded" and table.name == name
    assert list(table.kinds.values()).count("categorical") == categories and list(table.kinds) == list(table.frame)
    assert target not in table.features and len(table.features) == columns - 1
    assert re.fullmatch("[0-9a-f]{64}", table.sha256)
    assert not table.frame.isna().any(axis=None)


def test_adult_is_clean():
    table = load("adult")
    text = table.frame.select_dtypes(object)
    assert all((text[name] == text[name].str.strip()).all() for name in text)
    levels = {"workclass": 9, "education": 16, "marital-status": 7, "occupation": 15, "relationship": 6, "race": 5,
              "sex": 2, "native-country": 42, "income": 2}
    assert table.frame[list(levels)].nunique().to_dict() == levels
    assert (table.frame["workclass"] == "?").sum() == 1836
    assert table.frame["income"].value_counts().to_dict() == {"<=50K": 24_720, ">50K": 7_841}
    assert "education-num" not in table.frame
    numbers = [name for name, kind in table.kinds.items() if kind == "integer"]
    assert numbers == ["age", "fnlwgt", "capital-gain", "capital-loss", "hours-per-week"]
    assert (table.frame[numbers].dtypes == np.int64).all()


def test_bank_marketing_is_clean():
    table = load("bank-marketing")
    assert table.frame["y"].value_counts().to_dict() == {"no": 4_000, "yes": 521}
    assert "id" not in table.frame and (table.frame["pdays"] == -1).sum() == 3_705


def test_embedded_files_are_small_and_described():
    folder = importlib.resources.files("feddiff.data") / "embedded"
    readme = (folder / "README.md").read_text()
    files = [file for file in folder.iterdir() if file.name != "README.md"]
    assert sorted(file.name for file in files) == ["adult-uci.csv.gz", "bank-uci.csv.gz", "mnist_5k.csv.gz"]
    assert sum(len(file.read_bytes()) for file in folder.iterdir()) < 4_000_000
    for file in files:
        row = next(line for line in readme.splitlines() if f"`{file.name}`" in line)
        assert hashlib.sha256(file.read_bytes()).hexdigest() in row and "CC BY" in row


def test_a_damaged_embedded_file_is_refused(tmp_path, monkeypatch):
    raw = bytearray((importlib.resources.files("feddiff.data") / "embedded/bank-uci.csv.gz").read_bytes())
    raw[100] ^= 1
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded/bank-uci.csv.gz").write_bytes(raw)
    monkeypatch.setattr(known.importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match="bank-marketing.*sha256"):
        load("bank-marketing")


def test_target_and_kinds_of_a_known_table_can_be_overridden():
    table = load("adult", target="sex", kinds={"age": "categorical"})
    assert table.target == "sex" and table.kinds["age"] == "categorical" and "income" in table.features


def test_describe_names_every_column():
    description = describe(load("adult")).set_index("column")
    assert list(description.index) == list(load("adult").frame.columns)
    assert description.loc["income", "role"] == "target" and description.loc["age", "role"] == "feature"
    assert description.loc["age", ["kind", "minimum", "maximum", "missing"]].tolist() == ["integer", 17, 90, 0]
    assert description.loc["education", "levels"] == 16 and np.isnan(description.loc["education", "minimum"])
    assert (description["warnings"] == "").all()


def toy(rows=1000, share=0.1) -> Table:
    frame = pd.DataFrame({"row": np.arange(rows), "y": np.arange(rows) < share * rows})
    return Table(frame, "y", {"row": "integer", "y": "boolean"}, "toy", "file", "0" * 64)


def test_split_is_disjoint_exhaustive_stratified_and_deterministic():
    table = toy()
    train, test = split(table, 0.25, numpy_generator(1))
    assert len(test) == 250 and sorted([*train.frame["row"], *test.frame["row"]]) == list(range(1000))
    assert test.frame["y"].sum() == 25 and train.frame["y"].sum() == 75
    assert train.kinds == table.kinds and isinstance(test.frame.index, pd.RangeIndex)
    again = split(table, 0.25, numpy_generator(1))[1]
    pd.testing.assert_frame_equal(again.frame, test.frame)
    assert not split(table, 0.25, numpy_generator(2))[1].frame.equals(test.frame)


def test_split_without_stratification_varies():
    counts = [split(toy(), 0.25, numpy_generator(seed), stratify=False)[1].frame["y"].sum() for seed in range(40)]
    # Hypergeometric: mean 25, standard deviation 4.1.
    assert abs(np.mean(counts) - 25) < 2.5 and 2.5 < np.std(counts) < 6


def test_split_of_a_numeric_target_and_of_rare_classes():
    table = toy()
    regression = Table(table.frame, "row", table.kinds, "toy", "file", "0" * 64)
    assert [len(part) for part in split(regression, 0.3, numpy_generator(1))] == [700, 300]
    train, test = split(toy(share=0.003), 0.2, numpy_generator(1))
    assert len(test) == 200 and train.frame["y"].sum() + test.frame["y"].sum() == 3


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1e-9, float("nan")])
def test_split_refuses_empty_parts(fraction):
    with pytest.raises(ValueError, match="test_fraction"):
        split(toy(), fraction, numpy_generator(1))


def test_select_takes_positions_and_masks():
    assert toy().select(np.array([5, 3])).frame["row"].tolist() == [5, 3]
    assert len(toy().select(np.arange(1000) < 7)) == 7


def test_a_table_refuses_kinds_that_do_not_match():
    with pytest.raises(ValueError, match="kinds"):
        Table(toy().frame, "y", {"y": "boolean"}, "toy", "file", "0" * 64)
    with pytest.raises(ValueError, match="'z'"):
        Table(toy().frame, "z", toy().kinds, "toy", "file", "0" * 64)


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'adlut'.*adult.*credit-default"):
        load("adlut")
    assert set(EMBEDDED) < set(tables.names())
