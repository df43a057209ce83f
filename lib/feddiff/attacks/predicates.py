"""Predicates on rows of mixed types, and how many rows each fits: conjunctions counted on sets of rows as bits."""

from dataclasses import dataclass

import numpy as np

MISSING = -1
EMPTY = -2
# Rows of one index (its sets are 128 bytes) and predicates counted at a time: both stay in the cache.
CHUNK = 1024
BATCH = 2048


@dataclass(frozen=True)
class Predicates:
    """Conjunctions of d conditions each: arrays (queries, d), columns of one predicate in increasing order.

    A condition holds where low <= code <= high (both `MISSING`: the value is missing; both `EMPTY`: never); a negated
    one where the code is not missing and outside.
    """

    columns: np.ndarray
    low: np.ndarray
    high: np.ndarray
    negated: np.ndarray

    def __len__(self) -> int:
        return len(self.columns)

    def take(self, chosen: np.ndarray | slice) -> "Predicates":
        """Return the chosen predicates (positions, mask or slice)."""
        return Predicates(self.columns[chosen], self.low[chosen], self.high[chosen], self.negated[chosen])

    def distinct(self) -> "Predicates":
        """Return the predicates without those written before, in order."""
        rows = np.column_stack([self.columns, self.low, self.high, self.negated])
        return self.take(first_rows(rows.astype(np.int32)))


def positive(columns: np.ndarray, low: np.ndarray, high: np.ndarray) -> Predicates:
    """Return predicates without negation."""
    return Predicates(columns, low, high, np.zeros(columns.shape, dtype=bool))


def joined(parts: list[Predicates]) -> Predicates:
    """Return the predicates of all parts, in order."""
    names = ("columns", "low", "high", "negated")
    return Predicates(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def first_rows(rows: np.ndarray) -> np.ndarray:
    """Return the positions, increasing, at which each distinct row of a matrix stands first."""
    rows = np.ascontiguousarray(rows)
    keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    return np.sort(np.unique(keys, return_index=True)[1])


class RowSets:
    """The rows of a table, codes (columns, rows) below `levels`, indexed for counting.

    For every column and every bound there is the set of rows below it, one bit per row; a condition is the difference
    of two such sets and a conjunction their intersection. Memory: at most 128 bytes per row and column.
    """

    def __init__(self, codes: np.ndarray, levels: int):
        # One sorted list of keys for all columns: the codes of a column, from `EMPTY` on, are shifted by its stride.
        self._stride = levels - EMPTY + 1
        self._chunks = [self._index(codes[:, start : start + CHUNK]) for start in range(0, codes.shape[1], CHUNK)]

    def count(self, predicates: Predicates) -> np.ndarray:
        """Return how many rows each predicate fits, int64 (queries,)."""
        counts = np.zeros(len(predicates), dtype=np.int64)
        for start in range(0, len(predicates), BATCH):
            part = predicates.take(slice(start, start + BATCH))
            low, high = self._keys(part.columns, part.low), self._keys(part.columns, part.high)
            for keys, below, present in self._chunks:
                # Column j has one set more than it has keys: the empty one, before its first.
                sets = below[np.searchsorted(keys, high, side="right") + part.columns]
                sets ^= below[np.searchsorted(keys, low) + part.columns]
                sets[part.negated] ^= present[part.columns[part.negated]]
                fits = np.bitwise_and.reduce(sets, axis=1)
                counts[start : start + BATCH] += np.bitwise_count(fits).sum(axis=1, dtype=np.int64)
        return counts

    def _keys(self, columns: np.ndarray, codes: np.ndarray) -> np.ndarray:
        return columns.astype(np.int64) * self._stride + codes - EMPTY

    def _index(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        keys, below, present = [], [], []
        for column, line in enumerate(codes):
            known, rank = np.unique(line, return_inverse=True)
            keys.append(self._keys(np.full(len(known), column), known))
            below.append(_packed(rank.astype(np.int16) < np.arange(len(known) + 1, dtype=np.int16)[:, None]))
            present.append(_packed((line != MISSING)[None]))
        return np.concatenate(keys), np.concatenate(below), np.concatenate(present)


def _packed(sets: np.ndarray) -> np.ndarray:
    """Return Boolean sets (n, rows) as bits, uint64 (n, CHUNK / 64)."""
    bits = np.zeros((len(sets), CHUNK // 8), dtype=np.uint8)
    bits[:, : (sets.shape[1] + 7) // 8] = np.packbits(sets, axis=1)
    return bits.view(np.uint64)
