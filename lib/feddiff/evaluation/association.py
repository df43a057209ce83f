"""How strongly the columns of a table depend on each other, all pairs at once, and how far a synthetic table is off.

The judge of "did the joint model learn what no silo could see alone": the mean |Cramer's V real - synthetic| over the
pairs of columns that lie in different silos, numbers cut at the real table's deciles. It grows from held-out real rows
to independent columns. Contingency similarity (`fidelity.pair_trends`) need not: it is the noise of a hundred cells,
and where the association is weak it ranks independent columns above held-out real rows.

Cramer's V is biased upwards by about sqrt(cells / rows), so that a smaller table seems more associated: Bergsma's
(2013) correction is the default (without it held-out rows of Loan are .034 off across silos and independent columns
.052; with it .023 and .064); the plain V is there to compare with other people's numbers. Conventions: a missing value
is a level of its own; a column with one level has association 0 with every other. Nothing here depends on the order of
rows or columns, and no input is changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from feddiff.evaluation.columns import CONTINUOUS, check_pair, kinds_of, numbers, shared_codes

BINS = 10
# Rows that are counted at once: memory stays below about 100 MB for 100 columns however long the table is.
CHUNK = 50_000


@dataclass(frozen=True)
class AssociationError:
    """Mean |V real - V synthetic| over pairs of columns, in [0, 1], 0 best.

    within, across: over the pairs inside one part and over those in two different parts, NaN where there is none (one
    column a part; one part); overall: over all pairs. pairs: one row per pair with column_1, column_2, part_1, part_2
    (positions in `parts`), across, real, synthetic, error.
    """

    within: float
    across: float
    overall: float
    pairs: pd.DataFrame


def association(
    frame: pd.DataFrame,
    *,
    kinds: Mapping[str, str] | None = None,
    bins: int = BINS,
    reference: pd.DataFrame | None = None,
    corrected: bool = True,
) -> pd.DataFrame:
    """Return Cramer's V of all pairs of columns of `frame`, d x d, symmetric, in [0, 1], 1 on the diagonal.

    Numbers are cut into `bins` parts at the quantiles of `reference` (default: of `frame`); give the real table there
    when `frame` is synthetic. corrected: Bergsma's (2013) bias correction; False: the plain V.
    Raises ValueError/TypeError for different columns, unknown kinds, columns without a value and infinities.
    """
    _, codes, levels = binned(frame if reference is None else reference, frame, kinds=kinds, bins=bins)
    return _named(_cramers_v(codes, levels, corrected), frame if reference is None else reference)


def association_error(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    *,
    parts: Sequence[Sequence[str]],
    kinds: Mapping[str, str] | None = None,
    bins: int = BINS,
    corrected: bool = True,
) -> AssociationError:
    """Compare the associations of two tables inside the parts (silos) and across them; see `AssociationError`.

    parts: the columns of each silo; together every column once. The noise level is what held-out real rows score, the
    floor what independent columns (or independent silos, across) score. Raises ValueError for parts that do not cover
    the columns once each.
    """
    owner = part_of_column(real, parts)
    names = list(real.columns)
    if len(names) < 2:
        raise ValueError(f"pairs need at least two columns, got {names}")
    in_real, in_synthetic, levels = binned(real, synthetic, kinds=kinds, bins=bins)
    first, second = np.triu_indices(len(names), 1)
    values = [_cramers_v(codes, levels, corrected)[first, second] for codes in (in_real, in_synthetic)]
    owners = np.array([owner[name] for name in names])
    pairs = pd.DataFrame({
        "column_1": [names[i] for i in first], "column_2": [names[j] for j in second],
        "part_1": owners[first], "part_2": owners[second], "across": owners[first] != owners[second],
        "real": values[0], "synthetic": values[1], "error": np.abs(values[0] - values[1]),
    })
    within, across = (float(pairs.loc[pairs["across"] == where, "error"].mean()) for where in (False, True))
    return AssociationError(within, across, float(pairs["error"].mean()), pairs)


def mixed_association(
    frame: pd.DataFrame, *, kinds: Mapping[str, str] | None = None, reference: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return Pearson's r (two numbers), Theil's U(row | column) (two categories) or the correlation ratio (mixed).

    d x d with 1 on the diagonal; Pearson in [-1, 1], the others in [0, 1]; only Theil's U is asymmetric: the share of
    the row column's entropy that the other takes away. Numbers missing on either side leave the row out of that pair.
    `reference`: the real table, whose kinds and columns hold.
    """
    reference = frame if reference is None else reference
    check_pair(reference, frame, ("reference", "given"))
    kinds = kinds_of(reference, kinds)
    discrete = [kind not in CONTINUOUS for kind in kinds.values()]
    result = np.zeros((len(kinds), len(kinds)))
    here, there = np.flatnonzero(discrete), np.flatnonzero(np.logical_not(discrete))
    if len(here):
        coded = reference[[name for name in kinds if kinds[name] not in CONTINUOUS]]
        _, codes, levels = binned(coded, frame[coded.columns], kinds=kinds)
        result[np.ix_(here, here)] = theils_u(codes, levels)
    if len(there):
        measured = np.column_stack([
            numbers(frame[name], f"column {name!r} of the given table")
            for name, kind in kinds.items() if kind in CONTINUOUS
        ])
        measured = measured - np.nanmean(measured, axis=0)
        result[np.ix_(there, there)] = pd.DataFrame(measured).corr().fillna(0.0).to_numpy()
    if len(here) and len(there):
        ratios = _correlation_ratios(codes, levels, measured)
        result[np.ix_(here, there)] = ratios
        result[np.ix_(there, here)] = ratios.T
    np.fill_diagonal(result, 1.0)
    return _named(result, reference)


