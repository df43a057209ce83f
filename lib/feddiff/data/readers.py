"""The known data sets' files as their publishers write them, each turned into a clean table.

Every reader takes the file's bytes; what it leaves out or mends is said in its docstring. The caller checks columns
and row counts.
"""

import io
import zipfile

import numpy as np
import pandas as pd

ADULT = ("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship",
         "race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income")
CREDIT = ("LIMIT_BAL", "SEX", "EDUCATION", "MARRIAGE", "AGE", "PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6",
          *(f"BILL_AMT{month}" for month in range(1, 7)), *(f"PAY_AMT{month}" for month in range(1, 7)),
          "default.payment.next.month")
PAYMENTS = ("fm", "check_date", "department_title", "character_title", "sub_obj_title", "vendor_name",
            "contract_description", "transaction_amount", "doc_ref_no_prefix_definition")
ABALONE = ("Sex", "Length", "Diameter", "Height", "Whole weight", "Shucked weight", "Viscera weight", "Shell weight",
           "Rings")
KDD = tuple("""duration protocol_type service flag src_bytes dst_bytes land wrong_fragment urgent hot num_failed_logins
logged_in num_compromised root_shell su_attempted num_root num_file_creations num_shells num_access_files
num_outbound_cmds is_host_login is_guest_login count srv_count serror_rate srv_serror_rate rerror_rate srv_rerror_rate
same_srv_rate diff_srv_rate srv_diff_host_rate dst_host_count dst_host_srv_count dst_host_same_srv_rate
dst_host_diff_srv_rate dst_host_same_src_port_rate dst_host_srv_diff_host_rate dst_host_serror_rate
dst_host_srv_serror_rate dst_host_rerror_rate dst_host_srv_rerror_rate class""".split())
COVERTYPE = ("Elevation", "Aspect", "Slope", "Horizontal_Distance_To_Hydrology", "Vertical_Distance_To_Hydrology",
             "Horizontal_Distance_To_Roadways", "Hillshade_9am", "Hillshade_Noon", "Hillshade_3pm",
             "Horizontal_Distance_To_Fire_Points", *(f"Wilderness_Area_{area}" for area in range(4)),
             *(f"Soil_Type_{soil}" for soil in range(40)), "Cover_Type")


def adult(raw: bytes) -> pd.DataFrame:
    """Adult's adult.data: no header, blanks after commas, an empty last line; "?" stays a level of its own.

    `education-num` is left out: it numbers the levels of `education` one to one, and a model that draws the two
    apart would be charged for a copy.
    """
    return _adult(io.BytesIO(raw), skiprows=0)


def adult_full(raw: bytes) -> pd.DataFrame:
    """Adult's zip archive: adult.data, then adult.test without its comment line and its labels' trailing dot."""
    parts = [_adult(_member(raw, "adult.data"), skiprows=0), _adult(_member(raw, "adult.test"), skiprows=1)]
    return pd.concat(parts, ignore_index=True)


def _adult(handle, skiprows: int) -> pd.DataFrame:
    frame = pd.read_csv(handle, header=None, names=list(ADULT), skipinitialspace=True, skiprows=skiprows,
                        keep_default_na=False)
    frame["income"] = frame["income"].str.rstrip(".")
    return frame.drop(columns="education-num")


def bank_marketing(raw: bytes) -> pd.DataFrame:
    """Bank Marketing's bank.csv (comma edition with an `id` column, which is left out)."""
    return pd.read_csv(io.BytesIO(raw), keep_default_na=False).drop(columns="id")


def marketing_full(raw: bytes) -> pd.DataFrame:
    """Bank Marketing's archive: bank.zip inside the zip, bank-full.csv inside that, separated by semicolons."""
    handle = io.BytesIO(raw)
    if "bank.zip" in zipfile.ZipFile(handle).namelist():
        handle = _member(raw, "bank.zip")
    return pd.read_csv(_member(handle.getvalue(), "bank-full.csv"), sep=";", keep_default_na=False)


