"""What generated pictures are worth: read rightly, of use to a classifier, near the truth for every group, no copies.

Labels here are the classes that the pictures were asked to show. A group is a set of classes under a name (a client's
majority and minority, say).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from feddiff.evaluation import image_classifier
from feddiff.evaluation.image_classifier import class_labels, in_portions, pictures
from feddiff.evaluation.image_distances import check_counts, frechet_estimate, kid, precision_recall
from feddiff.evaluation.image_features import Judge
from feddiff.evaluation.image_inception import Inception
from feddiff.evaluation.nearest import nearest_distances
from feddiff.evaluation.rates import clopper_pearson
from feddiff.evaluation.statistics import Estimate, mean_interval

Pictures = torch.Tensor | np.ndarray

MEMORISED_RATIO = 1 / 3
MOST_SHARED = 0.1
JACKKNIFE_GROUPS = 20
QUERIES = 256
PROPOSED = 4


@dataclass(frozen=True, eq=False)
class Downstream:
    """A classifier trained on one set and tested on another: shares of test pictures in [0, 1], 1 best.

    recalls: for each class, what share of its test pictures is named rightly. balanced_accuracy is their mean,
    worst_recall that of worst_class, gap the best less the worst (0 best). missing_classes had no training picture.
    confusion: counts (true class, named class).
    """

    recalls: tuple[float, ...]
    accuracy: float
    balanced_accuracy: float
    worst_class: int
    worst_recall: float
    gap: float
    missing_classes: tuple[int, ...]
    train_count: int
    confusion: np.ndarray

    def group(self, classes: Sequence[int]) -> float:
        """Return the mean recall of some classes (a minority, say)."""
        return float(np.mean([self.recalls[one] for one in classes]))


@dataclass(frozen=True)
class CopyTest:
    """What `copy_test` saw; distances are Euclidean over pixels in [-1, 1], shares in [0, 1] with exact intervals.

    closer_to_train: share nearer to the own training set than to the held-out set, ties half; .5 is ideal, 1 a copy.
    memorised: share with d_1 / d_2 < 1/3, d_1 and d_2 the distances to the two nearest different training pictures; 0
    is ideal. exact_copies: share equal to a training picture at 8 bits. ratio_median: of d_1 / d_2; distance_median:
    of d_1. shared: held-out pictures that are also training pictures. The intervals speak of more samples of the same
    model, not of other training sets.
    """

    closer_to_train: Estimate
    memorised: Estimate
    exact_copies: float
    ratio_median: float
    distance_median: float
    shared: int
    synthetic_count: int
    train_count: int
    label: str = "copy detector, not privacy"


def label_accuracy(judge: Judge, images: Pictures, labels: np.ndarray, *, confidence: float = 0.95) -> Estimate:
    """Return the share of pictures in which the judge sees the class asked for, with its exact binomial interval.

    In [0, 1], 1 best, and a real test set scores `judge.accuracy`. Prototype pictures score higher than real ones do:
    read it beside a distance (class means started at t0 = 100 gave .999 at a Fréchet distance of 40).
    """
    right = judge.predict(images) == class_labels(labels, len(images), judge.classes, "labels")
    return clopper_pearson(int(right.sum()), len(right), confidence)


def confusion(judge: Judge, images: Pictures, labels: np.ndarray) -> np.ndarray:
    """Return counts int64 (classes, classes): entry (i, j) pictures asked to show i in which the judge sees j."""
    labels = class_labels(labels, len(images), judge.classes, "labels")
    return _table(labels, judge.predict(images), judge.classes)


def group_scores(
    judge: Judge,
    real: Pictures,
    real_labels: np.ndarray,
    synthetic: Pictures,
    labels: np.ndarray,
    *,
    groups: Mapping[str, Sequence[int]],
    generator: np.random.Generator,
    extractor: Judge | Inception | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return one row per group and metric: group, metric, value, low, high, real_count, synthetic_count.

    `real` is the reference set (test pictures, not the judge's training pictures), `groups` maps names to classes,
    `extractor` has the features (None: the judge). Metrics: "label_accuracy" [0, 1], "frechet" and
    "frechet_corrected" (squared; 0 best), "kid" (0 best), "precision", "recall" [0, 1] (no interval: NaN). The class
    shares of both sides of a group should agree, and counts be equal between models that are compared. Raises
    ValueError naming a group that is too small for a Fréchet distance, before any work.
    """
    extractor = judge if extractor is None else extractor
    real_labels = class_labels(real_labels, len(real), judge.classes, "real labels")
    labels = class_labels(labels, len(synthetic), judge.classes, "labels")
    chosen = {}
    for name, classes in groups.items():
        chosen[name] = [np.flatnonzero(np.isin(side, list(classes))) for side in (real_labels, labels)]
        try:
            check_counts(*map(len, chosen[name]), extractor.dimension, groups=JACKKNIFE_GROUPS)
        except ValueError as error:
            raise ValueError(f"group {name!r} (classes {list(classes)}): {error}") from error
    features = [extractor.features(side) for side in (real, synthetic)]
    right = judge.predict(synthetic) == labels
    rows = []
    for name, (of_real, of_synthetic) in chosen.items():
        pair = features[0][of_real], features[1][of_synthetic]
        distance = frechet_estimate(*pair, generator=generator, groups=JACKKNIFE_GROUPS, confidence=confidence)
        hits = right[of_synthetic]
        neighbours = precision_recall(*pair, generator=generator)
        scores = {
            "label_accuracy": clopper_pearson(int(hits.sum()), len(hits), confidence),
            "frechet": distance.distance, "frechet_corrected": distance.corrected,
            "kid": kid(*pair, generator=generator, groups=JACKKNIFE_GROUPS, confidence=confidence),
            "precision": Estimate(neighbours.precision, np.nan, np.nan, neighbours.count),
            "recall": Estimate(neighbours.recall, np.nan, np.nan, neighbours.count),
        }
        rows += [(name, metric, *score[:3], len(of_real), len(of_synthetic)) for metric, score in scores.items()]
    columns = ["group", "metric", "value", "low", "high", "real_count", "synthetic_count"]
    return pd.DataFrame(rows, columns=columns)


