"""Was this picture in the training set? White-box attacks on a denoiser of pictures, by its noise predictions alone.

Threat model: the adversary has the trained denoiser (its weights, or enough access to ask it for the noise in pictures
that the adversary prepares), knows the schedule and the label of each picture, and holds the pictures it asks about.
The likelihood ratio also needs shadow models: denoisers that it trained itself on pictures of the same kind.

A denoiser is a callable `predict_noise(x_t, t, labels)` -> noise with x_t (n, c, h, w), 0-based steps t int64 (n,) and
labels (n,). Every attack returns one score a picture, float64 (n,), higher = member; `evaluation.membership` judges
them. Steps are chosen before scores are seen.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from feddiff.diffusion.process import q_sample
from feddiff.diffusion.schedules import Schedule

PredictNoise = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
# Pictures that pass through the network at a time.
CHUNK = 500
# Records of both kinds that a Gaussian of its own needs; with fewer all records share one variance.
OWN_VARIANCE = 8


def fixed_noises(shape: Sequence[int], draws: int, generator: torch.Generator) -> torch.Tensor:
    """Return noises (draws, c, h, w) that every picture is scored with: luck of the draw is then common to all."""
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws!r}")
    return torch.randn((draws, *shape), generator=generator)


@torch.no_grad()
def losses(
    predict_noise: PredictNoise,
    images: torch.Tensor,
    labels: torch.Tensor,
    schedule: Schedule,
    *,
    times: Sequence[int],
    noises: torch.Tensor,
) -> np.ndarray:
    """Return the denoising loss of each picture at each step, mean over pixels and noises, float64 (n, times).

    noises: (draws, c, h, w), the same for every picture, or (n, draws, c, h, w), its own for each. The attack by loss
    (Matsumoto et al. 2023; Hu & Pang 2023) is `loss_scores` of them; the whole vector is what a classifier trained on
    shadow models takes (Pang et al. 2025).
    """
    _check(images, labels, schedule, times)
    own = noises.dim() == images.dim() + 1
    if noises.shape[-3:] != images.shape[1:] or (own and len(noises) != len(images)):
        raise ValueError(f"noises must be (draws, c, h, w) or (n, draws, c, h, w) for pictures {tuple(images.shape)}, "
                         f"got {tuple(noises.shape)}")
    draws = noises.shape[1] if own else len(noises)
    found = np.zeros((len(images), len(times)))
    for rows in torch.arange(len(images)).split(CHUNK):
        x, y = images[rows], labels[rows]
        for place, time in enumerate(times):
            t = torch.full((len(rows),), time)
            for draw in range(draws):
                z = noises[rows, draw] if own else noises[draw].expand_as(x)
                error = (predict_noise(q_sample(x, t, z, schedule), t, y) - z).flatten(1).double()
                found[rows.numpy(), place] += error.square().mean(1).numpy() / draws
    return found


def loss_scores(found: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Return minus the mean of `losses` over the steps, (n,).

    reference: losses of the same pictures by a model that was trained on none of them, or the mean of several; what
    makes a picture hard for every model is then taken off (Watson et al. 2022).
    """
    return -(found if reference is None else found - reference).mean(1)


@torch.no_grad()
def secmi(
    predict_noise: PredictNoise,
    images: torch.Tensor,
    labels: torch.Tensor,
    schedule: Schedule,
    *,
    time: int = 100,
    stride: int = 10,
) -> np.ndarray:
    """Return minus the t-error of SecMI-stat, (n,) (Duan et al. 2023, "step-wise error comparing").

    The picture walks to step `time` without randomness (DDIM, strides of `stride` steps); from there one stride on and
    one back. The squared distance to where it was is small where the model knows the picture.
    """
    if stride < 1 or time < stride:
        raise ValueError(f"need 1 <= stride <= time, got stride={stride!r} and time={time!r}")
    _check(images, labels, schedule, [time, time + stride])
    steps = [-1, *range(stride - 1, time, stride)]
    if steps[-1] != time:
        steps.append(time)
    parts = []
    for rows in torch.arange(len(images)).split(CHUNK):
        x, y = images[rows], labels[rows]
        for now, then in zip(steps[:-1], steps[1:]):
            x = _ddim(predict_noise, x, y, schedule, now, then)
        ahead = _ddim(predict_noise, x, y, schedule, time, time + stride)
        back = _ddim(predict_noise, ahead, y, schedule, time + stride, time)
        parts.append((back - x).flatten(1).double().square().sum(1))
    return -torch.cat(parts).numpy()


