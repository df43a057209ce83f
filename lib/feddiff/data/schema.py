"""What the columns of a table are: inferred kinds, overrides, and the defects that are refused by name."""

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd

KINDS = ("numeric", "integer", "categorical", "boolean")
MINIMUM_ROWS = 10
# A whole-number column with at most this many distinct values is a code, not a quantity: the rule (nunique <= 12) of
# the authors' DP-FedTabDiff code, which types Credit Default's SEX ... PAY_6 as categories. Small tables also need
# ten rows a value on average, lest every column of a small sample become a category.
CODE_LEVELS = 12
ROWS_PER_LEVEL = 10
MANY_LEVELS = 1000


def infer(series: pd.Series) -> str:
    """Return the kind of a column, by its dtype and its number of distinct values."""
    dtype = series.dtype
    if pd.api.types.is_bool_dtype(dtype):
        return "boolean"
    if not pd.api.types.is_numeric_dtype(dtype):
        present = series.dropna()
        is_flag = dtype == object and len(present) and present.map(lambda value: isinstance(value, bool)).all()
        return "boolean" if is_flag else "categorical"
    if not is_whole(series):
        return "numeric"
    levels = series.nunique()
    code = levels <= 2 or levels <= min(CODE_LEVELS, series.notna().sum() / ROWS_PER_LEVEL)
    return "categorical" if code else "integer"


def is_whole(series: pd.Series) -> bool:
    """Return whether every number of `series` that is present is finite and whole."""
    if series.dtype.kind in "iu":
        return True
    x = series.dropna().to_numpy(dtype=np.float64)
    return bool(np.isfinite(x).all() and (x == np.round(x)).all())


def resolve(frame: pd.DataFrame, overrides: Mapping[str, str] | None, known: Mapping[str, str] | None = None) -> dict:
    """Return the kind of every column: the caller's word, else the known data set's, else inferred."""
    overrides = dict(overrides or {})
    for name, kind in overrides.items():
        if name not in frame.columns:
            raise ValueError(f"kinds names the column {name!r}, which the table does not have; "
                             f"it has {list(frame.columns)}")
        if kind not in KINDS:
            raise ValueError(f"column {name!r}: kind must be one of {KINDS}, got {kind!r}")
    kinds = {name: overrides.get(name) or (known or {}).get(name) or infer(frame[name]) for name in frame.columns}
    for name, kind in overrides.items():
        series = frame[name]
        if kind in ("numeric", "integer") and not pd.api.types.is_numeric_dtype(series.dtype):
            raise ValueError(f"column {name!r}: kind {kind} needs numbers, but it holds {series.dropna().iloc[0]!r}")
        if kind == "integer" and not is_whole(series):
            raise ValueError(f"column {name!r}: kind integer needs whole numbers; use numeric")
        if kind == "boolean" and series.nunique() > 2:
            raise ValueError(f"column {name!r}: kind boolean needs two values, but it has {series.nunique()}")
    return kinds


def check_target(frame: pd.DataFrame, target: str | None) -> None:
    """Refuse a target that is not a column or has missing values."""
    if target is None:
        return
    if target not in frame.columns:
        raise ValueError(f"the target {target!r} is not a column of the table; it has {list(frame.columns)}")
    missing = int(frame[target].isna().sum())
    if missing:
        raise ValueError(f"the target {target!r} has {missing} missing values; drop those rows first")


def check_names(names: list, source: str) -> None:
    """Refuse a header with empty or repeated names."""
    for position, name in enumerate(names):
        if name is None or name != name or not str(name).strip():
            raise ValueError(f"{source}: column {position + 1} has no name; name it, or write the file without index")
        if names.count(name) > 1:
            raise ValueError(f"{source}: the column name {name!r} appears {names.count(name)} times; rename them apart")


def check_columns(frame: pd.DataFrame, source: str) -> None:
    """Refuse columns that cannot be modelled: too few rows, all missing, constant, infinite, dates, nested values."""
    if len(frame) < MINIMUM_ROWS:
        raise ValueError(f"{source}: {len(frame)} rows; at least {MINIMUM_ROWS} are needed")
    for name in frame.columns:
        series = frame[name]
        dtype = series.dtype.categories.dtype if isinstance(series.dtype, pd.CategoricalDtype) else series.dtype
        if dtype.kind in "mMc":
            raise ValueError(f"column {name!r}: dtype {series.dtype} is not modelled; turn it into numbers or text")
        if series.isna().all():
            raise ValueError(f"column {name!r}: every value is missing; drop the column")
        if dtype == object:
            odd = next((v for v in series.dropna() if not isinstance(v, (str, bool, int, float, np.generic))), None)
            if odd is not None:
                raise ValueError(f"column {name!r}: holds a {type(odd).__name__} ({odd!r:.40}); "
                                 "cells must be text, numbers or booleans")
        if series.dtype.kind == "f" and np.isinf(series.to_numpy(dtype=np.float64, na_value=np.nan)).any():
            raise ValueError(f"column {name!r}: holds infinite values; replace or drop them")
        # A column that is either one value or missing still says something.
        if series.nunique(dropna=False) == 1:
            raise ValueError(f"column {name!r}: constant ({series.iloc[0]!r} in every row); drop the column")


def notes(frame: pd.DataFrame, kinds: Mapping[str, str]) -> dict[str, str]:
    """Return for each column what a user should look at, "" where nothing."""
    return {name: _note(frame[name], kinds[name]) for name in frame.columns}


def _note(series: pd.Series, kind: str) -> str:
    if kind != "categorical":
        return ""
    levels = series.nunique()
    if levels <= MANY_LEVELS and not (levels == len(series) and levels > CODE_LEVELS):
        return ""
    text = f"{levels:,} levels in {len(series):,} rows"
    numbers = pd.to_numeric(series.dropna().astype(object), errors="coerce")
    if not pd.api.types.is_numeric_dtype(series.dtype) and numbers.notna().mean() > 0.5 and numbers.isna().any():
        return f"{text}; mostly numbers, but for example {series.dropna()[numbers.isna()].iloc[0]!r} is not"
    return f"{text}; an identifier or free text is better dropped"


def warn(frame: pd.DataFrame, kinds: Mapping[str, str]) -> None:
    """Warn of category columns with so many levels that they can hardly be modelled."""
    for name, note in notes(frame, kinds).items():
        if note:
            warnings.warn(f"column {name!r}: {note}", UserWarning, stacklevel=3)
