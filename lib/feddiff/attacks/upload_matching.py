"""What noised uploads give away: which picture each one shows, who took part, and the picture itself.

Threat model: the adversary sees uploads y = sqrt(abar) x + sqrt(1 - abar) z with z ~ N(0, I), as PFDM's server or
anybody who reads its traffic does (Patel, Zhang & Wang 2025, Algorithm 3, lines 3-8), and knows abar, which the
protocol publishes. It has pictures of its own: a pool of candidates, or public pictures of the same kind. Pictures
come as the mechanism noised them: clipped, in its range. No model is needed: the likelihood is known in closed form,
so that every attack here is Bayes-optimal for its prior, and no other does better on average.

Arrays are (n, ...) and are read as (n, d); everything is computed in float64, a chunk of uploads at a time.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import logsumexp
from scipy.stats import norm

from feddiff.evaluation.rates import clopper_pearson
from feddiff.evaluation.statistics import Estimate

# Uploads at a time: this many rows of likelihoods, one for every candidate, are in memory.
CHUNK = 256


@dataclass(frozen=True, eq=False)
class Matches:
    """The posterior over a pool of candidates, upload by upload.

    ranks: int64 (n,), the place of the true candidate, 1 = most probable, ties counted against the adversary.
    log_posterior: log of its probability, (n,). best: the most probable candidate, int64 (n,). allowed: candidates
    that came into question, int64 (n,).
    """

    ranks: np.ndarray
    log_posterior: np.ndarray
    best: np.ndarray
    allowed: np.ndarray

    def top(self, k: int = 1, confidence: float = 0.95) -> Estimate:
        """Return the share of uploads whose picture is among the k most probable, with its exact interval; [0, 1]."""
        return clopper_pearson(int(np.sum(self.ranks <= k)), len(self.ranks), confidence)

    def chance(self, k: int = 1) -> float:
        """Return what blind guessing reaches: the mean of min(1, k / candidates)."""
        return float(np.mean(np.minimum(1.0, k / self.allowed)))

    def epsilon(self, delta: float, confidence: float = 0.95) -> float:
        """Return a lower bound on epsilon that the top-1 share s of m equally likely candidates proves.

        (epsilon, delta)-local DP allows s <= e^epsilon / m + delta, so epsilon >= log(m (s_low - delta)); at most
        log m, and 0 where nothing is proved. The uploads must be a random draw of the pool, without labels.
        """
        low, candidates = self.top(1, confidence).low - delta, float(np.exp(np.mean(np.log(self.allowed))))
        return max(0.0, math.log(candidates * low)) if low > 0 else 0.0


def match(
    uploads: np.ndarray,
    candidates: np.ndarray,
    truth: np.ndarray,
    *,
    alpha_bar: float,
    labels: tuple[np.ndarray, np.ndarray] | None = None,
) -> Matches:
    """Match every upload to the candidate that it most probably shows, all candidates equally likely beforehand.

    truth: the position of each upload's picture among the candidates, int64 (n,). labels: of uploads and candidates,
    where they are public; candidates of another label are then out of the question. ValueError names bad input.
    """
    y, x = _pair(uploads, candidates, alpha_bar)
    truth = np.asarray(truth)
    whole = truth.shape == (len(y),) and np.issubdtype(truth.dtype, np.integer)
    if not whole or truth.min() < 0 or truth.max() >= len(x):
        raise ValueError(f"truth must hold a position among the {len(x)} candidates for each of the {len(y)} uploads")
    labels = _checked_labels(labels, len(y), len(x))
    if labels is not None and not np.array_equal(labels[0], labels[1][truth]):
        raise ValueError("labels of an upload and of its true candidate differ")
    ranks, posterior, best, allowed = [], [], [], []
    for rows, scores in _log_likelihoods(y, x, alpha_bar, labels):
        own = np.take_along_axis(scores, truth[rows, None], axis=1)
        ranks.append((scores >= own).sum(1))
        posterior.append(own[:, 0] - logsumexp(scores, axis=1))
        best.append(scores.argmax(1))
        allowed.append(np.isfinite(scores).sum(1))
    return Matches(*map(np.concatenate, (ranks, posterior, best, allowed)))


def membership(
    uploads: np.ndarray, records: np.ndarray, reference: np.ndarray | None, *, alpha_bar: float
) -> np.ndarray:
    """Return log of the likelihood ratio "one of these uploads shows this record" to "none does", (records,).

    The uploads are shuffled: it is the mean over them of p(y | record) / p(y), p(y) that of a picture drawn from
    `reference`: public pictures, or all that the adversary has, the records among them (half the weight has a picture
    like these, half one from the Gaussian of their mean and covariance). None: the mean of p(y | record) alone, a weak
    attack, since an upload that is likely under every picture then counts for all of them.
    """
    y, x = _pair(uploads, records, alpha_bar)
    if reference is None:
        population = np.einsum("nd,nd->n", y, y) / (2 * (1 - alpha_bar))
    else:
        population = _log_population(y, reference, alpha_bar)
    found = np.full(len(x), -np.inf)
    for rows, scores in _log_likelihoods(y, x, alpha_bar):
        found = np.logaddexp(found, logsumexp(scores - population[rows, None], axis=0))
    return found - math.log(len(y))


def paired_membership(
    uploads: np.ndarray, records: np.ndarray, reference: np.ndarray, *, alpha_bar: float
) -> np.ndarray:
    """Return log p(y_i | record i) / p(y_i), (n,): whether upload i, and no other, shows record i.

    For an adversary who knows which upload it would be; p(y) as in `membership`.
    """
    y, x = _pair(uploads, records, alpha_bar)
    if len(y) != len(x):
        raise ValueError(f"{len(y)} uploads but {len(x)} records: each upload is paired with one record")
    signal, noise = math.sqrt(alpha_bar), 1 - alpha_bar
    own = (signal * np.einsum("nd,nd->n", y, x) - alpha_bar * np.einsum("nd,nd->n", x, x) / 2) / noise
    return own - _log_population(y, reference, alpha_bar)


def expectation(
    uploads: np.ndarray,
    candidates: np.ndarray,
    values: np.ndarray,
    *,
    alpha_bar: float,
    labels: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Return E[value of the candidate | upload], (n, ...), for values (m, ...) of equally likely candidates.

    With the candidates' one-hot labels as values it is the probability of every class, with the candidates themselves
    the reconstruction of least squared error for this prior. labels: as in `match`; every label has a candidate.
    """
    y, x = _pair(uploads, candidates, alpha_bar)
    values = np.asarray(values, dtype=float)
    if len(values) != len(x):
        raise ValueError(f"{len(values)} values but {len(x)} candidates")
    labels = _checked_labels(labels, len(y), len(x))
    if labels is not None and not np.isin(labels[0], labels[1]).all():
        raise ValueError("some upload has a label that no candidate has")
    flat, parts = values.reshape(len(values), -1), []
    for _, scores in _log_likelihoods(y, x, alpha_bar, labels):
        parts.append(np.exp(scores - logsumexp(scores, axis=1, keepdims=True)) @ flat)
    return np.concatenate(parts).reshape(len(y), *values.shape[1:])