@torch.no_grad()
def pia(
    predict_noise: PredictNoise,
    images: torch.Tensor,
    labels: torch.Tensor,
    schedule: Schedule,
    *,
    time: int = 200,
    norm: float = 4.0,
    normalised: bool = False,
) -> np.ndarray:
    """Return minus the error of the proximal initialisation, (n,) (Kong et al. 2024; normalised: PIAN).

    What the model takes for the noise in the clean picture (step 0) is used as the noise of step `time`; the error is
    how far its prediction there is from it, in the `norm` (4 in the authors' code). Two queries a picture, no
    randomness. normalised: that noise is scaled to the mean absolute value of N(0, 1) first.
    """
    _check(images, labels, schedule, [0, time])
    parts = []
    for rows in torch.arange(len(images)).split(CHUNK):
        x, y = images[rows], labels[rows]
        start = predict_noise(x, torch.zeros(len(rows), dtype=torch.int64), y)
        if normalised:
            size = start.abs().flatten(1).mean(1).reshape(-1, 1, 1, 1)
            start = start * math.sqrt(2 / math.pi) / size
        t = torch.full((len(rows),), time)
        error = start - predict_noise(q_sample(x, t, start, schedule), t, y)
        parts.append(torch.linalg.vector_norm(error.flatten(1).double(), ord=norm, dim=1))
    return -torch.cat(parts).numpy()


def likelihood_ratio(scores: np.ndarray, shadows: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Return the log-likelihood ratio of each record's score under "trained on it" to "not", (n,) (LiRA).

    scores: of the target model, (n,); shadows: of the same records by each shadow model, (models, n); inside: which
    shadow was trained on which record, bool (models, n), for every record some that were and some that were not. Each
    side is a Gaussian with the record's own mean; its variance is the record's own where at least OWN_VARIANCE models
    stand on both sides, else one for all (Carlini et al. 2022, Algorithm 1; of diffusion models 2023).
    """
    scores, shadows, inside = np.asarray(scores, float), np.asarray(shadows, float), np.asarray(inside)
    if shadows.ndim != 2 or scores.shape != shadows.shape[1:] or inside.shape != shadows.shape or inside.dtype != bool:
        raise ValueError(f"need scores (n,), shadows (models, n) and inside bool (models, n), got {scores.shape}, "
                         f"{shadows.shape} and {inside.dtype} {inside.shape}")
    counts = np.stack([inside.sum(0), (~inside).sum(0)])
    if counts.min() < 1:
        raise ValueError("every record needs a shadow model that was trained on it and one that was not")
    total = 0.0
    for sign, mask in ((1, inside), (-1, ~inside)):
        count = mask.sum(0)
        mean = np.where(mask, shadows, 0).sum(0) / count
        squares = np.where(mask, np.square(shadows - mean), 0).sum(0)
        if counts.min() >= OWN_VARIANCE:
            variance = squares / (count - 1)
        else:
            # With one model a side no record shows its spread; that over the records stands in for it.
            spare = int(np.sum(count - 1))
            variance = np.full(len(scores), squares.sum() / spare if spare else mean.var())
        variance = np.maximum(variance, np.finfo(float).tiny)
        total = total - sign * (np.square(scores - mean) / variance + np.log(variance)) / 2
    return total


def _ddim(
    predict_noise: PredictNoise, x: torch.Tensor, labels: torch.Tensor, schedule: Schedule, now: int, then: int
) -> torch.Tensor:
    """Return x at step `then` from x at step `now` (-1: the clean picture) by the deterministic DDIM map."""
    t = torch.full((len(x),), max(now, 0))
    noise = predict_noise(x, t, labels)
    before, after = (1.0 if step < 0 else float(schedule.alpha_bar[step]) for step in (now, then))
    clean = (x - math.sqrt(1 - before) * noise) / math.sqrt(before)
    return math.sqrt(after) * clean + math.sqrt(1 - after) * noise


def _check(images: torch.Tensor, labels: torch.Tensor, schedule: Schedule, times: Sequence[int]) -> None:
    if images.dim() != 4 or not len(images) or len(labels) != len(images):
        raise ValueError(f"need pictures (n, c, h, w), at least one, and a label each, got {tuple(images.shape)} and "
                         f"{len(labels)} labels")
    wrong = [time for time in times if not 0 <= time < schedule.T]
    if wrong or not len(times):
        raise ValueError(f"steps must lie in 0..{schedule.T - 1}, got {list(times)}")