def binned(
    reference: pd.DataFrame, frame: pd.DataFrame, *, kinds: Mapping[str, str] | None = None, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both tables as codes, int64 (rows, d), and the number of codes of each column, int64 (d,).

    Categories share one vocabulary; numbers are cut at the quantiles of `reference`, each bin with its upper edge (a
    heap of ties at the minimum is a bin); a missing value is a code of its own.
    """
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 2:
        raise ValueError(f"bins must be an integer >= 2, got {bins!r}")
    sides = ("reference", "given")
    check_pair(reference, frame, sides)
    blocks: list[list[np.ndarray]] = [[], []]
    levels = []
    for name, kind in kinds_of(reference, kinds).items():
        if kind in CONTINUOUS:
            columns = [numbers(table[name], f"column {name!r} of the {side} table")
                       for table, side in zip((reference, frame), sides)]
            edges = np.unique(np.nanquantile(columns[0], np.arange(1, bins) / bins))
            count = len(edges) + 2
            codes = [np.where(np.isnan(column), count - 1, np.searchsorted(edges, column)) for column in columns]
        else:
            *codes, count = shared_codes(reference[name], frame[name], name, sides)
            codes, count = [column + 1 for column in codes], count + 1
        levels.append(count)
        for block, column in zip(blocks, codes):
            block.append(column)
    return np.column_stack(blocks[0]), np.column_stack(blocks[1]), np.array(levels)


def theils_u(codes: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return U[i, j] = I(i; j) / H(i) (Theil, 1970): the share of column i's entropy that column j explains.

    codes (rows, d), paired by row, in 0..levels - 1 of each column; d x d in [0, 1], 1 on the diagonal, 0 where
    column i has one level.
    """
    joint, own, owner = _counts(codes, levels)
    rows = len(codes)
    information = _by_pair(
        joint.data / rows * np.log(joint.data * rows / (own[joint.row] * own[joint.col])), joint, owner, len(levels)
    )
    entropy = np.diag(information).copy()
    defined = entropy > 1e-12
    result = np.where(defined, 1.0 / np.where(defined, entropy, 1.0), 0.0)[:, None] * information
    np.fill_diagonal(result, 1.0)
    return np.clip(result, 0.0, 1.0)


def part_of_column(frame: pd.DataFrame, parts: Sequence[Sequence[str]]) -> dict[str, int]:
    """Return column -> position of its part; raises ValueError unless the parts hold every column exactly once."""
    if isinstance(parts, str) or any(isinstance(part, str) for part in parts):
        raise ValueError(f"parts must be a list of lists of column names, got {parts!r}")
    owner: dict[str, int] = {}
    twice = []
    for position, part in enumerate(parts):
        twice += [name for name in part if name in owner]
        owner |= {name: position for name in part}
    absent = [name for name in frame.columns if name not in owner]
    unknown = [name for name in owner if name not in frame.columns]
    if twice or absent or unknown:
        raise ValueError(
            f"parts must hold every column of the table exactly once: {absent} are in no part, {twice} in two, "
            f"{unknown} are no columns"
        )
    return owner


def _cramers_v(codes: np.ndarray, levels: np.ndarray, corrected: bool) -> np.ndarray:
    joint, own, owner = _counts(codes, levels)
    rows = len(codes)
    squared = _by_pair(joint.data**2 / (own[joint.row] * own[joint.col]), joint, owner, len(levels)) - 1.0
    kept = np.bincount(owner, weights=own > 0, minlength=len(levels))
    smaller = np.minimum.outer(kept, kept) - 1
    if corrected:
        freedom = np.outer(kept - 1, kept - 1) / max(rows - 1, 1)
        shrunk = kept - (kept - 1) ** 2 / max(rows - 1, 1)
        squared, smaller = squared - freedom, np.minimum.outer(shrunk, shrunk) - 1
    defined = smaller > 1e-9
    result = np.sqrt(np.clip(np.where(defined, squared, 0.0) / np.where(defined, smaller, 1.0), 0.0, 1.0))
    np.fill_diagonal(result, 1.0)
    return result


def _correlation_ratios(codes: np.ndarray, levels: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return eta (categories, numbers), the root of the share of a number's variance between levels (Pearson, 1905)."""
    indicator, owner = _indicator(codes, levels)
    present = ~np.isnan(measured)
    spread = np.where(present, measured, 0.0)
    spread = np.where(present, spread - spread.sum(axis=0) / present.sum(axis=0), 0.0)
    sums, counts = indicator.T @ spread, indicator.T @ present.astype(float)
    between = np.zeros((len(levels), measured.shape[1]))
    np.add.at(between, owner, sums**2 / np.maximum(counts, 1.0))
    total = (spread**2).sum(axis=0)
    return np.sqrt(np.clip(np.where(total > 0, between / np.where(total > 0, total, 1.0), 0.0), 0.0, 1.0))


def _counts(codes: np.ndarray, levels: np.ndarray) -> tuple[sparse.coo_matrix, np.ndarray, np.ndarray]:
    """Return how often every pair of levels occurs together (occurring ones only), each level, and its column."""
    joint = None
    for start in range(0, len(codes), CHUNK):
        indicator, owner = _indicator(codes[start : start + CHUNK], levels)
        product = indicator.T @ indicator
        joint = product if joint is None else joint + product
    return joint.tocoo(), joint.diagonal(), owner


def _indicator(codes: np.ndarray, levels: np.ndarray) -> tuple[sparse.csr_matrix, np.ndarray]:
    rows, columns = codes.shape
    offsets = np.concatenate([[0], np.cumsum(levels)])
    places = (codes + offsets[:-1]).ravel()
    shape = (rows, int(offsets[-1]))
    indicator = sparse.csr_matrix((np.ones(len(places)), places, np.arange(rows + 1) * columns), shape=shape)
    return indicator, np.repeat(np.arange(columns), levels)


def _by_pair(values: np.ndarray, joint: sparse.coo_matrix, owner: np.ndarray, columns: int) -> np.ndarray:
    pair = owner[joint.row] * columns + owner[joint.col]
    return np.bincount(pair, weights=values, minlength=columns**2).reshape(columns, columns)


def _named(matrix: np.ndarray, frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(matrix, index=list(frame.columns), columns=list(frame.columns))