def gaussian_estimate(
    uploads: np.ndarray, mean: np.ndarray, covariance: np.ndarray, *, alpha_bar: float
) -> np.ndarray:
    """Return E[x | upload] for x ~ N(mean, covariance), (n, d): Wiener's filter; d = one picture, flattened.

    mean: one (d,) for all, or one for each upload (n, d), such as that of its class.
    """
    y = _flat(uploads, "uploads")
    _check_share(alpha_bar)
    signal = math.sqrt(alpha_bar)
    gain = np.linalg.solve(alpha_bar * covariance + (1 - alpha_bar) * np.eye(y.shape[1]), signal * covariance)
    return mean + (y - signal * mean) @ gain


def moments(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean (d,) and covariance (d, d) of public pictures, for `gaussian_estimate`."""
    x = _flat(pictures, "pictures")
    return x.mean(0), np.cov(x, rowvar=False, bias=True).reshape(x.shape[1], x.shape[1])


def moments_of_uploads(uploads: np.ndarray, *, alpha_bar: float) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of the pictures behind uploads, from the uploads alone.

    Their covariance is abar S + (1 - abar) I: the noise is taken off, and what is then not above the most that so many
    uploads of pure noise show by chance, (1 - abar) (1 + sqrt(d / n))^2 (Marchenko & Pastur 1967), is set to 0.
    """
    y = _flat(uploads, "uploads")
    _check_share(alpha_bar)
    noise = 1 - alpha_bar
    variances, axes = np.linalg.eigh(np.cov(y, rowvar=False, bias=True).reshape(y.shape[1], y.shape[1]))
    kept = np.where(variances > noise * (1 + math.sqrt(y.shape[1] / len(y))) ** 2, variances - noise, 0.0)
    return y.mean(0) / math.sqrt(alpha_bar), (axes * (kept / alpha_bar)) @ axes.T


def averaged(mean: np.ndarray, k: int, *, alpha_bar: float) -> tuple[np.ndarray, float]:
    """Return the mean of k uploads of the same pictures, each with fresh noise, as one upload, and its abar.

    The mean is all that they tell; rescaled it is an upload with abar k abar / (1 + (k - 1) abar): mu grows by sqrt(k).
    """
    _check_share(alpha_bar)
    share = k * alpha_bar / (1 + (k - 1) * alpha_bar)
    return np.asarray(mean, dtype=float) * math.sqrt(share / alpha_bar), share


def known_noise(uploads: np.ndarray, noise: np.ndarray, *, alpha_bar: float) -> np.ndarray:
    """Return the pictures behind uploads whose noise z is known (its seed, say): exactly, up to rounding."""
    _check_share(alpha_bar)
    return (np.asarray(uploads, dtype=float) - math.sqrt(1 - alpha_bar) * noise) / math.sqrt(alpha_bar)


def psnr(pictures: np.ndarray, truth: np.ndarray, *, span: float = 2.0) -> np.ndarray:
    """Return the peak signal-to-noise ratio of each reconstruction in dB, (n,); higher is nearer, inf is exact.

    span: the width of the range of values, 2 for [-1, 1].
    """
    error = np.square(_flat(pictures, "pictures") - _flat(truth, "truth")).mean(1)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(span**2 / error)


def best_test(distance: float, alpha_bar: float, fpr: float = 0.01) -> dict[str, float]:
    """Return "auc" and "tpr" at `fpr` of the best test between two known pictures `distance` apart, from one upload.

    mu = distance sqrt(abar / (1 - abar)): AUC is Phi(mu / sqrt(2)), the power Phi(mu + Phi^-1(fpr)) (Neyman & Pearson
    1933; Dong, Roth & Su 2022). At the diameter of what clipping leaves it bounds every test of membership.
    """
    _check_share(alpha_bar)
    mu = distance * math.sqrt(alpha_bar / (1 - alpha_bar))
    return {"auc": float(norm.cdf(mu / math.sqrt(2))), "tpr": float(norm.cdf(mu + norm.ppf(fpr)))}


def _log_likelihoods(
    y: np.ndarray, x: np.ndarray, alpha_bar: float, labels: tuple[np.ndarray, np.ndarray] | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield rows of uploads and log p(y | x) less what does not depend on x, (rows, candidates); -inf: other label."""
    half = alpha_bar * np.einsum("md,md->m", x, x) / 2
    for start in range(0, len(y), CHUNK):
        rows = slice(start, start + CHUNK)
        scores = (math.sqrt(alpha_bar) * (y[rows] @ x.T) - half) / (1 - alpha_bar)
        yield rows, scores if labels is None else np.where(labels[0][rows, None] == labels[1], scores, -np.inf)


def _checked_labels(
    labels: tuple[np.ndarray, np.ndarray] | None, uploads: int, candidates: int
) -> tuple[np.ndarray, np.ndarray] | None:
    if labels is None:
        return None
    found = tuple(np.asarray(side) for side in labels)
    if found[0].shape != (uploads,) or found[1].shape != (candidates,):
        raise ValueError("labels must be one for each upload and one for each candidate")
    return found


def _log_population(y: np.ndarray, reference: np.ndarray, alpha_bar: float) -> np.ndarray:
    """Return log p(y) less what does not depend on the picture, (n,): half a reference picture noised, half Gaussian.

    The pictures alone have nothing to say of an upload far from all of them; their mean and covariance have.
    """
    x = _pair(y, reference, alpha_bar)[1]
    parts = [logsumexp(scores, axis=1) for _, scores in _log_likelihoods(y, x, alpha_bar)]
    near = np.concatenate(parts) - math.log(len(x))
    mean, covariance = moments(x)
    d, noise = len(mean), 1 - alpha_bar
    root = np.linalg.cholesky(alpha_bar * covariance + noise * np.eye(d))
    far = solve_triangular(root, (y - math.sqrt(alpha_bar) * mean).T, lower=True)
    shared = np.einsum("nd,nd->n", y, y) / (2 * noise) + d / 2 * math.log(noise)
    broad = shared - np.square(far).sum(0) / 2 - np.log(np.diag(root)).sum()
    return np.logaddexp(near, broad) - math.log(2)


def _pair(uploads: np.ndarray, pictures: np.ndarray, alpha_bar: float) -> tuple[np.ndarray, np.ndarray]:
    _check_share(alpha_bar)
    y, x = _flat(uploads, "uploads"), _flat(pictures, "pictures")
    if y.shape[1] != x.shape[1]:
        raise ValueError(f"uploads have {y.shape[1]} values each, pictures {x.shape[1]}: bring them to one size")
    return y, x


def _flat(pictures: np.ndarray, name: str) -> np.ndarray:
    found = np.asarray(pictures, dtype=float)
    if found.ndim < 2 or not found.size:
        raise ValueError(f"{name} must be a non-empty array (n, ...), got shape {found.shape}")
    found = found.reshape(len(found), -1)
    if not np.isfinite(found).all():
        raise ValueError(f"{name} hold values that are not finite")
    return found


def _check_share(alpha_bar: float) -> None:
    if not 0 < alpha_bar < 1:
        raise ValueError(f"alpha_bar must lie in (0, 1), got {alpha_bar!r}")
