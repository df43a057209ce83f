"""Distances between two sets of pictures in a feature space: Fréchet, kernel (KID), precision and recall.

All take features, (n, d) and (m, d), not pictures, and depend on no row order. None of them can see copying: a set of
training pictures is as good a sample of the truth as there is (`image_quality.copy_test` looks for that). A value
means nothing without its features, counts and reference set: `protocol` is the entry for a record.

- Fréchet distance (Fréchet, 1957; FID: Heusel et al., 2017): |m_1 - m_2|^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2)) of the
  two means and covariances, the squared 2-Wasserstein distance of Gaussians; [0, inf), 0 best. Estimated from n
  pictures it is too large by a term of order 1 / n: compare at equal counts, or use `frechet_estimate(...).corrected`.
- KID (Bińkowski et al., 2018): squared maximum mean discrepancy, unbiased, about 0 for equal laws (and then negative
  half of the time); 0 best.
- precision and recall (Kynkäänniemi et al., 2019): share of synthetic features inside the k-NN balls of the real ones,
  and the reverse; [0, 1], 1 best.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student

from feddiff.evaluation.statistics import Estimate

CHUNK = 1024
DEGREE = 3


class FrechetEstimate(NamedTuple):
    """distance: the value at these counts and where another draw of both sets would put it; corrected: without the
    bias of order 1 / n, an estimate of the distance between the two laws (it may fall below 0). count = groups."""

    distance: Estimate
    corrected: Estimate


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1], 1 best; k: neighbours that set the radius; count: pictures of each side that were used."""

    precision: float
    recall: float
    k: int
    count: int


def check_counts(real: int, synthetic: int, dimension: int, *, groups: int | None = None) -> None:
    """Raise ValueError, naming the count needed, unless both sides have more pictures than `dimension` features.

    groups: as in `frechet_estimate`, which leaves one of so many groups out. Ask before a long run, not after it.
    """
    for count, name in ((real, "real"), (synthetic, "synthetic")):
        if _remaining(count, groups) <= dimension:
            needed = dimension + 1
            while _remaining(needed, groups) <= dimension:
                needed += 1
            without = f" with one of {groups} groups left out" if groups else ""
            raise ValueError(f"{count} {name} pictures are too few for a Fréchet distance in {dimension} features"
                             f"{without}: at least {needed} are needed, and several times as many for a small bias")


