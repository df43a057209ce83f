"""Whose record is it, and was it trained on: attacks that read the uploads of single clients.

Threat model (source inference, Hu et al. 2021, "Source Inference Attacks in Federated Learning", section 3): the server
is honest but curious, sees the weights that every client uploads, and knows that a record is in the training data; it
asks whose. The client whose model has the smallest loss is guessed; chance is 1 / clients. `source` takes one record or
the mean over several records of one owner, where what is inferred is a property of the client, not of a record.

Threat model (update canaries, Andrew et al. 2024, "One-shot Empirical Privacy Estimation for Federated Learning",
sections 3-4): an auditor adds random directions to some updates and asks whether the final update points to them. This
needs one run and no retraining. `one_shot_epsilon` is an estimate under a normal fit: NOT a lower bound, it has no
confidence, and may lie on either side of the true epsilon. For bounds see `attacks.audit`.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from feddiff.evaluation import rates
from feddiff.evaluation.statistics import Estimate
from feddiff.privacy.arguments import count, delta_of


def source(losses: np.ndarray, reference: np.ndarray | None = None, groups: np.ndarray | None = None) -> np.ndarray:
    """Return the guessed client of every record (or group of records), integers in [0, clients).

    losses (clients, n): of each record under each client's upload. reference (clients, m): of records that belong to
    nobody; their mean is taken off, or else the client whose model is best for everybody is guessed for everybody.
    groups (n,): records of one owner, whose losses are averaged; guesses then follow the sorted names of the groups.
    Ties go to the first client; ValueError where all uploads give all records the same loss.
    """
    losses = np.asarray(losses, dtype=float)
    if losses.ndim != 2 or len(losses) < 2 or not np.isfinite(losses).all():
        raise ValueError(f"losses must be finite, (clients, records) with at least 2 clients, got {losses.shape}")
    if reference is not None:
        reference = np.asarray(reference, dtype=float)
        if reference.ndim != 2 or len(reference) != len(losses) or not np.isfinite(reference).all():
            raise ValueError(f"reference must be finite, ({len(losses)}, records), got {reference.shape}")
        losses = losses - reference.mean(axis=1, keepdims=True)
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != losses.shape[1:]:
            raise ValueError(f"groups must name a group for each of {losses.shape[1]} records, got {groups.shape}")
        names = np.unique(groups)
        losses = np.stack([losses[:, groups == name].mean(axis=1) for name in names], axis=1)
    if not np.ptp(losses, axis=0).any():
        raise ValueError("losses are the same for every client: the uploads do not differ, there is nothing to infer")
    return losses.argmin(axis=0)


def source_accuracy(guessed: np.ndarray, owners: np.ndarray) -> Estimate:
    """Return the share of right guesses with an exact interval; chance is 1 / clients where all own equally many."""
    guessed, owners = np.asarray(guessed), np.asarray(owners)
    if guessed.shape != owners.shape or guessed.ndim != 1 or not len(owners):
        raise ValueError(f"guessed and owners must be vectors of one length >= 1, got {guessed.shape}, {owners.shape}")
    return rates.clopper_pearson(int((guessed == owners).sum()), len(owners))


def canaries(number: int, dimension: int, generator: torch.Generator) -> torch.Tensor:
    """Return random unit vectors (number, dimension), uniform on the sphere."""
    drawn = torch.randn(count("number", number, low=1), count("dimension", dimension, low=2), generator=generator)
    return drawn / drawn.norm(dim=1, keepdim=True)


def cosines(directions: torch.Tensor, update: torch.Tensor) -> np.ndarray:
    """Return the cosine of each direction (n, p) with the update (p,), shape (n,) in [-1, 1]."""
    if directions.ndim != 2 or update.shape != directions.shape[1:]:
        raise ValueError(f"update must have shape ({directions.shape[-1]},), got {tuple(update.shape)}")
    directions, update = directions.double(), update.double()
    sizes = directions.norm(dim=1) * update.norm()
    if not bool((sizes > 0).all()):
        raise ValueError("a direction or the update is 0: it has no cosine")
    return (directions @ update / sizes).numpy()


def residual(vectors: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return vectors (n, p) or (p,) less their part along `known` (p,), what an auditor expects without canaries.

    An auditor that knows the other records takes off what they do to an update; any function of what it sees is fair.
    """
    if vectors.shape[-1:] != known.shape or not bool(known.norm() > 0):
        raise ValueError(f"known must be a direction, not 0, of shape ({vectors.shape[-1]},), got {tuple(known.shape)}")
    known = known / known.norm()
    return vectors - (vectors @ known)[..., None] * known


