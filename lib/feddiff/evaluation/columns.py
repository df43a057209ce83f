"""What every metric of a pair of tables needs first: the same columns, a kind for each, and values that compare.

The trap this file exists for: real codes are integers, decoded ones strings ("1" against 1), nothing matches, and a
faithful column scores 0. Here such columns are aligned by value, or refused by name; never compared as they are.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from pandas.api import types

CONTINUOUS = ("numeric", "integer")
DISCRETE = ("categorical", "boolean")


def check_pair(real: pd.DataFrame, synthetic: pd.DataFrame, names: tuple[str, str] = ("real", "synthetic")) -> None:
    """Refuse two tables that cannot be compared: not tables, empty, duplicate names or different columns."""
    for frame, name in zip((real, synthetic), names):
        if not isinstance(frame, pd.DataFrame):
            raise TypeError(f"the {name} table must be a pandas DataFrame, got {type(frame).__name__}")
        if frame.shape[1] == 0 or len(frame) == 0:
            raise ValueError(f"the {name} table is empty ({len(frame)} rows x {frame.shape[1]} columns)")
        if not frame.columns.is_unique:
            repeated = sorted(set(frame.columns[frame.columns.duplicated()].astype(str)))
            raise ValueError(f"the {name} table has duplicate column names {repeated}; rename them")
    missing = [name for name in real.columns if name not in synthetic.columns]
    extra = [name for name in synthetic.columns if name not in real.columns]
    if missing or extra:
        raise ValueError(
            f"the tables must have the same columns: the {names[1]} table lacks {missing} and has {extra} beside; "
            f"select the common columns first"
        )


def kinds_of(real: pd.DataFrame, kinds: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the kind of every column of `real`, as given by `kinds` (extra names are ignored) or from its dtypes.

    Booleans, text, `category` and objects are discrete; numbers and dates are continuous. An object column that holds
    nothing but numbers (a column of numbers with None in it) is numeric.
    """
    if kinds is None:
        return {name: _kind_from_dtype(real[name]) for name in real.columns}
    absent = [name for name in real.columns if name not in kinds]
    if absent:
        raise ValueError(f"kinds names no kind for the columns {absent}; give one of {CONTINUOUS + DISCRETE} for each")
    unknown = {name: kinds[name] for name in real.columns if kinds[name] not in CONTINUOUS + DISCRETE}
    if unknown:
        raise ValueError(f"unknown kinds {unknown}; a kind is one of {CONTINUOUS + DISCRETE}")
    return {name: kinds[name] for name in real.columns}


def _kind_from_dtype(column: pd.Series) -> str:
    if types.is_bool_dtype(column.dtype):
        return "boolean"
    if types.is_integer_dtype(column.dtype):
        return "integer"
    if types.is_numeric_dtype(column.dtype) or types.is_datetime64_any_dtype(column.dtype):
        return "numeric"
    if types.is_object_dtype(column.dtype):
        inferred = pd.api.types.infer_dtype(column, skipna=True)
        if inferred in ("integer", "floating", "mixed-integer-float", "decimal"):
            return "numeric"
        if inferred == "boolean":
            return "boolean"
    return "categorical"


def numbers(column: pd.Series, where: str) -> np.ndarray:
    """Return a continuous column as float64 (n,), missing as NaN; numerals in text and dates are read as numbers.

    Raises TypeError for text that is no number and ValueError for infinities or a column without any value; `where`
    names the column in the message.
    """
    if types.is_datetime64_any_dtype(column.dtype):
        values = np.where(column.isna(), np.nan, column.astype("int64").to_numpy(dtype=float))
    elif types.is_numeric_dtype(column.dtype) or types.is_bool_dtype(column.dtype):
        values = column.to_numpy(dtype=float, na_value=np.nan)
    else:
        try:
            values = pd.to_numeric(column.astype(object)).to_numpy(dtype=float, na_value=np.nan)
        except (ValueError, TypeError) as error:
            raise TypeError(
                f"{where} is compared as a number but holds {column.dropna().iloc[0]!r} ({error}); "
                f"convert it, or name it categorical in kinds="
            ) from error
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise ValueError(f"{where} holds {infinite} infinite values; replace or drop them first")
    if np.isnan(values).all():
        raise ValueError(f"{where} holds no value, only missing ones; drop the column from both tables")
    return values


def shared_codes(
    real: pd.Series, synthetic: pd.Series, name: str, sides: tuple[str, str] = ("real", "synthetic")
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return both discrete columns as codes of one sorted vocabulary, and its size; a missing value has code -1.

    Values are equal as in Python (1 == 1.0 == True). Where the two columns hold different types (text against
    numbers), or share no value, they are compared by the spelling of the value ("1", "1.0" and 1 are one value);
    different types that share no value even so raise TypeError.
    """
    columns = [column.astype(object) for column in (real, synthetic)]
    for column, side in zip(columns, sides):
        if column.isna().all():
            raise ValueError(f"column {name!r} of the {side} table holds no value, only missing ones; drop the column")
    families = [_families(column) for column in columns]
    codes, levels = _factorise(columns)
    if families[0] != families[1] or not _overlap(codes):
        spelled = [_spell(column) for column in columns]
        # Two different texts that spell one number ("01", "1") are two categories: then spelling cannot align.
        if all(after.nunique() == before.nunique() for before, after in zip(columns, spelled)):
            respelled, relevels = _factorise(spelled)
            if families[0] != families[1] or _overlap(respelled):
                codes, levels = respelled, relevels
        if families[0] != families[1] and not _overlap(codes):
            raise TypeError(
                f"column {name!r} holds {'/'.join(sorted(families[0]))} in the {sides[0]} table "
                f"(such as {columns[0].dropna().iloc[0]!r}) and {'/'.join(sorted(families[1]))} in the {sides[1]} one "
                f"(such as {columns[1].dropna().iloc[0]!r}) and no value in common; convert one of the two"
            )
    return codes[0], codes[1], levels


def _factorise(columns: list[pd.Series]) -> tuple[list[np.ndarray], int]:
    joined, vocabulary = pd.factorize(np.concatenate([column.to_numpy() for column in columns]), sort=True)
    return [joined[: len(columns[0])], joined[len(columns[0]) :]], len(vocabulary)


def _overlap(codes: list[np.ndarray]) -> bool:
    return bool(np.intersect1d(codes[0][codes[0] >= 0], codes[1][codes[1] >= 0]).size)


def _families(column: pd.Series) -> set[str]:
    def family(kind: type) -> str:
        if issubclass(kind, str):
            return "text"
        if issubclass(kind, (bool, np.bool_, int, float, np.number)):
            return "numbers"
        return kind.__name__

    return {family(kind) for kind in set(map(type, column.dropna().unique()))}


def _spell(column: pd.Series) -> pd.Series:
    def spelling(value: object) -> str:
        if isinstance(value, (bool, np.bool_)):
            return str(bool(value))
        try:
            number = float(value)
        except (TypeError, ValueError):
            return str(value)
        return str(int(number)) if np.isfinite(number) and number.is_integer() else str(number)

    return column.map({value: spelling(value) for value in column.dropna().unique()}, na_action="ignore")
