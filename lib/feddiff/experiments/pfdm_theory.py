"""PFDM on Gaussian classes, where every stage has a closed form: what Theorem 5.2 promises beside what happens.

The theorem's denoisers are linear for each class. Trained to their optimum on given pictures, such a denoiser knows
their mean and covariance and nothing else, and walking it back from noise draws from the Gaussian with these moments.
So the only chance is in the pictures and in the noise of the uploads; no network is trained here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from feddiff.data.images import ImageSet, to_tensor
from feddiff.diffusion.image_samplers import ancestral, ddim
from feddiff.diffusion.schedules import Schedule, linear
from feddiff.seeds import numpy_generator

SAMPLERS = ("ancestral", "ddim")
# Pictures of a class at all clients for each one at the client: the papers' 5000 + 50 against 50.
POOL = 101


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A normal law: mean (d,), covariance (d, d), which may be singular."""

    mean: np.ndarray
    covariance: np.ndarray

    def noised(self, alpha_bar: float) -> "Gaussian":
        """Return the law of sqrt(abar) x + sqrt(1 - abar) z."""
        covariance = alpha_bar * self.covariance + (1 - alpha_bar) * np.eye(len(self.mean))
        return Gaussian(math.sqrt(alpha_bar) * self.mean, covariance)


def moments(x: np.ndarray) -> Gaussian:
    """Return the Gaussian of the rows of x (n, d), n >= 2; covariance with divisor n, what training converges to."""
    centred = x - x.mean(0)
    return Gaussian(x.mean(0), centred.T @ centred / len(x))


def wasserstein_squared(first: Gaussian, second: Gaussian) -> float:
    """Return W2^2 of two Gaussians, >= 0 (Dowson & Landau 1982)."""
    root = _power(first.covariance, 0.5)
    cross = np.linalg.eigvalsh(root @ second.covariance @ root).clip(min=0)
    spread = np.trace(first.covariance) + np.trace(second.covariance) - 2 * np.sqrt(cross).sum()
    return float(np.square(first.mean - second.mean).sum() + max(spread, 0.0))


