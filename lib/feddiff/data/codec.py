"""The diffusion space of a table: categories as integer codes, numbers as near-normal floats, and the way back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from feddiff.data.columns import NUMERICS, CategoryColumn, NumericColumn
from feddiff.data.schema import KINDS

PROVENANCES = ("pooled", "client", "public", "private")
UNSEEN = ("error", "other")


@dataclass(frozen=True, eq=False)
class Encoded:
    """Rows in the diffusion space: `codes` int64 (n, code columns), `numbers` float32 (n, number columns)."""

    codes: np.ndarray
    numbers: np.ndarray

    def __post_init__(self):
        if self.codes.ndim != 2 or self.numbers.ndim != 2 or len(self.codes) != len(self.numbers):
            raise ValueError(f"codes and numbers must be matrices with equally many rows, "
                             f"got shapes {self.codes.shape} and {self.numbers.shape}")

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, rows) -> "Encoded":
        """Return the rows of an index array, a mask or a slice."""
        return Encoded(self.codes[rows], self.numbers[rows])


def missing_name(column: str) -> str:
    """Return the name of the code column that marks the missing values of a number column."""
    return f"{column} is missing"


@dataclass(frozen=True)
class TableCodec:
    """The columns of a table in their order, each with its own way into the diffusion space and back.

    provenance says what the columns were fitted on: "pooled" rows of all clients or one "client" (both outside any
    (epsilon, delta)), a "public" range and vocabulary, or a "private" release.
    """

    columns: tuple[NumericColumn | CategoryColumn, ...]
    provenance: str = "pooled"

    def __post_init__(self):
        object.__setattr__(self, "columns", tuple(self.columns))
        if self.provenance not in PROVENANCES:
            raise ValueError(f"provenance must be one of {PROVENANCES}, got {self.provenance!r}")
        if not self.columns:
            raise ValueError("a codec needs at least one column")
        names = [column.name for column in self.columns] + [
            missing_name(c.name) for c in self.columns if isinstance(c, NumericColumn) and c.missing
        ]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"column {name!r} appears twice in the codec")

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        kinds: Mapping[str, str],
        *,
        columns: Sequence[str] | None = None,
        numerics: str = "quantile",
        provenance: str = "pooled",
        unseen: str = "error",
    ) -> "TableCodec":
        """Return the codec of `columns` (default: all) of `frame`, fitted on its rows and on nothing else.

        numerics: "quantile" (scikit-learn's quantile-normal), "quantile-ties" (random rank inside ties, exactly
        normal) or "standard". unseen: "error", or "other" to give text columns a home for labels not in `frame`.
        """
        columns = list(frame.columns) if columns is None else list(columns)
        if numerics not in NUMERICS:
            raise ValueError(f"numerics must be one of {NUMERICS}, got {numerics!r}")
        if unseen not in UNSEEN:
            raise ValueError(f"unseen must be one of {UNSEEN}, got {unseen!r}")
        if not len(frame):
            raise ValueError("cannot fit a codec on a table without rows")
        fitted = []
        for name in columns:
            if name not in frame.columns:
                raise ValueError(f"column {name!r} is not in the table; it has {list(frame.columns)}")
            kind = kinds.get(name)
            if kind in ("categorical", "boolean"):
                fitted.append(CategoryColumn.fit(frame[name], unseen=unseen))
            elif kind in ("numeric", "integer"):
                fitted.append(NumericColumn.fit(frame[name], numerics=numerics, integer=kind == "integer"))
            else:
                raise ValueError(f"column {name!r}: kind must be one of {KINDS}, got {kind!r}")
        return cls(tuple(fitted), provenance)

    @property
    def names(self) -> tuple[str, ...]:
        """Table columns in their original order."""
        return tuple(column.name for column in self.columns)

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Names of the columns of `Encoded.numbers`."""
        return tuple(column.name for column in self.columns if isinstance(column, NumericColumn))

    @property
    def code_columns(self) -> tuple[str, ...]:
        """Names of the columns of `Encoded.codes`, in table order; "<column> is missing" marks missing numbers."""
        return tuple(name for name, _ in self._codes())

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of codes of each code column."""
        return tuple(levels for _, levels in self._codes())

    def _codes(self) -> list[tuple[str, int]]:
        pairs = []
        for column in self.columns:
            if isinstance(column, CategoryColumn):
                pairs.append((column.name, column.levels))
            elif column.missing:
                pairs.append((missing_name(column.name), 2))
        return pairs

    def encode(self, frame: pd.DataFrame, generator: np.random.Generator | None = None) -> Encoded:
        """Return the rows of `frame` in the diffusion space.

        Numbers outside the fitted range are clipped; a label or a missing value that was not fitted is a ValueError
        unless the column declares a home for it. `generator` is needed by "quantile-ties" only.
        """
        absent = [name for name in self.names if name not in frame.columns]
        if absent:
            raise ValueError(f"column {absent[0]!r} is not in the table; it has {list(frame.columns)}")
        codes, numbers = [], []
        for column in self.columns:
            series = frame[column.name]
            if isinstance(column, CategoryColumn):
                codes.append(column.encode(series))
                continue
            if column.missing:
                codes.append(series.isna().to_numpy(dtype=np.int64))
            numbers.append(column.encode(series, generator))
        return Encoded(_stack(codes, len(frame), np.int64), _stack(numbers, len(frame), np.float32))

    def decode(self, encoded: Encoded) -> pd.DataFrame:
        """Return the table of `encoded`: original columns, order, dtypes, labels, rounding and missing values."""
        expected = (len(self.levels), len(self.number_columns))
        if (encoded.codes.shape[1], encoded.numbers.shape[1]) != expected:
            raise ValueError(f"the codec has {expected[0]} code and {expected[1]} number columns, got "
                             f"{encoded.codes.shape[1]} and {encoded.numbers.shape[1]}")
        codes, numbers = iter(encoded.codes.T), iter(encoded.numbers.T)
        decoded = {}
        for column in self.columns:
            if isinstance(column, CategoryColumn):
                decoded[column.name] = column.decode(next(codes))
            else:
                absent = next(codes) == 1 if column.missing else None
                decoded[column.name] = column.decode(next(numbers), absent)
        return pd.DataFrame(decoded)

    def to_json(self) -> str:
        """Return the codec as JSON text; `from_json` gives an equal codec."""
        return json.dumps({"provenance": self.provenance, "columns": [_state(column) for column in self.columns]})

    @classmethod
    def from_json(cls, text: str) -> "TableCodec":
        """Return the codec that `to_json` wrote."""
        state = json.loads(text)
        return cls(tuple(_column(part) for part in state["columns"]), state["provenance"])


@dataclass(frozen=True)
class LabelCodec:
    """The label of a table as class numbers; code k is `classes[k]`."""

    column: CategoryColumn

    def __post_init__(self):
        if self.column.missing:
            raise ValueError(f"label {self.column.name!r} must not have missing values")

    @classmethod
    def fit(cls, series: pd.Series) -> "LabelCodec":
        """Return the codec with the classes of `series`, sorted (or in the order of its categories)."""
        if series.isna().any():
            raise ValueError(f"label {series.name!r} has {int(series.isna().sum())} missing values; drop those rows")
        return cls(CategoryColumn.fit(series))

    @property
    def name(self) -> str:
        """Name of the label column."""
        return self.column.name

    @property
    def classes(self) -> tuple:
        """The labels in the order of their codes."""
        return self.column.vocabulary

    def encode(self, series: pd.Series) -> np.ndarray:
        """Return class numbers, int64 (n,); ValueError for a label that was not fitted."""
        return self.column.encode(series)

    def decode(self, codes: np.ndarray) -> pd.Series:
        """Return the labels of class numbers, in the original dtype."""
        return self.column.decode(codes)

    def to_json(self) -> str:
        """Return the codec as JSON text."""
        return json.dumps(_state(self.column))

    @classmethod
    def from_json(cls, text: str) -> "LabelCodec":
        """Return the codec that `to_json` wrote."""
        return cls(_column(json.loads(text)))


def _stack(parts: list[np.ndarray], rows: int, dtype) -> np.ndarray:
    return np.column_stack(parts).astype(dtype, copy=False) if parts else np.empty((rows, 0), dtype=dtype)


def _state(column: NumericColumn | CategoryColumn) -> dict:
    state = {part.name: getattr(column, part.name) for part in fields(column) if part.init}
    return {"column": type(column).__name__, **state}


def _column(state: dict) -> NumericColumn | CategoryColumn:
    kind = {"NumericColumn": NumericColumn, "CategoryColumn": CategoryColumn}[state["column"]]
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in state.items() if name != "column"})
