"""What attacks on latents aim at: columns on a public scale, and how much of them was learnt.

Numbers are put on the scale of a public sample of the population (normal scores of its ranks), so that what merely
stretches a column counts neither for nor against an attack; categories become codes of the public sample's values. A
table that no public sample describes can be put on the scale of the rows that the adversary knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import norm

from feddiff.evaluation.columns import CONTINUOUS, kinds_of, numbers

# Distances held at a time (8 MiB of float64).
BLOCK = 1 << 20
# Squared distances that differ by less are ties: they are sums of rounded products.
TIE = 1e-12


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows as arrays: codes int64 (n, m) with levels[j] values in column j, numbers float64 (n, p).

    names: the m code columns, then the p number columns.
    """

    codes: np.ndarray
    numbers: np.ndarray
    levels: tuple[int, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.codes) != len(self.numbers) or len(self.names) != self.codes.shape[1] + self.numbers.shape[1]:
            raise ValueError(f"codes {self.codes.shape}, numbers {self.numbers.shape} and {len(self.names)} names do "
                             "not describe the same rows and columns")

    def __len__(self) -> int:
        return len(self.codes)

    def select(self, rows: np.ndarray) -> "Rows":
        """Return the rows at the given positions."""
        return replace(self, codes=self.codes[rows], numbers=self.numbers[rows])

    def one_hot(self) -> np.ndarray:
        """Return the codes as 0 and 1, float64 (n, sum(levels))."""
        blocks = [self.codes[:, j, None] == np.arange(count) for j, count in enumerate(self.levels)]
        return np.concatenate(blocks, axis=1).astype(float) if blocks else np.zeros((len(self), 0))

    def embedded(self) -> np.ndarray:
        """Return points whose squared distance is that of the numbers plus 1 for every code that differs."""
        return np.concatenate([self.one_hot() * np.sqrt(0.5), self.numbers], axis=1)


def side_by_side(parts: Sequence[Rows]) -> Rows:
    """Return the columns of all parts for the same rows, code columns first."""
    m = [part.codes.shape[1] for part in parts]
    names = [name for part, k in zip(parts, m) for name in part.names[:k]]
    names += [name for part, k in zip(parts, m) for name in part.names[k:]]
    return Rows(
        np.concatenate([part.codes for part in parts], axis=1),
        np.concatenate([part.numbers for part in parts], axis=1),
        tuple(count for part in parts for count in part.levels), tuple(names),
    )


class Scale:
    """The scale of a public sample; kinds as in `evaluation.fidelity`."""

    def __init__(self, public: pd.DataFrame, kinds: Mapping[str, str] | None = None):
        self.kinds = kinds_of(public, kinds)
        if not len(public):
            raise ValueError("the public sample has no rows")
        self._values, self._scores = {}, {}
        for name, kind in self.kinds.items():
            if kind in CONTINUOUS:
                values = numbers(public[name], f"column {name!r} of the public sample")
                known, count = np.unique(values[~np.isnan(values)], return_counts=True)
                # Mid-ranks: tied values get the middle of their ranks.
                self._values[name] = known
                self._scores[name] = norm.ppf((np.cumsum(count) - count / 2) / count.sum())
            else:
                self._values[name] = pd.Index(public[name].dropna().astype(str).unique()).sort_values()

    def rows(self, frame: pd.DataFrame) -> Rows:
        """Return a table on this scale; values beyond the sample's ends become its ends, new categories one level.

        Missing numbers are at the median (0). ValueError for a column that the sample lacks.
        """
        if list(frame.columns) != list(self.kinds):
            raise ValueError(f"the public sample has the columns {list(self.kinds)}, the table {list(frame.columns)}")
        codes, values, levels, names = [], [], [], ([], [])
        for name, kind in self.kinds.items():
            if kind in CONTINUOUS:
                own = numbers(frame[name], f"column {name!r}")
                scored = np.interp(own, self._values[name], self._scores[name])
                values.append(np.where(np.isnan(own), 0.0, scored))
                names[1].append(name)
            else:
                place = self._values[name].get_indexer(frame[name].astype(str))
                codes.append(np.where(place < 0, len(self._values[name]), place))
                levels.append(len(self._values[name]) + 1)
                names[0].append(name)
        shape = (len(frame), 0)
        return Rows(
            np.column_stack(codes).astype(np.int64) if codes else np.empty(shape, dtype=np.int64),
            np.column_stack(values) if values else np.empty(shape), tuple(levels), (*names[0], *names[1]),
        )


def learnt(truth: Rows, guess: Rows, seen: Rows) -> pd.DataFrame:
    """Return how well each column was guessed: column, kind, score, baseline, gain.

    Numbers ("number"): score and gain are R^2 (1 is perfect, 0 the rows' own mean, negative is worse); baseline 0.
    Categories ("category"): score is the accuracy, baseline that of always naming the most frequent value of `seen`,
    the rows that the adversary learnt from; gain = (score - baseline) / (1 - baseline). Where nothing can be gained
    (all rows equal) the gain is NaN.
    """
    if not len(seen):
        raise ValueError("the baseline needs at least one row that the adversary has seen")
    found, m = [], len(truth.levels)
    for j, name in enumerate(truth.names[:m]):
        most = np.bincount(seen.codes[:, j]).argmax()
        score, baseline = np.mean(guess.codes[:, j] == truth.codes[:, j]), np.mean(truth.codes[:, j] == most)
        gain = (score - baseline) / (1 - baseline) if baseline < 1 else np.nan
        found.append((name, "category", score, baseline, gain))
    for j, name in enumerate(truth.names[m:]):
        own = truth.numbers[:, j]
        spread = np.square(own - own.mean()).sum()
        r2 = 1 - np.square(own - guess.numbers[:, j]).sum() / spread if spread > 0 else np.nan
        found.append((name, "number", r2, 0.0, r2))
    return pd.DataFrame(found, columns=["column", "kind", "score", "baseline", "gain"])


def leak(scores: pd.DataFrame) -> float:
    """Return the mean gain over columns, each clipped to [0, 1]; 0: nothing beyond the baseline, 1: everything."""
    gains = scores["gain"].dropna()
    if gains.empty:
        raise ValueError("no column varies: there is nothing to learn")
    return float(gains.clip(0, 1).mean())


def linked(guess: Rows, candidates: Rows) -> float:
    """Return the share of guessed rows whose nearest candidate is their own row (row i of both); chance is 1 / n.

    Ties share the win, so equal candidates lower the share that even the true rows reach: `linked(truth, truth)`.
    """
    if len(guess) != len(candidates):
        raise ValueError(f"row i of the guess belongs to candidate i, got {len(guess)} and {len(candidates)} rows")
    left, right = guess.embedded(), candidates.embedded()
    squares, size, won = np.square(right).sum(axis=1), max(1, BLOCK // len(right)), 0.0
    for start in range(0, len(left), size):
        part = left[start : start + size]
        distance = squares - 2 * part @ right.T + np.square(part).sum(axis=1)[:, None]
        nearest = distance <= distance.min(axis=1, keepdims=True) + TIE
        won += float((nearest[np.arange(len(part)), start + np.arange(len(part))] / nearest.sum(axis=1)).sum())
    return won / len(left)
