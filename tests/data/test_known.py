"""Readers of the known data sets on small files in the publishers' format; the real files where FEDDIFF_DATA is set."""

import gzip
import hashlib
import io
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feddiff.data import known, tables
from feddiff.data.codec import TableCodec
from feddiff.data.readers import CREDIT, KDD
from feddiff.seeds import numpy_generator

ADULT_ROW = "39, State-gov, 77516, Bachelors, 13, Never-married, ?, Not-in-family, White, Male, 2174, 0, 40, Cuba, "


def archive(**members: bytes | str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def credit(header) -> bytes:
    row = ["1", "20000", "2", "2", "1", "24", "2", "2", "-1", "-1", "-2", "-2", "3913", "3102", "689", "0", "0", "-7",
           "1e+05", "689.0", "0", "0", "0", "0", "1"]
    return (",".join(header) + "\n" + ",".join(row) + "\n").encode()


KDD_ROW = "0,tcp,private,REJ," + ",".join(["0"] * 37)
PAYMENT_HEADER = ("fy,fm,check_date,document_no,dept,department_title,char_,character_title,sub_obj,sub_obj_title,"
                  "vendor_name,doc_ref_no_prefix,doc_ref_no_prefix_definition,contract_number,contract_description,"
                  "transaction_amount\r\n")
FILES = {
    "adult-full": archive(**{
        "adult.data": f"{ADULT_ROW}<=50K\n{ADULT_ROW}>50K\n\n",
        "adult.test": f"|1x3 Cross validator\n{ADULT_ROW}<=50K.\n\n",
    }),
    "marketing-full": archive(**{"bank.zip": archive(**{
        "bank-full.csv": '"age";"job";"marital";"education";"default";"balance";"housing";"loan";"contact";"day";'
                         '"month";"duration";"campaign";"pdays";"previous";"poutcome";"y"\n'
                         '58;"management";"married";"tertiary";"no";2143;"yes";"no";"unknown";5;"may";261;1;-1;0;'
                         '"unknown";"no"\n'})}),
    "credit-default": credit(['"ID"', *(f'"{name}"' for name in CREDIT)]),
    "philadelphia": archive(**{"city_payments_fy2017.csv": PAYMENT_HEADER
                               + '2017,10,2017-04-12,C1,42,42 COMMERCE,2,02 SERVICES,231,MEALS,"JOE, ""EAT""",PVXX,'
                                 'payment voucher,,,66.82\r\n'
                               + "2017,12,2017-06-09,C2,26,26 LICENSES,2,02 SERVICES,211,TRAVEL,L & I Â FUND,,,171,X,"
                                 "-1.5\r\n"}),
    "cardio": b"id;age;gender;height;weight;ap_hi;ap_lo;cholesterol;gluc;smoke;alco;active;cardio\n"
              b"0;18393;2;168;62.0;;80;1;1;0;0;1;0\n",
    "churn": b"RowNumber,CustomerId,Surname,CreditScore,Geography,Gender,Age,Tenure,Balance,NumOfProducts,HasCrCard,"
             b"IsActiveMember,EstimatedSalary,Exited\n1,15634602,Hargrave,619,France,Female,42,2,0,1,1,1,101348.88,1\n"
             b"10001,4365637272,doe,1,France,Male,5,0,23,11,11,23,112.0,1\n",
    "heloc": b"RiskPerformance,ExternalRiskEstimate,Probabilities\nBad,55,0.2\n",
    "loan": b"\xef\xbb\xbfID,Age,Personal Loan\r\n1,25,0\r\n",
    "intrusion": f"{KDD_ROW},neptune,21\n{KDD_ROW},normal,21\n".encode(),
    "abalone": archive(**{"abalone.data": "M,0.455,0.365,0.095,0.514,0.2245,0.101,0.15,15\n"}),
    "diabetes": b"Pregnancies,Glucose,Outcome\n10,115,0\n",
    "covertype": gzip.compress((",".join(str(value) for value in range(55)) + "\n").encode()),
}
EXPECTED_ROWS = {"adult-full": 3, "philadelphia": 2, "intrusion": 2}


def read(name: str) -> pd.DataFrame:
    return known.DATASETS[name].read(FILES[name])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Put a small file in place of each original, with its row count and checksum, into FEDDIFF_DATA."""
    monkeypatch.setenv("FEDDIFF_DATA", str(tmp_path))
    monkeypatch.setenv("FEDDIFF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tabular").mkdir()
    for name, raw in FILES.items():
        dataset = known.DATASETS[name]
        (tmp_path / dataset.file).write_bytes(raw)
        small = replace(dataset, rows=EXPECTED_ROWS.get(name, 1), sha256=hashlib.sha256(raw).hexdigest())
        monkeypatch.setitem(known.DATASETS, name, small)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_every_downloadable_set_loads_from_a_file_in_its_publishers_format(name, folder):
    table = tables.load(name)
    assert table.source == "FEDDIFF_DATA" and table.name == name and len(table) == EXPECTED_ROWS.get(name, 1)
    assert table.sha256 == hashlib.sha256(FILES[name]).hexdigest()
    assert table.kinds[table.target] == "categorical" and list(table.kinds) == list(table.frame)


def test_every_known_set_is_tested():
    assert {name for name, dataset in known.DATASETS.items() if not dataset.package} == set(FILES)


def test_adult_test_labels_lose_their_dot_and_the_comment_line():
    frame = read("adult-full")
    assert frame["income"].tolist() == ["<=50K", ">50K", "<=50K"] and frame["age"].tolist() == [39] * 3
    assert frame["occupation"].tolist() == ["?"] * 3 and frame["sex"].tolist() == ["Male"] * 3


def test_credit_default_in_both_editions(folder):
    uci = credit(["ID", *(f"X{i}" for i in range(1, 24)), "Y"])
    pd.testing.assert_frame_equal(known.DATASETS["credit-default"].read(uci), read("credit-default"))
    table = tables.load("credit-default")
    assert list(table.kinds.values()).count("integer") == 14 and len(table.features) == 23
    assert [name for name in table.features if table.kinds[name] == "categorical"] == [
        "SEX", "EDUCATION", "MARRIAGE", "PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"]
    assert table.kinds["AGE"] == "integer" and table.frame["PAY_AMT1"].tolist() == [100_000]
    assert (table.frame.dtypes == np.int64).all()
    assert tables.load("credit-default", kinds={"AGE": "categorical"}).kinds["AGE"] == "categorical"
    with pytest.raises(ValueError, match="'AGE'"):
        known.DATASETS["credit-default"].read(FILES["credit-default"].replace(b'"AGE"', b'"AGES"'))


def test_philadelphia_quotes_and_missing_types():
    frame = read("philadelphia")
    assert frame["vendor_name"].tolist() == ['JOE, "EAT"', "L & I Â FUND"]
    assert frame["doc_ref_no_prefix_definition"].tolist() == ["payment voucher", "NA"]
    assert frame["contract_description"].isna().tolist() == [True, False]


def test_smaller_repairs():
    assert "Probabilities" not in read("heloc") and "ID" not in read("loan") and "id" not in read("cardio")
    assert read("churn")["Surname"].tolist() == ["Hargrave"]
    assert np.isnan(read("cardio")["ap_hi"][0])
    assert read("intrusion")["class"].tolist() == ["anomaly", "normal"] and len(KDD) == read("intrusion").shape[1] == 42
    header = b"Sex,Length,Diameter,Height,Whole.weight,Shucked.weight,Viscera.weight,Shell.weight,Rings\n"
    other = known.DATASETS["abalone"].read(header + b'"M",0.455,0.365,0.095,0.514,0.2245,0.101,0.15,15\n')
    pd.testing.assert_frame_equal(other, read("abalone"))
    assert read("covertype")["Cover_Type"].tolist() == [54]


def test_without_folder_the_publisher_is_asked_once(folder, monkeypatch):
    monkeypatch.delenv("FEDDIFF_DATA")
    asked = []

    def publisher(url, path, sha256):
        asked.append((url, sha256))
        path.parent.mkdir(parents=True)
        path.write_bytes(FILES["credit-default"])

    monkeypatch.setattr(known, "download", publisher)
    table = tables.load("credit-default")
    assert table.source == "download" and asked == [("https://archive.ics.uci.edu/static/public/350/data.csv", None)]


def test_a_publisher_out_of_reach_says_where_to_put_the_file(folder, monkeypatch):
    (folder / "tabular/adult.zip").unlink()

    def publisher(url, path, sha256):
        raise ConnectionError(f"could not download {url}")

    monkeypatch.setattr(known, "download", publisher)
    with pytest.raises(ConnectionError, match="adult-full.*2/adult.zip.*tabular/adult.zip.*FEDDIFF_DATA"):
        tables.load("adult-full")


@pytest.mark.parametrize("name", ["cardio", "churn", "heloc", "loan", "intrusion", "diabetes"])
def test_sets_without_an_address_say_how_to_get_them(name, folder):
    path = folder / known.DATASETS[name].file
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{name}.*https://.*{re.escape(path.name)}.*FEDDIFF_DATA"):
        tables.load(name)


def test_a_folder_that_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDDIFF_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match="FEDDIFF_DATA.*absent"):
        tables.load("credit-default")


def test_a_changed_original_is_refused_another_edition_is_announced(folder):
    (folder / "tabular/adult.zip").write_bytes(FILES["adult-full"] + b" ")
    with pytest.raises(ValueError, match="adult-full.*sha256"):
        tables.load("adult-full")
    (folder / "tabular/diabetes.csv").write_bytes(FILES["diabetes"].replace(b"\n", b"\r\n"))
    with pytest.warns(UserWarning, match="diabetes.*another edition"):
        assert len(tables.load("diabetes")) == 1


def test_wrong_rows_columns_and_archives_are_refused(folder, monkeypatch):
    def change(name, raw):
        (folder / known.DATASETS[name].file).write_bytes(raw)
        monkeypatch.setitem(known.DATASETS, name, replace(
            known.DATASETS[name], sha256=hashlib.sha256(raw).hexdigest()))

    change("diabetes", FILES["diabetes"] + b"1,2,0\n")
    with pytest.raises(ValueError, match="diabetes.*2 rows, expected 1"):
        tables.load("diabetes")
    change("diabetes", FILES["diabetes"].replace(b"Outcome", b"Result"))
    with pytest.raises(ValueError, match="diabetes.*'Outcome'"):
        tables.load("diabetes")
    change("adult-full", archive(**{"adult.data": ADULT_ROW + "<=50K\n"}))
    with pytest.raises(ValueError, match="adult.test"):
        tables.load("adult-full")
    change("adult-full", b"<html>not found</html>")
    with pytest.raises(ValueError, match="archive"):
        tables.load("adult-full")


# The originals, where FEDDIFF_DATA holds them: rows, columns, categorical columns, missing cells.
ORIGINALS = {
    "adult-full": (48_842, 14, 9, 0),
    "marketing-full": (45_211, 17, 10, 0),
    "credit-default": (30_000, 24, 10, 0),
    "philadelphia": (238_894, 9, 8, 123_248),
    "cardio": (70_000, 12, 7, 8),
    "churn": (10_000, 14, 8, 0),
    "heloc": (10_459, 24, 12, 0),
    "loan": (5_000, 13, 7, 0),
    "intrusion": (22_544, 42, 10, 0),
    "abalone": (4_177, 9, 2, 0),
    "diabetes": (768, 9, 2, 0),
    "covertype": (581_012, 55, 45, 0),
}


def _present() -> list[str]:
    root = os.environ.get("FEDDIFF_DATA", "")
    return [name for name in ORIGINALS if root and (Path(root) / known.DATASETS[name].file).is_file()]


# Collected only where there are originals: an empty parametrisation would show up as a skipped test.
if PRESENT := _present():

    @pytest.mark.parametrize("name", PRESENT)
    def test_the_original_file(name):
        rows, columns, categories, missing = ORIGINALS[name]
        table = tables.load(name)
        assert table.source == "FEDDIFF_DATA" and len(table) == rows and table.frame.shape[1] == columns
        assert list(table.kinds.values()).count("categorical") == categories
        assert int(table.frame.isna().sum().sum()) == missing
        codec = TableCodec.fit(table.frame, table.kinds, columns=table.features, numerics="quantile-ties")
        decoded = codec.decode(codec.encode(table.frame, numpy_generator(1)))
        pd.testing.assert_frame_equal(decoded, table.frame[table.features], check_exact=True)
