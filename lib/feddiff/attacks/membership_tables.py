"""Was this record in the training set? White-box attacks on a denoiser of tables, by its loss on single records.

Threat model: the adversary has the trained model, or enough access to ask for the training loss of a record at a
timestep and noise of its choice, and holds the records that it asks about. Reference-calibrated scores also need a
model of records that are not among them; shadow-trained scores need shadow models, trained by the adversary on
records of the same kind, so that it knows who was in.

A scoring callable is `loss_per_record(records, t, noise)` -> (n,) with timesteps t int64 (n, k) and noise float32
(n, k, width), the mean over the k draws; a callable of gradient norms may take its place and return (n, layers).
Scores: higher = member; `evaluation.membership` judges them. Timesteps are chosen before scores are seen, small ones
carry the signal. Sources: loss (Matsumoto et al., 2023; Hu and Pang, 2023), the same fixed noises for every record
and loss vectors into a network of shadows (Wu et al., 2025, "Tartan Federer", arXiv 2503.12008, section 3),
calibration (Watson et al., 2022), gradient norms (Pang et al., 2025, GSA).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from feddiff.attacks.membership_images import likelihood_ratio, loss_scores

__all__ = ["Shadow", "fixed_noises", "likelihood_ratio", "loss_scores", "losses", "shadow_scores", "shadow_trained"]

PerRecord = Callable[[pd.DataFrame | np.ndarray, np.ndarray, np.ndarray], np.ndarray]
CLASSIFIERS = ("logistic", "mlp")


def fixed_noises(width: int, draws: int, generator: np.random.Generator) -> np.ndarray:
    """Return noises float32 (draws, width) that every record is scored with: the luck of the draw is common to all."""
    if draws < 1 or width < 1:
        raise ValueError(f"width and draws must be at least 1, got {width!r} and {draws!r}")
    return generator.standard_normal((draws, width), dtype=np.float32)


def losses(
    per_record: PerRecord,
    records: pd.DataFrame | np.ndarray,
    *,
    times: Sequence[int],
    noises: np.ndarray,
    apart: bool = False,
) -> np.ndarray:
    """Return what the model says of each record at each timestep, float64 (n, times), the mean over the noises.

    noises: (draws, width), the same for every record, or (n, draws, width), its own for each. apart: keep the noises
    apart, (n, times * draws), as the loss vectors of Tartan Federer. A callable that returns (n, layers) gives
    (n, times * layers), and layers more for each noise kept apart.
    """
    noises, n = np.asarray(noises, dtype=np.float32), len(records)
    if not n or not len(times) or min(times) < 0:
        raise ValueError(f"need records and timesteps >= 0, at least one of each, got {n} records and {list(times)}")
    if noises.ndim not in (2, 3) or (noises.ndim == 3 and len(noises) != n) or not noises.size:
        raise ValueError(f"noises must be (draws, width) or ({n}, draws, width), got {noises.shape}")
    own = np.array(np.broadcast_to(noises, (n, *noises.shape[-2:])))
    parts = np.split(own, own.shape[1], axis=1) if apart else [own]
    found = []
    for time in times:
        for part in parts:
            t = np.full(part.shape[:2], time, dtype=np.int64)
            found.append(np.asarray(per_record(records, t, np.ascontiguousarray(part)), dtype=float).reshape(n, -1))
    found = np.concatenate(found, axis=1)
    if not np.isfinite(found).all():
        raise ValueError(f"{int((~np.isfinite(found)).sum())} losses are not finite")
    return found


@dataclass(frozen=True, eq=False)
class Shadow:
    """A model that the adversary trained itself: its scoring callable, the records it saw, and others it did not."""

    per_record: PerRecord
    members: pd.DataFrame | np.ndarray
    others: pd.DataFrame | np.ndarray


def shadow_trained(
    per_record: PerRecord,
    records: pd.DataFrame | np.ndarray,
    shadows: Sequence[Shadow],
    *,
    times: Sequence[int],
    noises: np.ndarray,
    classifier: str = "mlp",
    apart: bool = False,
    seed: int = 0,
) -> np.ndarray:
    """Return `shadow_scores` of the target's and the shadows' `losses` at the same timesteps and noises, (n,)."""
    asked = dict(times=times, noises=noises, apart=apart)
    known = [
        (losses(shadow.per_record, shadow.members, **asked), losses(shadow.per_record, shadow.others, **asked))
        for shadow in shadows
    ]
    return shadow_scores(losses(per_record, records, **asked), known, classifier=classifier, seed=seed)


def shadow_scores(
    found: np.ndarray, known: Sequence[tuple[np.ndarray, np.ndarray]], *, classifier: str = "mlp", seed: int = 0
) -> np.ndarray:
    """Return the log odds of membership of the target's vectors `found` (n, k), learned on shadow models, (n,).

    known: of each shadow the vectors of its members (m, k) and of others. Vectors are brought to mean 0 and variance 1
    within each model first, over all records asked of it: models differ in how well they fit, which is no membership.
    classifier: "logistic", or "mlp" (one layer of 100, as midst-toolkit's Tartan Federer).
    """
    found = np.asarray(found, dtype=float)
    shapes = [np.shape(side) for pair in known for side in pair]
    if found.ndim != 2 or not shapes or any(len(s) != 2 or s[0] < 1 or s[1] != found.shape[1] for s in shapes):
        raise ValueError(f"need vectors (n, k) and of at least one shadow (m, k) of both kinds, got {found.shape} and "
                         f"{shapes}")
    if classifier == "logistic":
        model = LogisticRegression(C=0.1, max_iter=1000)
    elif classifier == "mlp":
        model = MLPClassifier((100,), alpha=0.1, early_stopping=True, max_iter=200, random_state=seed)
    else:
        raise ValueError(f"classifier must be one of {CLASSIFIERS}, got {classifier!r}")
    vectors = [_within(np.concatenate(pair)) for pair in known]
    inside = [np.repeat([1, 0], [len(pair[0]), len(pair[1])]) for pair in known]
    model = make_pipeline(StandardScaler(), model).fit(np.concatenate(vectors), np.concatenate(inside))
    odds = model.predict_log_proba(_within(found))
    return odds[:, 1] - odds[:, 0]


def _within(vectors: np.ndarray) -> np.ndarray:
    spread = vectors.std(axis=0)
    return (vectors - vectors.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