class EpsilonEstimate(NamedTuple):
    """An estimate of epsilon, not a bound, with the normals that it compares: canaries in, and out."""

    epsilon: float
    mean: float
    sd: float
    out_mean: float
    out_sd: float


def one_shot_epsilon(inside: np.ndarray, *, dimension: int, delta: float) -> EpsilonEstimate:
    """Return the estimate of epsilon at `delta` from the cosines of the canaries that took part, (n,), n >= 2.

    Theirs are fitted by a normal; a canary that took no part has N(0, 1 / dimension), whatever was trained (their
    theorem 3.1 in the limit of large dimensions). The epsilon is that of telling the two normals apart.
    """
    inside = np.asarray(inside, dtype=float)
    if inside.ndim != 1 or len(inside) < 2 or not np.isfinite(inside).all() or (np.abs(inside) > 1 + 1e-9).any():
        raise ValueError(f"inside must be at least 2 cosines in [-1, 1], got shape {inside.shape}")
    mean, sd = float(inside.mean()), float(inside.std(ddof=1))
    if sd == 0:
        raise ValueError("all cosines are equal: a normal law cannot be fitted")
    out = 1 / math.sqrt(count("dimension", dimension, low=2))
    return EpsilonEstimate(epsilon_between((mean, sd), (0.0, out), delta), mean, sd, 0.0, out)


def epsilon_between(first: tuple[float, float], second: tuple[float, float], delta: float) -> float:
    """Return the least epsilon >= 0 at which two normals (mean, sd) are (epsilon, delta)-close in both directions."""
    delta = delta_of(delta)
    for name, law in (("first", first), ("second", second)):
        if not law[1] > 0 or not all(math.isfinite(value) for value in law):
            raise ValueError(f"{name} must be (mean, sd > 0), both finite, got {law!r}")

    def excess(epsilon: float) -> float:
        return max(_hockey_stick(first, second, epsilon), _hockey_stick(second, first, epsilon)) - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-10))


def _hockey_stick(p: tuple[float, float], q: tuple[float, float], epsilon: float) -> float:
    """Return P(S) - e^epsilon Q(S) on S = {x: ln p(x) / q(x) > epsilon}; the log-ratio is a quadratic in x."""
    (m, s), (n, r) = p, q
    a = 0.5 * (1 / r**2 - 1 / s**2)
    b = m / s**2 - n / r**2
    c = 0.5 * (n**2 / r**2 - m**2 / s**2) + math.log(r / s) - epsilon
    if abs(a) * max(s, r) ** 2 < 1e-9:
        if b == 0:
            return max(0.0, -math.expm1(epsilon)) if c > 0 else 0.0
        cut = -c / b
        pieces = [(cut, math.inf)] if b > 0 else [(-math.inf, cut)]
    else:
        square = b * b - 4 * a * c
        if square <= 0:
            pieces = [(-math.inf, math.inf)] if a > 0 else []
        else:
            low, high = sorted(((-b - math.sqrt(square)) / (2 * a), (-b + math.sqrt(square)) / (2 * a)))
            pieces = [(-math.inf, low), (high, math.inf)] if a > 0 else [(low, high)]
    return sum(_mass(p, piece) - math.exp(epsilon + _log_mass(q, piece)) for piece in pieces)


def _log_mass(law: tuple[float, float], piece: tuple[float, float]) -> float:
    mass = _mass(law, piece)
    return math.log(mass) if mass > 0 else -math.inf


def _mass(law: tuple[float, float], piece: tuple[float, float]) -> float:
    low, high = ((edge - law[0]) / law[1] for edge in piece)
    # Both ends on one side: the tail that is small, so that far intervals keep their digits.
    return float(norm.sf(low) - norm.sf(high) if low > 0 else norm.cdf(high) - norm.cdf(low))
