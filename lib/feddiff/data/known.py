"""The known data sets: where each comes from, under which licence, what its columns are, and how to get it."""

import gzip
import hashlib
import importlib.resources
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from sklearn import datasets as sklearn_datasets

from feddiff.data import readers
from feddiff.data.download import cache_folder, download

EMBEDDED = "feddiff.data"
# The third paper's typing rule, rebuilt from its counts: text, or few distinct values (any threshold in 31..44 does).
SILOFUSE_LEVELS = 40


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One known data set.

    rows: what the file must hold, checked at every load. categories: names of the categorical columns, or the number
    of distinct values up to which a number column is one (text columns always are). file: path below FEDDIFF_DATA.
    sha256: of that file as used here; publisher_sha256: of the file at `url` (None: the publisher's own file was not
    at hand when this was written, so a download is verified by its columns and row count). manual: how to get it
    where no public address may be used. package: importable home of `file`, for the data that come installed.
    """

    name: str
    title: str
    rows: int
    target: str
    read: Callable[[bytes], pd.DataFrame]
    categories: tuple[str, ...] | int
    licence: str
    page: str
    file: str = ""
    sha256: str | None = None
    url: str | None = None
    publisher_sha256: str | None = None
    manual: str = ""
    package: str = ""

    def categorical(self, frame: pd.DataFrame) -> list[str]:
        """Return the categorical columns of `frame`, the target among them."""
        if isinstance(self.categories, tuple):
            return [name for name in frame.columns if name in self.categories or name == self.target]
        return [name for name in frame.columns if name == self.target or frame[name].nunique() <= self.categories
                or not pd.api.types.is_numeric_dtype(frame[name].dtype)]


def fetch(dataset: Dataset) -> tuple[pd.DataFrame, str, str]:
    """Return (frame, source, sha256) of a known data set, from the first place that has it.

    The places: this package and scikit-learn; the folder named by FEDDIFF_DATA; the cache folder or the publisher.
    ValueError for a file with the wrong checksum, columns or row count, FileNotFoundError where it must be fetched by
    hand. Of data sets that circulate in several editions another one is accepted with a warning.
    """
    raw, source, origin = _bytes(dataset)
    digest = hashlib.sha256(raw).hexdigest()
    expected = dataset.publisher_sha256 if source == "download" else dataset.sha256
    if expected is not None and digest != expected:
        text = f"{dataset.name}: {origin} has the sha256 {digest}, expected {expected}"
        if dataset.publisher_sha256 is not None or source == "embedded":
            raise ValueError(f"{text}; replace it with the original file")
        warnings.warn(f"{text}: another edition than the one this project used", UserWarning, stacklevel=4)
    frame = dataset.read(raw)
    declared = dataset.categories if isinstance(dataset.categories, tuple) else ()
    absent = [name for name in (*declared, dataset.target) if name not in frame.columns]
    if absent:
        raise ValueError(f"{dataset.name}: {origin} has no column {absent[0]!r}; it has {list(frame.columns)}")
    if len(frame) != dataset.rows:
        raise ValueError(f"{dataset.name}: {origin} holds {len(frame):,} rows, expected {dataset.rows:,}")
    return frame, source, digest


def _bytes(dataset: Dataset) -> tuple[bytes, str, str]:
    if dataset.package:
        folder = importlib.resources.files(dataset.package)
        return (folder / dataset.file).read_bytes(), "embedded", f"{dataset.package}/{dataset.file}"
    root = os.environ.get("FEDDIFF_DATA", "")
    if root:
        if not Path(root).is_dir():
            raise FileNotFoundError(f"FEDDIFF_DATA names {root}, which is not a folder")
        path = Path(root) / dataset.file
        if path.is_file():
            return path.read_bytes(), "FEDDIFF_DATA", str(path)
    if dataset.url is None:
        raise FileNotFoundError(
            f"{dataset.name}: {dataset.title} has no address to download from ({dataset.licence}). {dataset.manual} "
            f"({dataset.page}), save it as {dataset.file} in a folder of your own and set FEDDIFF_DATA to that folder"
        )
    path = cache_folder() / dataset.name / Path(dataset.url).name
    try:
        download(dataset.url, path, sha256=dataset.publisher_sha256)
    except ConnectionError as error:
        raise ConnectionError(f"{dataset.name}: {error}; or save the file from {dataset.page} as {dataset.file} in a "
                              "folder of your own and set FEDDIFF_DATA to that folder") from error
    return path.read_bytes(), "download", str(path)


def _ungzip(read: Callable[[bytes], pd.DataFrame]) -> Callable[[bytes], pd.DataFrame]:
    return lambda raw: read(gzip.decompress(raw))


def _sklearn(loader: Callable) -> Callable[[bytes], pd.DataFrame]:
    def read(raw: bytes) -> pd.DataFrame:
        bunch = loader(as_frame=True)
        frame = bunch.data.copy()
        frame["target"] = bunch.target.to_numpy()
        return frame

    return read


ADULT_CATEGORIES = ("workclass", "education", "marital-status", "occupation", "relationship", "race", "sex",
                    "native-country")
BANK_CATEGORIES = ("job", "marital", "education", "default", "housing", "loan", "contact", "month", "poutcome")
UCI = "https://archive.ics.uci.edu"
CC_BY = "CC BY 4.0"
KAGGLE = "unknown licence"

_ALL = (
    Dataset(name="adult", title="Adult (census income), adult.data", rows=32_561, target="income",
            read=_ungzip(readers.adult), categories=ADULT_CATEGORIES, licence=CC_BY, page=f"{UCI}/dataset/2/adult",
            package=EMBEDDED, file="embedded/adult-uci.csv.gz",
            sha256="7a3c2aca1b8c03dc732da55d98daf17c562d95ea5dba29902549b43ba886b4cf"),
    Dataset(name="adult-full", title="Adult (census income), adult.data and adult.test", rows=48_842, target="income",
            read=readers.adult_full, categories=ADULT_CATEGORIES, licence=CC_BY, page=f"{UCI}/dataset/2/adult",
            file="tabular/adult.zip", sha256="7537312dd56c2b98035880805ce99e68183a30ee468aa5329d6df0fbb3cc21bb",
            url=f"{UCI}/static/public/2/adult.zip",
            publisher_sha256="7537312dd56c2b98035880805ce99e68183a30ee468aa5329d6df0fbb3cc21bb"),
    Dataset(name="bank-marketing", title="Bank Marketing, bank.csv", rows=4_521, target="y",
            read=_ungzip(readers.bank_marketing), categories=BANK_CATEGORIES, licence=CC_BY,
            page=f"{UCI}/dataset/222/bank+marketing", package=EMBEDDED, file="embedded/bank-uci.csv.gz",
            sha256="b0b8f7507192b58bdd963c33351d1f90f27704211ec30ef13b599b3347246ec9"),
    Dataset(name="marketing-full", title="Bank Marketing, bank-full.csv", rows=45_211, target="y",
            read=readers.marketing_full, categories=BANK_CATEGORIES, licence=CC_BY,
            page=f"{UCI}/dataset/222/bank+marketing", file="tabular/bank+marketing.zip",
            url=f"{UCI}/static/public/222/bank+marketing.zip"),
    Dataset(name="credit-default", title="Default of Credit Card Clients", rows=30_000,
            target="default.payment.next.month", read=readers.credit_default,
            categories=("SEX", "EDUCATION", "MARRIAGE", "PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"),
            licence=CC_BY, page=f"{UCI}/dataset/350/default+of+credit+card+clients", file="tabular/UCI_Credit_Card.csv",
            sha256="a0f0ab49d6326671d6cd83be5c88dcf18007025fe9a53ecd699119c871176ca1",
            url=f"{UCI}/static/public/350/data.csv"),
    Dataset(name="philadelphia", title="Philadelphia City Payments FY2017", rows=238_894,
            target="doc_ref_no_prefix_definition", read=readers.philadelphia, categories=readers.PAYMENTS[:7],
            licence="public, City of Philadelphia", page="https://opendataphilly.org/datasets/city-payments",
            file="tabular/city_payments_fy2017.csv.zip",
            sha256="2f1dbd5d93f7d4844b3a1f2765c75c83c9ac131cafd9bd7a76e5f99152f53495",
            # No stable address of the city's own yearly file is known; the authors' repository keeps a copy.
            url="https://raw.githubusercontent.com/sattarov/FedTabDiff/3e4d8fcb5ccb7a031c9eaca66564758c4e3fa6e4/data/"
                "city_payments_fy2017.csv.zip",
            publisher_sha256="2f1dbd5d93f7d4844b3a1f2765c75c83c9ac131cafd9bd7a76e5f99152f53495"),
    Dataset(name="cardio", title="Cardiovascular disease", rows=70_000, target="cardio", read=readers.cardio,
            categories=("gender", "cholesterol", "gluc", "smoke", "alco", "active"), licence=KAGGLE,
            page="https://www.kaggle.com/datasets/sulianova/cardiovascular-disease-dataset",
            file="tabular/cardio_train.csv", sha256="554fc4dd16819756dc5fd2cdaac20b4c20797b9126872d0878a4369993a34143",
            manual="Download cardio_train.csv from Kaggle"),
    Dataset(name="churn", title="Bank churn", rows=10_000, target="Exited", read=readers.churn,
            categories=("Surname", "Geography", "Gender", "Tenure", "NumOfProducts", "HasCrCard", "IsActiveMember"),
            licence=KAGGLE, page="https://www.kaggle.com/datasets/shrutimechlearn/churn-modelling",
            file="tabular/Churn_Modelling.csv",
            sha256="1ac3d183ebc84619a485d7e3ba1b056e93cd53ae04cee6676760eb415c451b6c",
            manual="Download Churn_Modelling.csv from Kaggle"),
    Dataset(name="heloc", title="FICO HELOC", rows=10_459, target="RiskPerformance", read=readers.heloc,
            categories=SILOFUSE_LEVELS, licence="FICO's terms",
            sha256="7839473f714ac45ba0d730f348ee47a572602c593951d62087d36eaef8a8de53",
            page="https://community.fico.com/s/explainable-machine-learning-challenge",
            file="tabular/heloc.csv", manual="Accept FICO's terms and download the HELOC data of the challenge"),
    Dataset(name="loan", title="Bank personal loan", rows=5_000, target="Personal Loan", read=readers.loan,
            categories=SILOFUSE_LEVELS, licence=KAGGLE,
            page="https://www.kaggle.com/datasets/krantiswalke/bank-personal-loan-modelling",
            file="tabular/Bank_Personal_Loan_Modelling.csv",
            sha256="f3f013a6e9376e87011d888d51081954b93b2c4ff0a23cabe4c360e2009cc91f",
            manual="Download Bank_Personal_Loan_Modelling.csv from Kaggle"),
    Dataset(name="intrusion", title="NSL-KDD test set", rows=22_544, target="class", read=readers.intrusion,
            categories=("protocol_type", "service", "flag", "land", "logged_in", "root_shell", "su_attempted",
                        "is_host_login", "is_guest_login"),
            licence="cite the authors", page="https://www.unb.ca/cic/datasets/nsl.html", file="tabular/KDDTest+.txt",
            sha256="fa46b0935342616aa83b7c2578db355b6a7aaabbc492248172c7a1e8b7ab8f84",
            manual="Fill in the form of the Canadian Institute for Cybersecurity and take KDDTest+.txt"),
    Dataset(name="abalone", title="Abalone", rows=4_177, target="Rings", read=readers.abalone, categories=("Sex",),
            licence=CC_BY, page=f"{UCI}/dataset/1/abalone", file="tabular/abalone.csv",
            sha256="1f8370b9dddd075b44da3240f99d4ab4fc56df3b2c378dd6607aea429eef82a7",
            url=f"{UCI}/static/public/1/abalone.zip"),
    Dataset(name="diabetes", title="Pima Indians diabetes", rows=768, target="Outcome", read=readers.diabetes,
            categories=SILOFUSE_LEVELS, licence="CC0",
            sha256="f296d7f1c84c5b819d1b8a038725357533e91f809167ab5c1f71d0bb262842ef",
            page="https://www.kaggle.com/datasets/uciml/pima-indians-diabetes-database",
            file="tabular/diabetes.csv", manual="Download diabetes.csv from Kaggle"),
    Dataset(name="covertype", title="Covertype", rows=581_012, target="Cover_Type", read=readers.covertype,
            categories=readers.COVERTYPE[10:], licence=CC_BY, page=f"{UCI}/dataset/31/covertype",
            file="tabular/covtype.data.gz",
            sha256="614360d0257557dd1792834a85a1cdebfadc3c4f30b011d56afee7ffb5b15771",
            url="https://ndownloader.figshare.com/files/5976039",
            publisher_sha256="614360d0257557dd1792834a85a1cdebfadc3c4f30b011d56afee7ffb5b15771"),
    *(
        Dataset(name=name, title=title, rows=rows, target="target", read=_sklearn(loader), categories=(),
                licence="BSD 3-clause (scikit-learn's copy)",
                page="https://scikit-learn.org/stable/datasets/toy_dataset.html",
                package="sklearn.datasets.data", file=file)
        for name, title, rows, loader, file in (
            ("breast-cancer", "Breast cancer", 569, sklearn_datasets.load_breast_cancer, "breast_cancer.csv"),
            ("wine", "Wine recognition", 178, sklearn_datasets.load_wine, "wine_data.csv"),
            ("iris", "Iris", 150, sklearn_datasets.load_iris, "iris.csv"),
            ("digits", "Digits of 8x8 pixels", 1_797, sklearn_datasets.load_digits, "digits.csv.gz"),
        )
    ),
)
DATASETS = {dataset.name: dataset for dataset in _ALL}
