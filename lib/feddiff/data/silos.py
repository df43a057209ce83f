"""One table, many silos: who holds which columns, rows brought into one order by their keys, and the choices of data.

The nine data sets of the SiloFuse paper are known by name in `data.tables`; `reference_table` loads one with the
paper's typing and with the two choices that its text leaves open, ids and blank cells, spelt out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from feddiff.data import partitions, tables
from feddiff.data.columns import CategoryColumn
from feddiff.data.known import SILOFUSE_LEVELS
from feddiff.data.tables import Table

ORDERS = (*partitions.ORDERS, "adversarial")
REFERENCE = ("loan", "adult-full", "cardio", "abalone", "churn", "diabetes", "covertype", "intrusion", "heloc")
# Columns that name a record. The readers leave out Loan's ID and Cardio's id, as the paper's counts do; Churn's counts
# fit only with all three of these kept.
IDS = {name: () for name in REFERENCE} | {"churn": ("RowNumber", "CustomerId", "Surname")}
BLANKS = ("drop", "fill", "keep")
SHOWN = 3


@dataclass(frozen=True, eq=False)
class Silo:
    """The columns of one silo: `frame` with one row per record, kinds of exactly its columns.

    keys: (n,) what names each row across the silos (a customer number), or None when rows agree by position.
    """

    name: str
    frame: pd.DataFrame
    kinds: dict[str, str]
    keys: np.ndarray | None = None

    def __post_init__(self):
        if list(self.kinds) != list(self.frame.columns):
            raise ValueError(f"{self.name}: kinds must name every column in order: {list(self.frame.columns)}")
        if not self.kinds:
            raise ValueError(f"{self.name} holds no column")
        if self.keys is not None and len(self.keys) != len(self.frame):
            raise ValueError(f"{self.name}: {len(self.keys)} keys for {len(self.frame)} rows; give one key a row")

    def __len__(self) -> int:
        return len(self.frame)

    def select(self, rows: np.ndarray) -> "Silo":
        """Return the silo of the given row positions (or mask), numbered anew."""
        keys = None if self.keys is None else np.asarray(self.keys)[rows]
        return replace(self, frame=self.frame.iloc[rows].reset_index(drop=True), keys=keys)


def reference_table(name: str, *, ids: str = "keep", blanks: str = "drop") -> Table:
    """Return one of the paper's nine data sets under the paper's typing rule.

    The rule, rebuilt from its counts: a column is categorical if it is text, the target, or has at most 40 distinct
    values. ids: "keep" (as the paper's counts do) or "drop" the columns of IDS. blanks: see `mend_blanks`; of the nine
    only Cardio has blank cells, 8 in 8 rows.
    """
    if name not in REFERENCE:
        raise ValueError(f"{name!r} is not one of the paper's data sets: {', '.join(REFERENCE)}")
    if ids not in ("keep", "drop"):
        raise ValueError(f"ids must be 'keep' or 'drop', got {ids!r}")
    table = mend_blanks(tables.load(name), blanks)
    frame = table.frame
    known = {column: kind for column, kind in table.kinds.items() if kind == "categorical"}
    few = {column: "categorical" for column in frame if frame[column].nunique() <= SILOFUSE_LEVELS}
    # Covertype's numbers all have more levels than that; a row sample of it must not lose one to the rule.
    rule = known if name == "covertype" else known | few
    table = replace(table, kinds={column: rule.get(column, kind) for column, kind in table.kinds.items()})
    return drop_ids(table) if ids == "drop" else table


def drop_ids(table: Table, columns: Sequence[str] | None = None) -> Table:
    """Return the table without the columns that name a record: `columns`, by default those of IDS."""
    if columns is None:
        if table.name not in IDS:
            raise ValueError(f"which columns of {table.name!r} are ids is not known; name them in columns=")
        columns = IDS[table.name]
    for column in columns:
        if column not in table.kinds:
            raise ValueError(f"column {column!r} is not in the table; it has {list(table.kinds)}")
        if column == table.target:
            raise ValueError(f"column {column!r} is the target and cannot be dropped as an id")
    kinds = {name: kind for name, kind in table.kinds.items() if name not in columns}
    return replace(table, frame=table.frame[list(kinds)], kinds=kinds)


def mend_blanks(table: Table, how: str) -> Table:
    """Return the table with its missing values dealt with.

    how: "drop" leaves out every row with a blank cell; "fill" puts the median of the column into numbers (the nearest
    value that occurs) and the most frequent label into categories; "keep" leaves them to the codec (a median and an
    extra code "<column> is missing"). Nothing is done silently: whoever loads a table says which.
    """
    if how not in BLANKS:
        raise ValueError(f"blanks must be one of {BLANKS}, got {how!r}")
    blank = table.frame.isna()
    if how == "keep" or not blank.to_numpy().any():
        return table
    if how == "drop":
        if blank.any(axis=1).all():
            raise ValueError(f"{table.name}: every row has a blank cell; use blanks='fill' or 'keep'")
        return table.select(np.flatnonzero(~blank.any(axis=1)))
    frame = table.frame.copy()
    for column in frame.columns[blank.any()]:
        series = frame[column].dropna()
        if not len(series):
            raise ValueError(f"column {column!r}: every value is missing, nothing to fill from; drop the column")
        number = table.kinds[column] in ("numeric", "integer")
        value = series.sort_values().iloc[len(series) // 2] if number else series.mode().iloc[0]
        frame[column] = frame[column].fillna(value)
    return replace(table, frame=frame)


def sizes(table: Table) -> dict[str, int]:
    """Return rows, categorical, numeric, columns and one_hot (columns after one-hot encoding; a blank is a level)."""
    coded = [name for name, kind in table.kinds.items() if kind in ("categorical", "boolean")]
    numeric = len(table.kinds) - len(coded)
    one_hot = numeric + sum(table.frame[name].nunique(dropna=False) for name in coded)
    return {"rows": len(table), "categorical": len(coded), "numeric": numeric, "columns": len(table.kinds),
            "one_hot": one_hot}


def split_columns(
    table: Table,
    silos: int,
    *,
    order: str = "contiguous",
    generator: np.random.Generator | None = None,
    association: pd.DataFrame | None = None,
    keys: np.ndarray | None = None,
) -> list[Silo]:
    """Cut a table into `silos` silos, "silo 0" and on, of floor(d / silos) columns, the last with the rest.

    order: "contiguous" in the table's order; "random" (needs `generator`) permutes the columns first; "adversarial"
    (needs `association`, a square frame of association strengths between columns) deals strongly associated columns
    to different silos: the column with the largest total association first, each to the silo with room for it in
    which it finds the least. keys: row keys that every silo gets.
    """
    names = list(table.kinds)
    if order not in ORDERS:
        raise ValueError(f"order must be one of {ORDERS}, got {order!r}")
    if order == "adversarial":
        parts = _apart(partitions.columns(names, silos), names, association)
    else:
        parts = partitions.columns(names, silos, order, generator)
    return [Silo(f"silo {i}", table.frame[part].copy(), {name: table.kinds[name] for name in part}, keys)
            for i, part in enumerate(parts)]


def _apart(blocks: list[list[str]], names: list[str], association: pd.DataFrame | None) -> list[list[str]]:
    if association is None:
        raise ValueError("order='adversarial' needs association=, a square frame of association strengths between "
                         "the columns (evaluation.association gives one)")
    absent = [name for name in names if name not in association.index or name not in association.columns]
    if absent:
        raise ValueError(f"the association frame has no row and column {absent[0]!r}")
    strength = np.abs(association.loc[names, names].to_numpy(dtype=np.float64, copy=True))
    if not np.isfinite(strength).all():
        raise ValueError("the association frame holds values that are not finite; put 0 for columns without any")
    strength = (strength + strength.T) / 2
    np.fill_diagonal(strength, 0)
    room, members = [len(block) for block in blocks], [[] for _ in blocks]
    for column in np.argsort(-strength.sum(axis=1), kind="stable"):
        found = [(strength[column, part].sum(), len(part)) if len(part) < space else (np.inf, 0)
                 for part, space in zip(members, room)]
        members[found.index(min(found))].append(column)
    return [[names[column] for column in sorted(part)] for part in members]


def align(silos: Sequence[Silo]) -> list[Silo]:
    """Return the silos with their rows in one order, that of the silo whose name comes first in the alphabet.

    So the order of the silos does not matter. ValueError, naming silo and keys, for a key that a silo lacks, that
    only it has or that it holds twice, and for unequal row counts where no silo has keys.
    """
    silos = list(silos)
    names = [silo.name for silo in silos]
    if not silos or len(set(names)) < len(names):
        raise ValueError(f"at least one silo and distinct names are needed, got {names}")
    columns = [column for silo in silos for column in silo.kinds]
    twice = next((column for column in columns if columns.count(column) > 1), None)
    if twice is not None:
        raise ValueError(f"column {twice!r} is in more than one silo; keep it in one or rename it")
    without = [silo.name for silo in silos if silo.keys is None]
    first = min(silos, key=lambda silo: silo.name)
    if len(without) == len(silos):
        for silo in silos:
            if len(silo) != len(first):
                raise ValueError(f"{silo.name} has {len(silo)} rows, {first.name} has {len(first)}, and neither has "
                                 "keys: give every silo the same rows in the same order, or keys")
        return [silo.select(np.arange(len(silo))) for silo in silos]
    if without:
        raise ValueError(f"{without[0]} has no keys while other silos have; give keys to all silos or to none")
    wanted = _index(first)
    return [silo.select(_positions(silo, wanted, first.name)) for silo in silos]


def _index(silo: Silo) -> pd.Index:
    index = pd.Index(silo.keys)
    if index.hasnans:
        raise ValueError(f"{silo.name}: {int(index.isna().sum())} rows have no key; drop them or give them one")
    if index.has_duplicates:
        again = index[index.duplicated()].unique()
        raise ValueError(f"{silo.name}: {len(again)} keys stand for more than one row, among them {_few(again)}; "
                         "keep one row a key")
    return index


def _positions(silo: Silo, wanted: pd.Index, first: str) -> np.ndarray:
    index = _index(silo)
    missing, extra = wanted[~wanted.isin(index)], index[~index.isin(wanted)]
    if len(missing) or len(extra):
        what = [f"lacks {len(missing)} keys of {first}, among them {_few(missing)}"] if len(missing) else []
        what += [f"has {len(extra)} keys that {first} lacks, among them {_few(extra)}"] if len(extra) else []
        raise ValueError(f"{silo.name} {' and '.join(what)}; keep in every silo the rows whose key all silos have")
    return index.get_indexer(wanted)


def _few(keys: pd.Index) -> str:
    return ", ".join(repr(key) for key in keys[:SHOWN].tolist())


def bit_columns(table: Table) -> tuple[Table, Callable[[pd.DataFrame], pd.DataFrame]]:
    """Return the table with its categories cut into bits, and the way back (frame of bits -> frame of the table).

    A categorical column with more than two labels (a blank counts as one) becomes ceil(log2(labels)) columns
    "<column> bit k" of 0 and 1, the bits of the label's place in sorted order; all else stays as it is. So a table can
    have more silos than columns. A pattern of bits that no label has becomes the label with the fewest bits different
    from it, the more frequent one where two are equally near. A target that is cut is no longer the table's target.
    """
    frame, kinds, cut = {}, {}, {}
    for name, kind in table.kinds.items():
        series = table.frame[name]
        if kind != "categorical" or series.nunique(dropna=False) <= 2:
            frame[name], kinds[name] = series, kind
            continue
        column = CategoryColumn.fit(series)
        codes = column.encode(series)
        bits = (column.levels - 1).bit_length()
        cut[name] = (column, bits, np.bincount(codes, minlength=column.levels))
        for k in range(bits):
            frame[_bit(name, k)], kinds[_bit(name, k)] = codes >> k & 1, "categorical"
    if len(frame) < len(kinds) or any(_bit(name, 0) in table.kinds for name in cut):
        raise ValueError("a column is already called '<column> bit 0'; rename it")
    target = None if table.target in cut else table.target

    def back(bits_frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with the cut columns put together."""
        whole = {name: _label(bits_frame, name, *cut[name]) if name in cut else bits_frame[name]
                 for name in table.kinds}
        return pd.DataFrame(whole)

    return replace(table, frame=pd.DataFrame(frame), kinds=kinds, target=target), back


def _bit(name: str, k: int) -> str:
    return f"{name} bit {k}"


def _label(frame: pd.DataFrame, name: str, column: CategoryColumn, bits: int, counts: np.ndarray) -> pd.Series:
    pattern = sum(frame[_bit(name, k)].to_numpy(dtype=np.int64) << k for k in range(bits))
    patterns, codes = np.arange(2**bits), np.arange(column.levels)
    distance = sum((patterns[:, None] ^ codes) >> k & 1 for k in range(bits))
    nearest = np.lexsort((np.broadcast_to(-counts, distance.shape), distance), axis=1)[:, 0]
    return column.decode(nearest[pattern]).set_axis(frame.index)