def credit_default(raw: bytes) -> pd.DataFrame:
    """Credit Default as CSV: Kaggle's edition (named columns) or UCI's data.csv (X1 ... X23, Y); the ID is left out.

    The two have the same 30,000 rows in the same order; amounts, written as 1e+05 or 100000.0 here and there, become
    whole numbers.
    """
    frame = pd.read_csv(io.BytesIO(raw))
    if "Y" in frame.columns:
        frame = frame.rename(columns={**{f"X{i}": name for i, name in enumerate(CREDIT[:-1], 1)}, "Y": CREDIT[-1]})
    absent = [name for name in CREDIT if name not in frame.columns]
    if absent:
        raise ValueError(f"column {absent[0]!r} is missing from the Credit Default file; it has {list(frame.columns)}")
    return frame[list(CREDIT)].astype(np.int64)


def philadelphia(raw: bytes) -> pd.DataFrame:
    """City Payments FY2017: the seven categories, the amount and the label that the authors' code uses.

    238,894 rows: the file has 238,895 lines, one of them the header, and no quoted line break, so every reader that
    honours quotes (Python's csv, both of pandas' engines) agrees; without quotes it does not parse. The 51 rows
    without a payment type get the type "NA", as in the authors' code; a missing contract stays missing.
    """
    frame = pd.read_csv(_member(raw, "city_payments_fy2017.csv"), usecols=list(PAYMENTS), low_memory=False)
    frame = frame[list(PAYMENTS)]
    frame["doc_ref_no_prefix_definition"] = frame["doc_ref_no_prefix_definition"].fillna("NA")
    return frame


def cardio(raw: bytes) -> pd.DataFrame:
    """Cardiovascular disease, separated by semicolons; the id is left out, blank cells stay missing."""
    return pd.read_csv(io.BytesIO(raw), sep=";").drop(columns="id")


def churn(raw: bytes) -> pd.DataFrame:
    """Bank churn: all 14 columns, row number and identifiers included, as the third paper counts them.

    A row beyond the 10,000th, which some copies carry as an invented customer with flags outside {0, 1}, is left out.
    """
    frame = pd.read_csv(io.BytesIO(raw))
    return frame[frame["RowNumber"] <= 10_000].reset_index(drop=True)


def heloc(raw: bytes) -> pd.DataFrame:
    """FICO HELOC: 24 columns; a column `Probabilities`, some model's output in some copies, is left out."""
    return pd.read_csv(io.BytesIO(raw)).drop(columns="Probabilities", errors="ignore")


def loan(raw: bytes) -> pd.DataFrame:
    """Bank personal loan: the ID is left out."""
    return pd.read_csv(io.BytesIO(raw), encoding="utf-8-sig").drop(columns="ID")


def intrusion(raw: bytes) -> pd.DataFrame:
    """NSL-KDD's KDDTest+.txt: no header; the difficulty score is left out, the attack names become "anomaly"."""
    frame = pd.read_csv(io.BytesIO(raw), header=None, names=[*KDD, "difficulty"]).drop(columns="difficulty")
    frame["class"] = np.where(frame["class"] == "normal", "normal", "anomaly")
    return frame


def abalone(raw: bytes) -> pd.DataFrame:
    """Abalone: UCI's archive (abalone.data, no header) or a CSV edition with the same nine columns and a header."""
    if raw[:2] == b"PK":
        return pd.read_csv(_member(raw, "abalone.data"), header=None, names=list(ABALONE))
    return pd.read_csv(io.BytesIO(raw), header=0, names=list(ABALONE))


def diabetes(raw: bytes) -> pd.DataFrame:
    """Pima Indians diabetes, the CSV with a header; zeros that stand for "not measured" are left as they are."""
    return pd.read_csv(io.BytesIO(raw))


def covertype(raw: bytes) -> pd.DataFrame:
    """Covertype's covtype.data.gz: no header, named as scikit-learn names the columns."""
    return pd.read_csv(io.BytesIO(raw), compression="gzip", header=None, names=list(COVERTYPE))


def _member(raw: bytes, name: str) -> io.BytesIO:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return io.BytesIO(archive.read(name))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"the archive does not hold {name!r} ({error})") from error