def local_stage(start: Gaussian, local: Gaussian, alpha_bar: float, sampler: str = "ancestral") -> Gaussian:
    """Return what the local denoiser of `local` makes of starts at level abar, in the limit of many steps.

    "ancestral" draws x_0 from its posterior given the start; "ddim" moves the start along the probability flow.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {SAMPLERS}, got {sampler!r}")
    reached = local.noised(alpha_bar)
    if sampler == "ddim":
        gain = _power(local.covariance, 0.5) @ _power(reached.covariance, -0.5)
        rest = np.zeros_like(gain)
    else:
        gain = math.sqrt(alpha_bar) * local.covariance @ np.linalg.inv(reached.covariance)
        rest = local.covariance - math.sqrt(alpha_bar) * gain @ local.covariance
    covariance = gain @ start.covariance @ gain.T + rest
    return Gaussian(local.mean + gain @ (start.mean - reached.mean), (covariance + covariance.T) / 2)


def upload_moments(own: np.ndarray, truth: Gaussian, others: int, alpha_bar: float, generator: np.random.Generator):
    """Return the Gaussian of all uploads of a class: of the pictures `own` (n, d) and of `others` >= 2 unseen ones.

    The mean and the scatter of the others' uploads are drawn as such, normal and Wishart (Bartlett 1933).
    """
    n, d = own.shape
    mine = math.sqrt(alpha_bar) * own + math.sqrt(1 - alpha_bar) * generator.standard_normal(own.shape)
    law = truth.noised(alpha_bar)
    factor = _power(law.covariance, 0.5)
    mean = law.mean + factor @ generator.standard_normal(d) / math.sqrt(others)
    freedom = others - 1
    if freedom >= d:
        triangle = np.tril(generator.standard_normal((d, d)), -1)
        np.fill_diagonal(triangle, np.sqrt(generator.chisquare(freedom - np.arange(d))))
    else:
        triangle = generator.standard_normal((d, freedom))
    half = factor @ triangle
    found, total = moments(mine), n + others
    apart = found.mean - mean
    scatter = n * found.covariance + half @ half.T + n * others / total * np.outer(apart, apart)
    return Gaussian((n * found.mean + others * mean) / total, scatter / total)


def trial(
    truth: Gaussian, *, n: int, alpha_bar: float, generator: np.random.Generator, pool: int = POOL,
    sampler: str = "ancestral",
) -> dict[str, float]:
    """Return W2^2 to the truth of one class drawn by one client that has n of pool * n pictures.

    "local": its own denoiser alone. "pfdm": started from the uploads of all. "no_server": the same local stage started
    from N(0, I) at t0. "pooled": a denoiser of all clean pictures, which nobody has.
    """
    d = len(truth.mean)
    own = truth.mean + generator.standard_normal((n, d)) @ _power(truth.covariance, 0.5)
    local = moments(own)
    start = upload_moments(own, truth, (pool - 1) * n, alpha_bar, generator)
    clean = upload_moments(own, truth, (pool - 1) * n, 1.0, generator)
    nothing = Gaussian(np.zeros(d), np.eye(d))
    drawn = {
        "local": local, "pfdm": local_stage(start, local, alpha_bar, sampler),
        "no_server": local_stage(nothing, local, alpha_bar, sampler), "pooled": clean,
    }
    return {method: wasserstein_squared(law, truth) for method, law in drawn.items()}


def simulate(
    classes: Sequence[Gaussian], *, t0s: Sequence[int], n: int, repeats: int, seed: int, pool: int = POOL,
    sampler: str = "ancestral",
) -> pd.DataFrame:
    """Return the mean W2^2 over classes and `repeats` draws of all pictures: columns t0, then the methods of `trial`.

    The same pictures are dealt at every t0.
    """
    abar, rows = linear(1000).alpha_bar, []
    for t0 in t0s:
        drawn = [
            trial(truth, n=n, alpha_bar=float(abar[t0 - 1]), pool=pool, sampler=sampler,
                  generator=numpy_generator(seed, "theory", n, label, repeat))
            for label, truth in enumerate(classes) for repeat in range(repeats)
        ]
        rows.append({"t0": t0, **pd.DataFrame(drawn).mean().to_dict()})
    return pd.DataFrame(rows)


def noise(t0: int) -> float:
    """Return s = (1 - abar) / abar at step t0 of the papers' schedule: the theorem's sigma^2."""
    abar = float(linear(1000).alpha_bar[t0 - 1])
    return (1 - abar) / abar


def error_shares(s: float, pool: int = POOL) -> tuple[float, float]:
    """Return what Theorem 5.2 leaves of d^2 / n, the scale of the error of training alone: (own part, pooled part).

    E[W2^2 | y = k] = O(2 / (2 + 3s) d^2 / N_k + 3s / (2 + 3s) d^2 / n_k), N_k = pool * n_k.
    """
    return 3 * s / (2 + 3 * s), 2 / (2 + 3 * s) / pool


def gain_share(s: float) -> float:
    """Return the gain over training alone that Theorem 5.2 (Eq. 9) promises in units of d^2 / n: (s+1) / (2s+1)^2."""
    return (s + 1) / (2 * s + 1) ** 2


def unit(d: int) -> list[Gaussian]:
    """Return one class of d independent coordinates with variance 1."""
    return [Gaussian(np.zeros(d), np.eye(d))]


def of_pictures(image_set: ImageSet, contrast: float = 1.0) -> list[Gaussian]:
    """Return a Gaussian for each class with the moments of its pictures in [-1, 1], times `contrast` (clipping)."""
    x = contrast * to_tensor(image_set.images).flatten(1).double().numpy()
    return [moments(x[image_set.labels == label]) for label in range(len(image_set.class_names))]


def walked(
    start: Gaussian, local: Gaussian, *, t0: int, samples: int, generator: torch.Generator, sampler: str = "ancestral"
) -> Gaussian:
    """Return the moments of `samples` that the library's own samplers draw, T steps from noise, then t0: a check.

    Both stages take every step with the optimal linear denoisers of `start` and `local`.
    """
    schedule = linear(1000)
    x = torch.randn(samples, len(start.mean), generator=generator, dtype=torch.float64)
    for law, first in ((start, None), (local, t0 - 1)):
        predict = _denoiser(law, schedule)
        if sampler == "ddim":
            x = ddim(predict, x, schedule, start=first)
        else:
            x = ancestral(predict, x, schedule, generator, start=first)
    return moments(x.numpy())


def _denoiser(law: Gaussian, schedule: Schedule):
    variances, axes = (torch.from_numpy(part) for part in np.linalg.eigh(law.covariance))
    mean = torch.from_numpy(law.mean)

    def predict(x: torch.Tensor, t: int) -> torch.Tensor:
        bar = float(schedule.alpha_bar[t])
        gain = math.sqrt(bar) * variances / (bar * variances + 1 - bar)
        return mean + ((x - math.sqrt(bar) * mean) @ axes * gain) @ axes.T

    return predict


def _power(covariance: np.ndarray, exponent: float) -> np.ndarray:
    variances, axes = np.linalg.eigh(covariance)
    return (axes * variances.clip(min=0) ** exponent) @ axes.T
