"""Was this record in the training set? Attacks that see a published synthetic table and nothing of the model.

Threat model: black box, one release. The adversary holds the synthetic rows, the records it asks about, and a
reference table of the same population that holds none of them. `compare` brings the three tables onto one scale;
each attack returns one score a record, float64 (n,), higher = member (`evaluation.membership` judges them). None of
them reads the order of rows, nor which records are members. They differ in what they look for:

`closest` distance to the closest synthetic row (DCR; GAN-leaks, Chen et al., 2020, without calibration);
`closer` the same, less the distance to the closest reference row;
`density_ratio` p_synthetic / p_reference by kernels or nearest neighbours (DOMIAS, van Breugel et al., 2023, eq. 2);
`influence` what the record adds to the likelihood of the synthetic rows near it (Gen-LRA, Ward et al., 2024);
`ball` synthetic rows in a ball around the record (Monte Carlo, Hilprecht et al., 2019, section 4.1);
`distinguished` a classifier of synthetic against reference rows (LOGAN, Hayes et al., 2019, black box with auxiliary);
`prediction_errors` how well each column of the record follows from the others (MIA-EPT, MIDST challenge, 2025).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor

from feddiff.attacks.mixed_rows import CONTROL, ORIGINAL, SYNTHETIC, WIDEST_ONE_HOT, MixedRows, mixed_rows
from feddiff.attacks.predicates import MISSING

# Distances held by one step of the search, beside the whole of them (64 MiB of float64).
CELLS = 1 << 23
TREES, COLUMN_TREES = 60, 10
# Kernels are so many times narrower than the gaps between reference rows: wider ones do not see a single copy.
NARROW = 4


@dataclass(frozen=True, eq=False)
class Compared:
    """Records, synthetic and reference rows on one scale, and how far records are from the two tables.

    to_synthetic (n, m) and to_reference (n, r): squared distances. within (m, r): of synthetic to reference rows.
    width: of kernels, the median distance from a reference row to its nearest other over NARROW, > 0. rows: the codes
    that trees read.
    """

    to_synthetic: np.ndarray
    to_reference: np.ndarray
    within: np.ndarray
    width: float
    rows: MixedRows


def compare(
    records: pd.DataFrame,
    synthetic: pd.DataFrame,
    reference: pd.DataFrame,
    *,
    kinds: Mapping[str, str] | None = None,
    aligned: bool = False,
) -> Compared:
    """Return the three tables compared; none is changed.

    The squared distance of two rows sums over columns the squared difference in standard deviations of the reference
    for numbers and 1 for differing categories; a missing number stands at the middle and differs by 1 besides.
    aligned: the synthetic numbers are first moved to the reference's means, which undoes a copy that was moved as a
    whole. ValueError as `mixed_rows`.
    """
    rows = mixed_rows(records, synthetic, reference, kinds)
    points = [_Points(rows, side) for side in (ORIGINAL, SYNTHETIC, CONTROL)]
    centre, spread = points[CONTROL].numbers.mean(0), points[CONTROL].numbers.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    if aligned:
        points[SYNTHETIC].numbers += centre - points[SYNTHETIC].numbers.mean(0)
    for side in points:
        side.numbers = side.numbers / spread
    own = _squared(points[CONTROL], points[CONTROL])
    np.fill_diagonal(own, np.inf)
    nearest = np.sqrt(own.min(axis=1)) if len(own) > 1 else np.ones(1)
    # Tables of few categories have mostly repeated rows, at distance 0 from each other.
    gap = float(np.median(nearest)) or float(nearest.mean()) or 1.0
    return Compared(
        to_synthetic=_squared(points[ORIGINAL], points[SYNTHETIC]),
        to_reference=_squared(points[ORIGINAL], points[CONTROL]),
        within=_squared(points[SYNTHETIC], points[CONTROL]),
        width=gap / NARROW,
        rows=rows,
    )


def closest(tables: Compared) -> np.ndarray:
    """Return minus the distance to the closest synthetic row; 0 is a copy."""
    return -np.sqrt(tables.to_synthetic.min(axis=1))


def closer(tables: Compared) -> np.ndarray:
    """Return the distance to the closest reference row less that to the closest synthetic row."""
    return np.sqrt(tables.to_reference.min(axis=1)) + closest(tables)


def density_ratio(tables: Compared, *, density: str = "kernel", neighbours: int = 5) -> np.ndarray:
    """Return log p_synthetic - log p_reference at each record, up to a constant (DOMIAS).

    density: "kernel", Gaussian kernels of the tables' `width` in every direction (the authors' choice for few columns;
    they use flows for many), or "neighbours", by the distance to the k-th nearest row.
    """
    if density == "kernel":
        return _log_kernels(tables.to_synthetic, tables.width) - _log_kernels(tables.to_reference, tables.width)
    if density != "neighbours":
        raise ValueError(f"density must be 'kernel' or 'neighbours', got {density!r}")
    least = min(tables.to_synthetic.shape[1], tables.to_reference.shape[1])
    if not 1 <= neighbours <= least:
        raise ValueError(f"neighbours must lie in 1..{least} rows, got {neighbours!r}")
    # A floor keeps copies finite: they are then ranked by their reference density.
    floor = 1e-6 * tables.width**2
    radii = [
        np.log(np.partition(side, neighbours - 1, axis=1)[:, neighbours - 1] + floor) / 2
        for side in (tables.to_reference, tables.to_synthetic)
    ]
    return radii[0] - radii[1]


def influence(tables: Compared, *, neighbours: int = 10) -> np.ndarray:
    """Return how much likelier the `neighbours` nearest synthetic rows are once the record joins the reference.

    Sum over those rows s of log p_{reference + record}(s) - log p_reference(s). The authors' estimator (Gen-LRA) with
    Gaussian kernels of one `width` in place of their local bandwidths.
    """
    count = min(neighbours, tables.to_synthetic.shape[1])
    if neighbours < 1:
        raise ValueError(f"neighbours must be at least 1, got {neighbours!r}")
    places = np.argpartition(tables.to_synthetic, count - 1, axis=1)[:, :count]
    before = _log_kernels(tables.within, tables.width)[places]
    added = -np.take_along_axis(tables.to_synthetic, places, axis=1) / (2 * tables.width**2)
    return (np.logaddexp(before, added) - before).sum(axis=1)


def ball(tables: Compared, *, radius: float | None = None) -> np.ndarray:
    """Return the share of synthetic rows within `radius` (default: the median distance of a record to its closest)."""
    if radius is None:
        radius = float(np.median(-closest(tables)))
    if radius < 0:
        raise ValueError(f"radius must not be negative, got {radius!r}")
    return (tables.to_synthetic <= radius**2).mean(axis=1)


def distinguished(tables: Compared, *, seed: int) -> np.ndarray:
    """Return the probability that a record is synthetic, by trees that tell synthetic from reference rows; [0, 1].

    Fully grown randomised trees (Geurts et al., 2006) in place of the authors' network: they know each row by heart,
    so that what they say of a member is what a copy of it would get.
    """
    sides = [tables.rows.codes[side].T for side in (SYNTHETIC, CONTROL)]
    labels = np.repeat([1, 0], [len(side) for side in sides])
    trees = ExtraTreesClassifier(TREES, class_weight="balanced", random_state=seed)
    trees.fit(np.concatenate(sides), labels)
    return trees.predict_proba(tables.rows.codes[ORIGINAL].T)[:, 1]


def prediction_errors(tables: Compared, *, side: int = SYNTHETIC, seed: int) -> np.ndarray:
    """Return each column's error when trees trained on the synthetic rows predict it from the others, (n, columns).

    Numbers: |error| in standard deviations of the table learned from. Categories: 1 - probability of the true value;
    those of more than WIDEST_ONE_HOT levels, and columns that are constant or hold gaps, are left out. The vectors
    are what MIA-EPT feeds to a classifier trained on shadows; `attribute_errors` needs none.
    """
    rows, found = tables.rows, []
    for column in range(len(rows.names)):
        learned, truth = rows.codes[side][column], rows.codes[ORIGINAL][column]
        wide = not rows.continuous[column] and rows.levels[column] > WIDEST_ONE_HOT
        if wide or rows.gaps[column] or (learned == learned[0]).all():
            continue
        others = np.delete(np.arange(len(rows.names)), column)
        given, asked = rows.codes[side][others].T, rows.codes[ORIGINAL][others].T
        options = dict(n_estimators=COLUMN_TREES, random_state=seed + column)
        if rows.continuous[column]:
            values = rows.numbers_of(side, column)
            trees = ExtraTreesRegressor(**options).fit(given, values)
            found.append(np.abs(trees.predict(asked) - rows.numbers_of(ORIGINAL, column)) / values.std())
        else:
            trees = ExtraTreesClassifier(**options).fit(given, learned)
            shares = np.zeros((len(truth), rows.levels[column]))
            shares[:, trees.classes_] = trees.predict_proba(asked)
            found.append(1 - shares[np.arange(len(truth)), truth])
    if not found:
        raise ValueError(f"no column of {list(rows.names)} can be predicted: all are constant, wide or hold gaps")
    return np.stack(found, axis=1)


def attribute_errors(tables: Compared, *, seed: int) -> np.ndarray:
    """Return how much better trees of the synthetic than of the reference rows predict each record, (n,).

    The mean over columns of the reference's error less the synthetic's. Stated simplification of MIA-EPT, which needs
    shadow generators to learn what the errors of members look like.
    """
    mean = [prediction_errors(tables, side=side, seed=seed).mean(axis=1) for side in (CONTROL, SYNTHETIC)]
    return mean[0] - mean[1]


def all_scores(tables: Compared, *, seed: int) -> dict[str, np.ndarray]:
    """Return name -> scores of every attack of this module."""
    return {
        "closest": closest(tables), "closer": closer(tables), "domias": density_ratio(tables),
        "domias_neighbours": density_ratio(tables, density="neighbours"), "gen_lra": influence(tables),
        "ball": ball(tables), "classifier": distinguished(tables, seed=seed),
        "attributes": attribute_errors(tables, seed=seed),
    }


class _Points:
    """The rows of one table as points: numbers with a mark for missing ones, one-hot categories, codes of wide ones."""

    def __init__(self, rows: MixedRows, side: int):
        numbers, marks, wide = [], [], []
        for column in range(len(rows.names)):
            codes = rows.codes[side][column]
            if rows.continuous[column]:
                values = rows.numbers_of(side, column)
                # A missing value stands at one place for all tables; its mark tells it from a value there.
                numbers.append(np.where(np.isnan(values), np.mean(rows.values[column]), values))
                if rows.gaps[column]:
                    marks.append((codes == MISSING)[:, None].astype(float))
            elif rows.levels[column] > WIDEST_ONE_HOT:
                wide.append(codes)
            else:
                marks.append((codes[:, None] == np.arange(MISSING, rows.levels[column])) * 0.5**0.5)
        count = rows.rows(side)
        self.numbers = torch.from_numpy(np.column_stack(numbers) if numbers else np.zeros((count, 0)))
        self.marks = torch.from_numpy(np.concatenate(marks, axis=1) if marks else np.zeros((count, 0)))
        self.wide = wide


def _squared(left: _Points, right: _Points) -> np.ndarray:
    """Return squared distances (left, right), exactly 0 between equal rows, in blocks of CELLS."""
    a, b = (torch.cat([side.numbers, side.marks], 1) for side in (left, right))
    found = np.empty((len(a), len(b)))
    for rows in torch.arange(len(a)).split(max(1, CELLS // len(b))):
        # The matrix product that cdist takes by default blurs copies; differences do not.
        part = torch.cdist(a[rows], b, compute_mode="donot_use_mm_for_euclid_dist").square().numpy()
        for one, other in zip(left.wide, right.wide, strict=True):
            part += one[rows.numpy(), None] != other
        found[rows.numpy()] = part
    return found


def _log_kernels(squared: np.ndarray, width: float) -> np.ndarray:
    """Return the log of the mean kernel at each row, up to the constant that all densities here share."""
    return logsumexp(-squared / (2 * width**2), axis=1) - np.log(squared.shape[1])