def frechet(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Return the squared Fréchet distance between Gaussians fitted to the features; [0, inf), 0 best.

    Covariances with divisor n - 1. Raises ValueError where a set has no more pictures than features: its covariance
    would have lost a direction that nobody looked in.
    """
    real, synthetic = _pair(real, synthetic)
    check_counts(len(real), len(synthetic), real.shape[1])
    return _between(_fit(real), _fit(synthetic))


def frechet_gaussians(
    mean_1: np.ndarray, covariance_1: np.ndarray, mean_2: np.ndarray, covariance_2: np.ndarray
) -> float:
    """Return the squared Fréchet (2-Wasserstein) distance of two Gaussians given by means (d,) and covariances (d, d).

    Dowson & Landau (1982). Covariances may be singular; ValueError where one is not symmetric and >= 0.
    """
    means = [np.asarray(mean, dtype=float) for mean in (mean_1, mean_2)]
    if means[0].ndim != 1 or means[0].shape != means[1].shape:
        raise ValueError(f"means must be two vectors of one length, got shapes {means[0].shape} and {means[1].shape}")
    factors = [_factor(np.asarray(matrix, dtype=float), len(means[0])) for matrix in (covariance_1, covariance_2)]
    return _squared(means[0] - means[1], *factors)


def frechet_estimate(
    real: np.ndarray,
    synthetic: np.ndarray,
    *,
    generator: np.random.Generator,
    groups: int = 20,
    confidence: float = 0.95,
) -> FrechetEstimate:
    """Return the Fréchet distance with an interval, and the same without its bias, by the delete-a-group jackknife.

    Each side is cut into `groups` random groups (drawn from `generator`) that are left out in turn (Quenouille, 1956;
    Shao & Tu, 1995); t intervals with groups - 1 degrees of freedom. A bootstrap would not do: drawing pictures twice
    adds the very bias that is in question. Where the two laws are equal the distance is quadratic in the sampling
    error and the interval is wide rather than exact.
    """
    real, synthetic = _pair(real, synthetic)
    _check_interval(real, synthetic, groups, confidence)
    check_counts(len(real), len(synthetic), real.shape[1], groups=groups)
    fits = _fit(real), _fit(synthetic)
    value = _between(*fits)
    bias, variance = 0.0, 0.0
    for side, other in ((real, fits[1]), (synthetic, fits[0])):
        rows = np.array_split(generator.permutation(len(side)), groups)
        without = [_between(_fit(np.delete(side, group, axis=0)), other) for group in rows]
        bias += (groups - 1) * (np.mean(without) - value)
        variance += (groups - 1) * np.var(without)
    half = _half_width(variance, groups, confidence)
    return FrechetEstimate(*(
        Estimate(float(centre), float(centre - half), float(centre + half), groups) for centre in (value, value - bias)
    ))


def kid(
    real: np.ndarray,
    synthetic: np.ndarray,
    *,
    generator: np.random.Generator,
    groups: int = 20,
    confidence: float = 0.95,
) -> Estimate:
    """Return the kernel distance, `polynomial_mmd` of all pictures, with a delete-a-group jackknife interval.

    Groups and interval as in `frechet_estimate`. The usual mean over 100 overlapping subsets of 1,000 wastes pictures
    and its spread is no error of the mean. For equal laws the interval is wider than it says.
    """
    real, synthetic = _pair(real, synthetic)
    if min(len(real), len(synthetic)) < 4:
        raise ValueError(f"an interval of the kernel distance needs at least 4 pictures a side, got {len(real)} real "
                         f"and {len(synthetic)} synthetic ones")
    _check_interval(real, synthetic, groups, confidence)
    # Sums of the kernel between groups: every version with a group left out is a sum of these.
    shuffled = [side[generator.permutation(len(side))] for side in (real, synthetic)]
    across = _group_sums(*shuffled, groups)
    value, variance = polynomial_mmd(*shuffled), 0.0
    for side, between in ((0, across), (1, across.T)):
        own, other = shuffled[side], shuffled[1 - side]
        within = _group_sums(own, own, groups)
        within[np.diag_indices(groups)] -= [_itself(part).sum() for part in np.array_split(own, groups)]
        left = len(own) - np.array([len(part) for part in np.array_split(own, groups)])
        without = (within.sum() - 2 * within.sum(1) + within.diagonal()) / (left * (left - 1))
        without -= 2 * (between.sum() - between.sum(1)) / (left * len(other))
        variance += (groups - 1) * np.var(without)
    half = _half_width(variance, groups, confidence)
    return Estimate(value, value - half, value + half, groups)


def polynomial_mmd(real: np.ndarray, synthetic: np.ndarray) -> float:
    """Return the unbiased squared maximum mean discrepancy of the kernel (x . y / d + 1)^3 (Gretton et al., 2012).

    The U-statistic over all pairs of different pictures; 0 in the mean for equal laws. Needs two pictures a side.
    """
    real, synthetic = _pair(real, synthetic)
    total = 0.0
    for side, name in ((real, "real"), (synthetic, "synthetic")):
        if len(side) < 2:
            raise ValueError(f"the kernel distance needs at least 2 {name} pictures, got {len(side)}")
        total += (_group_sums(side, side).sum() - _itself(side).sum()) / (len(side) * (len(side) - 1))
    return float(total - 2 * _group_sums(real, synthetic).sum() / (len(real) * len(synthetic)))


def precision_recall(
    real: np.ndarray, synthetic: np.ndarray, *, k: int = 3, generator: np.random.Generator | None = None
) -> PrecisionRecall:
    """Return precision and recall of Kynkäänniemi et al. (2019, eqs. 1 and 2) with k-NN radii (the paper: k = 3).

    A point on a ball's surface (within rounding) is inside. Radii shrink with the count, so both sides must have
    equally many pictures: of the larger, rows are drawn from `generator` (ValueError without one).
    """
    real, synthetic = _pair(real, synthetic)
    count = min(len(real), len(synthetic))
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k < count:
        raise ValueError(f"k must be an integer from 1 to {count - 1} (one less than the {count} pictures of the "
                         f"smaller side), got {k!r}")
    if len(real) != len(synthetic):
        if generator is None:
            raise ValueError(f"{len(real)} real and {len(synthetic)} synthetic pictures: pass generator= to draw "
                             "equally many of both")
        real, synthetic = (side[generator.permutation(len(side))[:count]] for side in (real, synthetic))
    # Distances do not change, rounding shrinks.
    centre = real.mean(0)
    real, synthetic = real - centre, synthetic - centre
    return PrecisionRecall(_share_inside(synthetic, real, k), _share_inside(real, synthetic, k), int(k), count)


def protocol(features: str, *, dimension: int, reference: str, real: int, synthetic: int) -> dict:
    """Return what a record needs to say beside a distance: features by name, counts and reference set."""
    if not features or not reference:
        raise ValueError("features and reference must be named, e.g. judge.name and \"MNIST test set, classes 0-4\"")
    return {
        "features": features, "dimension": int(dimension), "reference": reference, "real_count": int(real),
        "synthetic_count": int(synthetic),
        "frechet": "squared, Gaussian fits, divisor n - 1; corrected = delete-a-group jackknife",
        "kid": "unbiased MMD^2, kernel (x.y/d + 1)^3",
        "precision_recall": "k-NN balls, k = 3, equal counts",
    }


def _remaining(count: int, groups: int | None) -> int:
    return count - math.ceil(count / groups) if groups else count


def _check_interval(real: np.ndarray, synthetic: np.ndarray, groups: int, confidence: float) -> None:
    fewest = min(len(real), len(synthetic))
    if isinstance(groups, bool) or not isinstance(groups, (int, np.integer)) or not 2 <= groups <= fewest:
        raise ValueError(f"groups must be an integer from 2 to {fewest} (the pictures of the smaller side), "
                         f"got {groups!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence!r}")


def _half_width(variance: float, groups: int, confidence: float) -> float:
    return float(student.ppf((1 + confidence) / 2, groups - 1) * np.sqrt(variance))


def _fit(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and a factor L of the covariance L L'."""
    # The factor comes from the centred data themselves: nothing is squared on the way.
    mean = features.mean(0)
    return mean, np.linalg.qr(features - mean, mode="r").T / np.sqrt(len(features) - 1)


def _between(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> float:
    return _squared(first[0] - second[0], first[1], second[1])


def _squared(gap: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """Return the distance from factors S = L L'; tr (S_1 S_2)^(1/2) is the sum of the singular values of L_1' L_2.

    No root of a product that is not symmetric and nearly singular, which is where sqrtm fails or turns complex.
    """
    cross = np.linalg.svd(first.T @ second, compute_uv=False).sum()
    return max(0.0, float(gap @ gap + np.square(first).sum() + np.square(second).sum() - 2 * cross))


def _factor(covariance: np.ndarray, dimension: int) -> np.ndarray:
    if covariance.shape != (dimension, dimension) or not np.isfinite(covariance).all():
        raise ValueError(f"a covariance must be finite ({dimension}, {dimension}), got shape {covariance.shape}")
    values, vectors = np.linalg.eigh(covariance)
    size = max(float(np.abs(values).max()), np.finfo(float).tiny)
    if np.abs(covariance - covariance.T).max() > 1e-8 * size or values.min() < -1e-8 * size:
        raise ValueError(f"a covariance must be symmetric with eigenvalues >= 0; the least is {values.min():g}")
    return vectors * np.sqrt(values.clip(0))


def _itself(points: np.ndarray) -> np.ndarray:
    return (np.square(points).sum(1) / points.shape[1] + 1) ** DEGREE


def _group_sums(first: np.ndarray, second: np.ndarray, groups: int = 1) -> np.ndarray:
    """Return the sums of the kernel over pairs of consecutive groups of rows, float64 (groups, groups)."""
    sums = np.zeros((groups, groups))
    starts = np.cumsum([0, *(len(part) for part in np.array_split(second, groups))][:-1])
    for row, part in enumerate(np.array_split(first, groups)):
        for start in range(0, len(part), CHUNK):
            kernel = (part[start : start + CHUNK] @ second.T / first.shape[1] + 1) ** DEGREE
            sums[row] += np.add.reduceat(kernel.sum(0), starts)
    return sums


def _squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.square(first).sum(1)[:, None] + np.square(second).sum(1) - 2 * first @ second.T


def _share_inside(queries: np.ndarray, points: np.ndarray, k: int) -> float:
    """Return the share of queries within any point's distance to its k-th nearest other point."""
    slices = [slice(start, start + CHUNK) for start in range(0, len(points), CHUNK)]
    # The point itself is among its own k + 1 nearest.
    radii = np.concatenate([np.partition(_squared_distances(points[part], points), k)[:, k] for part in slices])
    largest = max(float(np.square(side).sum(1).max()) for side in (queries, points))
    limits = radii + 8 * (points.shape[1] + 4) * np.finfo(float).eps * largest
    return float(np.mean(np.concatenate([
        (_squared_distances(queries[part], points) <= limits).any(1) for part in slices
    ])))


def _pair(real: np.ndarray, synthetic: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    sides = [np.asarray(side, dtype=float) for side in (real, synthetic)]
    for side, name in zip(sides, ("real", "synthetic")):
        if side.ndim != 2 or side.size == 0:
            raise ValueError(f"the {name} features must be non-empty (pictures, features), got shape {side.shape}")
        if not np.isfinite(side).all():
            raise ValueError(f"the {name} features hold values that are not finite")
    if sides[0].shape[1] != sides[1].shape[1]:
        raise ValueError(f"{sides[0].shape[1]} real and {sides[1].shape[1]} synthetic features: they come from "
                         "different extractors")
    return sides[0], sides[1]
