"""Tables with a schema: known data sets by name, a user's own CSV or Parquet file by path, and the hold-out split."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from feddiff.data import files, known, schema
from feddiff.data.partitions import shares
from feddiff.data.schema import KINDS

__all__ = ["KINDS", "Table", "describe", "load", "names", "split"]


@dataclass(frozen=True, eq=False)
class Table:
    """A table and what its columns are.

    frame: rows with a RangeIndex, the target among the columns. kinds: column -> one of KINDS, for every column.
    source: "embedded" (in this package or scikit-learn), "FEDDIFF_DATA", "download" or "file".
    sha256: of the bytes of the data file (of the archive, where the data came in one).
    """

    frame: pd.DataFrame
    target: str | None
    kinds: dict[str, str]
    name: str
    source: str
    sha256: str

    def __post_init__(self):
        if list(self.kinds) != list(self.frame.columns):
            raise ValueError(f"kinds must name every column in order: {list(self.frame.columns)}")
        schema.check_target(self.frame, self.target)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def features(self) -> list[str]:
        """Columns without the target."""
        return [name for name in self.frame.columns if name != self.target]

    def select(self, rows: np.ndarray) -> "Table":
        """Return the table of the given row positions (or mask), numbered anew."""
        return replace(self, frame=self.frame.iloc[rows].reset_index(drop=True))


def names() -> tuple[str, ...]:
    """Return the names of the known data sets."""
    return tuple(known.DATASETS)


def load(
    name_or_path: str | Path,
    target: str | None = None,
    kinds: Mapping[str, str] | None = None,
    *,
    separator: str = ",",
    encoding: str = "utf-8",
) -> Table:
    """Return a known data set by name (see `names`), or the table of a user's CSV or Parquet file by path.

    target: the label column; default: the known data set's own, or none for a file. kinds: column -> kind, where the
    data set's typing or the inferred one (see `describe`) is not wanted. separator and encoding are for CSV files.
    ValueError or FileNotFoundError names the column or file at fault.
    """
    text = str(name_or_path)
    if text in known.DATASETS:
        return _load_known(known.DATASETS[text], target, kinds)
    path = Path(name_or_path).expanduser()
    if isinstance(name_or_path, str) and not path.suffix and not path.exists() and path.name == text:
        raise ValueError(f"no data set is named {text!r}; known are {', '.join(known.DATASETS)}; "
                         "a file of your own needs its ending (.csv, .parquet)")
    frame = files.read(path, separator=separator, encoding=encoding)
    schema.check_target(frame, target)
    schema.check_columns(frame, path.name)
    resolved = schema.resolve(frame, kinds)
    schema.warn(frame, resolved)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Table(frame, target, resolved, name=path.stem, source="file", sha256=digest)


def _load_known(dataset: "known.Dataset", target: str | None, kinds: Mapping[str, str] | None) -> Table:
    frame, source, digest = known.fetch(dataset)
    declared = {name: "categorical" for name in dataset.categorical(frame)}
    numbers = {name: "integer" if schema.is_whole(frame[name]) else "numeric"
               for name in frame.columns if name not in declared}
    resolved = schema.resolve(frame, kinds, declared | numbers)
    return Table(frame, target or dataset.target, resolved, name=dataset.name, source=source, sha256=digest)


def describe(table: Table) -> pd.DataFrame:
    """Return what is known of every column: role, kind, dtype, distinct values, missing values, range, warnings."""
    rows, notes = [], schema.notes(table.frame, table.kinds)
    for name, kind in table.kinds.items():
        series = table.frame[name]
        number = kind in ("numeric", "integer")
        rows.append({
            "column": name,
            "role": "target" if name == table.target else "feature",
            "kind": kind,
            "dtype": str(series.dtype),
            "levels": int(series.nunique()),
            "missing": int(series.isna().sum()),
            "minimum": float(series.min()) if number else np.nan,
            "maximum": float(series.max()) if number else np.nan,
            "warnings": notes[name],
        })
    return pd.DataFrame(rows)


def split(
    table: Table, test_fraction: float, generator: np.random.Generator, stratify: bool = True
) -> tuple[Table, Table]:
    """Return (train, test), disjoint, together every row, each in the table's row order.

    The test part has round(test_fraction * rows) rows. With `stratify` and a categorical or boolean target every
    class keeps its share in both parts (a numeric target or none: a plain random split).
    """
    rows = len(table)
    size = round(test_fraction * rows) if np.isfinite(test_fraction) else 0
    if not 0 < test_fraction < 1 or not 0 < size < rows:
        raise ValueError(f"test_fraction must lie in (0, 1) and leave rows on both sides of {rows}, "
                         f"got {test_fraction!r}")
    groups = [np.arange(rows)]
    if stratify and table.target is not None and table.kinds[table.target] in ("categorical", "boolean"):
        codes, _ = pd.factorize(table.frame[table.target], sort=True)
        groups = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    counts = shares(size, np.array([len(group) for group in groups]))
    held_out = [generator.permutation(group)[:count] for group, count in zip(groups, counts)]
    test = np.zeros(rows, dtype=bool)
    test[np.concatenate(held_out)] = True
    return table.select(np.flatnonzero(~test)), table.select(np.flatnonzero(test))
