"""A user's own table from a CSV or Parquet file, with errors that say what to mend."""

import warnings
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from feddiff.data import schema

CSV_ENDINGS = (".csv", ".csv.gz", ".tsv", ".txt")
PARQUET_ENDINGS = (".parquet", ".pq")


def read(path: Path, *, separator: str = ",", encoding: str = "utf-8") -> pd.DataFrame:
    """Return the table of `path` with a RangeIndex; the file's ending says what it is."""
    name = path.name.lower()
    if not name.endswith(CSV_ENDINGS + PARQUET_ENDINGS):
        raise ValueError(f"{path.name}: unsupported file ending; use one of {', '.join(CSV_ENDINGS + PARQUET_ENDINGS)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.stat().st_size:
        raise ValueError(f"{path.name}: the file is empty")
    return _read_parquet(path) if name.endswith(PARQUET_ENDINGS) else _read_csv(path, separator, encoding)


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        names = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path.name}: not a Parquet file ({error})") from error
    schema.check_names([name for name in names if not name.startswith("__index_level_")], path.name)
    frame = pd.read_parquet(path)
    # An index with names is data; one without is only a numbering.
    return frame.reset_index(drop=all(level is None for level in frame.index.names))


def _read_csv(path: Path, separator: str, encoding: str) -> pd.DataFrame:
    separator = "\t" if path.name.lower().endswith(".tsv") and separator == "," else separator
    # A byte-order mark, which spreadsheets write, must not become part of the first column's name.
    encoding = "utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding
    try:
        header = pd.read_csv(path, sep=separator, encoding=encoding, header=None, nrows=1, dtype=str,
                             keep_default_na=False)
        names = [str(name) for name in header.iloc[0]]
        schema.check_names(names, path.name)
        if len(names) == 1 and any(mark in names[0] for mark in ";\t|,"):
            raise ValueError(f"{path.name}: one column named {names[0]!r}; pass the separator=, for example ';'")
        with warnings.catch_warnings():
            # pandas would cut rows that are longer than the header, and only warn.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(path, sep=separator, encoding=encoding, low_memory=False, index_col=False)
    except LookupError as error:
        raise ValueError(f"{path.name}: unknown encoding {encoding!r}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: {_culprit(path, separator)} not {encoding} ({error.reason}); "
                         f"pass encoding=, for example encoding='latin-1'") from error
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path.name}: no columns to read") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise ValueError(f"{path.name}: not a table with the separator {separator!r} ({error})") from error


def _culprit(path: Path, separator: str) -> str:
    # Latin-1 gives every byte a character, so the column with foreign characters can be named.
    try:
        frame = pd.read_csv(path, sep=separator, encoding="latin-1", dtype=str, low_memory=False, on_bad_lines="skip")
    except pd.errors.ParserError:
        return "the file is"
    for name in frame.columns:
        if not name.isascii():
            return f"the column name {name!r} is"
        cells = frame[name].dropna()
        odd = cells[~cells.map(str.isascii)]
        if len(odd):
            return f"column {name!r} is (value {odd.iloc[0]!r} in latin-1)"
    return "the file is"
