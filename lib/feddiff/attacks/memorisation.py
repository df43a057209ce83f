"""Are generated pictures training pictures? Two criteria of the literature, each beside a control set of equal size.

Threat model: the adversary has generated pictures only (a release, or a sampler to ask); whoever judges has the
training set. What the training set explains no better than as many pictures of the same kind that the model never saw
is resemblance, not memory: the control is measured in the same way, and the excess is what is reported. Nothing here
proves privacy where it finds nothing.
"""

from dataclasses import dataclass

import numpy as np

from feddiff.evaluation.image_quality import MEMORISED_RATIO, two_nearest
from feddiff.evaluation.nearest import nearest_distances
from feddiff.evaluation.rates import clopper_pearson, excess, wilson
from feddiff.evaluation.statistics import Estimate

QUERIES = 256
NEIGHBOURS = 50
ALPHA = 0.5


@dataclass(frozen=True, eq=False)
class Memorised:
    """Shares of samples that meet a criterion against training and control pictures, in [0, 1]; 0 is best.

    excess: (training - control) / (1 - control) with its interval, about 0 where nothing is memorised. extracted:
    positions of the training pictures that a sample that meets the criterion comes nearest to, sorted.
    """

    training: Estimate
    control: Estimate
    excess: Estimate
    extracted: np.ndarray


def ratio_test(
    samples: np.ndarray, training: np.ndarray, control: np.ndarray, *, ratio: float = MEMORISED_RATIO
) -> Memorised:
    """Judge by d1 / d2 < ratio, d1 and d2 the distances to the two nearest different pictures (Yoon et al. 2023).

    Arrays (n, ...), training and control equally many and disjoint; ValueError otherwise.
    """
    samples, training, control = _checked(samples, training, control)
    hits = []
    for side in (training, control):
        nearest, second = two_nearest(samples, side).T
        hits.append(nearest < ratio * second)
    return _memorised(samples, training, *hits)


def extraction_test(
    samples: np.ndarray, training: np.ndarray, control: np.ndarray, *, alpha: float = ALPHA,
    neighbours: int = NEIGHBOURS,
) -> Memorised:
    """Judge by d1 < alpha times the mean distance to the `neighbours` nearest pictures (Carlini et al. 2023).

    Near parts of the space, where all pictures are alike, have a smaller yardstick. Arrays as in `ratio_test`.
    """
    samples, training, control = _checked(samples, training, control)
    if not 2 <= neighbours <= len(training):
        raise ValueError(f"neighbours must lie in 2..{len(training)}, the number of pictures, got {neighbours!r}")
    hits = []
    for side in (training, control):
        # The nearest one is measured exactly; the mean of many needs no such care.
        hits.append(nearest_distances(samples, side) < alpha * _mean_of_nearest(samples, side, neighbours))
    return _memorised(samples, training, *hits)


def nearest_scores(samples: np.ndarray, records: np.ndarray) -> np.ndarray:
    """Return minus each record's distance to the nearest sample, (n,): a black-box score of membership (GAN-leaks).

    For `evaluation.membership`; it sees copies, and little else (Chen et al. 2020).
    """
    records, samples = _flat(records, "records"), _flat(samples, "samples")
    return -nearest_distances(records, samples)


def _memorised(samples: np.ndarray, training: np.ndarray, hits: np.ndarray, false: np.ndarray) -> Memorised:
    count, found = len(samples), [int(side.sum()) for side in (hits, false)]
    rates = [wilson(k, count) for k in found]
    own = samples[hits]
    places = [int(np.square(training - one).sum(1).argmin()) for one in own]
    return Memorised(*(clopper_pearson(k, count) for k in found), excess(*rates), np.unique(places).astype(np.int64))


def _mean_of_nearest(samples: np.ndarray, side: np.ndarray, neighbours: int) -> np.ndarray:
    squares, parts = np.square(side).sum(1), []
    for start in range(0, len(samples), QUERIES):
        part = samples[start : start + QUERIES]
        distances = np.square(part).sum(1)[:, None] - 2 * part @ side.T + squares
        nearest = np.partition(distances, neighbours - 1, axis=1)[:, :neighbours]
        parts.append(np.sqrt(np.maximum(nearest, 0)).mean(1))
    return np.concatenate(parts)


def _checked(samples: np.ndarray, training: np.ndarray, control: np.ndarray) -> list[np.ndarray]:
    sets = [_flat(*pair) for pair in ((samples, "samples"), (training, "training"), (control, "control"))]
    if len(sets[1]) != len(sets[2]):
        raise ValueError(f"{len(sets[1])} training and {len(sets[2])} control pictures: the larger set would be nearer "
                         "by its size alone; draw equally many of both")
    if len({side.shape[1] for side in sets}) > 1:
        raise ValueError(f"pictures differ in their number of values: {[side.shape[1] for side in sets]}")
    return sets


def _flat(pictures: np.ndarray, name: str) -> np.ndarray:
    found = np.asarray(pictures, dtype=float)
    if found.ndim < 2 or not found.size or not np.isfinite(found).all():
        raise ValueError(f"{name} must be a non-empty, finite array (n, ...), got shape {found.shape}")
    return found.reshape(len(found), -1)