def tstr(
    images: Pictures,
    labels: np.ndarray,
    test_images: Pictures,
    test_labels: np.ndarray,
    *,
    classes: int,
    seed: int,
    steps: int = 600,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> Downstream:
    """Train a LeNet on `images` (synthetic; real for the ceiling) and test it on real pictures, class by class.

    Always `steps` batches of 128, whatever the size of the set. A class without training pictures can never be named:
    its recall is 0 and it is listed. Raises ValueError where the test pictures lack a class.
    """
    images, test_images = pictures(images, "training pictures"), pictures(test_images, "test pictures")
    labels = class_labels(labels, len(images), classes, "training labels")
    test_labels = class_labels(test_labels, len(test_images), classes, "test labels")
    counts = np.bincount(test_labels, minlength=classes)
    if (counts == 0).any():
        raise ValueError(f"the test pictures lack the classes {np.flatnonzero(counts == 0).tolist()}: no recall there")
    network = image_classifier.fit(images, labels, classes=classes, seed=seed, steps=steps, device=device,
                                   progress=progress)
    present = np.unique(labels)
    logits = in_portions(network, network, test_images)
    table = _table(test_labels, present[logits[:, present].argmax(1)], classes)
    recalls = table.diagonal() / counts
    return Downstream(
        recalls=tuple(recalls.tolist()), accuracy=float(table.trace() / counts.sum()),
        balanced_accuracy=float(recalls.mean()), worst_class=int(recalls.argmin()),
        worst_recall=float(recalls.min()), gap=float(recalls.max() - recalls.min()),
        missing_classes=tuple(np.setdiff1d(np.arange(classes), present).tolist()), train_count=len(labels),
        confusion=table,
    )


def copy_test(
    synthetic: Pictures, own_train: Pictures, held_out: Pictures, *, confidence: float = 0.95
) -> CopyTest:
    """Look for copies of `own_train` among the synthetic pictures; a copy detector, not privacy (see `closeness`).

    `held_out` are equally many pictures of the same law that no model saw: fresh pictures are nearer to either half
    of the time, whatever the number (compare a class with pictures of that class). The criterion d_1 / d_2 < 1/3 is
    that of Yoon et al. (2023). A Fréchet distance cannot see what this sees. Raises ValueError for unequal counts,
    for fewer than two different training pictures, and where more than a tenth of `held_out` is in `own_train`.
    """
    sets = {name: pictures(given, f"{name} pictures") for name, given in
            (("synthetic", synthetic), ("training", own_train), ("held-out", held_out))}
    shapes = {name: tuple(given.shape[1:]) for name, given in sets.items()}
    if len(set(shapes.values())) != 1:
        raise ValueError(f"the pictures differ in (channels, height, width): {shapes}")
    if len(sets["training"]) != len(sets["held-out"]):
        raise ValueError(f"{len(sets['training'])} training and {len(sets['held-out'])} held-out pictures: the larger "
                         "set would be nearer by its size alone; draw equally many of both")
    bytes_of = {name: _eight_bits(given) for name, given in sets.items()}
    known = set(bytes_of["training"])
    shared = sum(one in known for one in bytes_of["held-out"])
    if shared > MOST_SHARED * len(bytes_of["held-out"]):
        raise ValueError(f"{shared} of {len(bytes_of['held-out'])} held-out pictures are training pictures: the two "
                         "must be disjoint, or copies stay unseen")
    flat = {name: given.flatten(1).double().numpy() for name, given in sets.items()}
    nearest, second = two_nearest(flat["synthetic"], flat["training"]).T
    to_held_out = nearest_distances(flat["synthetic"], flat["held-out"])
    ratio = nearest / second
    # The two searches sum in different orders: equal distances may differ by an ulp.
    tied = np.isclose(nearest, to_held_out, rtol=1e-12, atol=0)
    wins, count = np.where(tied, 0.5, nearest < to_held_out), len(nearest)
    closer = mean_interval(wins, confidence) if tied.any() else clopper_pearson(int(wins.sum()), count, confidence)
    return CopyTest(
        closer_to_train=closer,
        memorised=clopper_pearson(int(np.sum(ratio < MEMORISED_RATIO)), count, confidence),
        exact_copies=float(np.mean([one in known for one in bytes_of["synthetic"]])),
        ratio_median=float(np.median(ratio)), distance_median=float(np.median(nearest)), shared=shared,
        synthetic_count=count, train_count=len(flat["training"]),
    )


def two_nearest(queries: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return each query's distances to its two nearest different rows of `reference`, float64 (n, 2), ascending.

    Rows that occur twice in `reference` count once: the copy of a repeated picture must not look like no copy. A
    product in float64 proposes PROPOSED rows, whose distances are computed from differences: copies are at exactly 0.
    """
    distinct = np.unique(np.asarray(reference, dtype=float), axis=0)
    queries = np.asarray(queries, dtype=float)
    if len(distinct) < 2:
        raise ValueError("two nearest neighbours need at least two different pictures in the training set")
    proposed, squares = min(PROPOSED, len(distinct)), np.square(distinct).sum(1)
    result = np.empty((len(queries), 2))
    for start in range(0, len(queries), QUERIES):
        part = queries[start : start + QUERIES]
        rows = np.argpartition(squares - 2 * part @ distinct.T, proposed - 1, axis=1)[:, :proposed]
        exact = np.square(distinct[rows] - part[:, None]).sum(2)
        result[start : start + QUERIES] = np.sqrt(np.sort(exact, axis=1)[:, :2])
    return result


def _table(rows: np.ndarray, columns: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


def _eight_bits(images: torch.Tensor) -> list[bytes]:
    whole = ((images + 1) * 127.5).round().to(torch.uint8).flatten(1).numpy()
    return [row.tobytes() for row in whole]
