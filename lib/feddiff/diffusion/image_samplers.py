"""Strided reverse samplers that start at any level of the schedule, for chains of two stages (PFDM algorithm 2).

A stage that starts at the papers' step t0 begins at index start = t0 - 1. `predict_x0(x, t)` is as in
`diffusion.samplers`; nothing here knows a network or a trainer.
"""

import math

import torch

from feddiff.diffusion.samplers import PredictX0
from feddiff.diffusion.schedules import Schedule


def times_from(start: int, steps: int | None) -> list[int]:
    """Return `steps` indices from `start` down to 0, evenly spread; None takes all of them, start + 1."""
    steps = start + 1 if steps is None else steps
    if not 1 <= steps <= start + 1:
        raise ValueError(f"sampling steps must lie in 1..{start + 1} for a start at index {start}, got {steps}")
    if steps == 1:
        return [start]
    return torch.linspace(start, 0, steps, dtype=torch.float64).round().long().tolist()


def schedule_after(schedule: Schedule, t0: int) -> Schedule:
    """Return the schedule of steps t0+1..T for data that already are at level t0: T - t0 steps, betas unchanged.

    Its alpha_bar is alpha_bar_t / alpha_bar_t0: training and sampling on it is the T - t0 variant of the global stage
    (the same information as T steps on noised data taken for clean ones, at fewer network calls).
    """
    if not 1 <= t0 < schedule.T:
        raise ValueError(f"t0 must lie in 1..T-1 = 1..{schedule.T - 1} to leave steps above it, got {t0}")
    beta = schedule.beta[t0:]
    return Schedule(beta=beta, alpha_bar=torch.cumprod(1 - beta, dim=0))


@torch.no_grad()
def ancestral(
    predict_x0: PredictX0,
    x: torch.Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    *,
    steps: int | None = None,
    start: int | None = None,
    known_noise: float = 0.0,
    clamp: tuple[float, float] | None = None,
) -> torch.Tensor:
    """Return x at level 0 by stochastic steps from x at index `start` (default T - 1); steps None takes every index.

    Each step draws from q(x_s | x_t, x_0 = x_0_hat) (Ho et al. 2020, eq. 6-7, for indices s < t). That leaves out what
    is unknown about x_0 given x_t and loses spread when the stride is wide. known_noise: variance v of the white noise
    that the data themselves contain (1 - alpha_bar_t0 for PFDM's uploads, 0 for clean pictures): the posterior
    variance of that part, v (1 - A) / (A v + 1 - A) at A = alpha_bar_t, is added through the coefficient of x_0_hat,
    so that white data of variance v come out exactly at any stride. v = 1 is sigma_t^2 = beta_t of Ho et al. (2020).
    clamp: (low, high) of x_0_hat at every step.
    """
    if not 0 <= known_noise <= 1:
        raise ValueError(f"known_noise is a variance in [0, 1], 1 - alpha_bar_t0, got {known_noise}")
    times = times_from(_start(schedule, start), steps)
    for t, following in zip(times, [*times[1:], None]):
        bar, after = _bars(schedule, t, following)
        x0 = _clamped(predict_x0(x, t), clamp)
        of_x0 = math.sqrt(after) * (1 - bar / after) / (1 - bar)
        of_xt = math.sqrt(bar / after) * (1 - after) / (1 - bar)
        variance = (1 - bar / after) * (1 - after) / (1 - bar)
        variance += of_x0**2 * known_noise * (1 - bar) / (bar * known_noise + 1 - bar)
        x = of_x0 * x0 + of_xt * x
        if variance > 0:
            noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
            x = x + math.sqrt(variance) * noise
    return x


@torch.no_grad()
def ddim(
    predict_x0: PredictX0,
    x: torch.Tensor,
    schedule: Schedule,
    *,
    steps: int | None = None,
    start: int | None = None,
    clamp: tuple[float, float] | None = None,
) -> torch.Tensor:
    """Return x at level 0 by deterministic steps from x at index `start` (Song et al. 2021, eq. 12 with eta = 0).

    Misleads on networks trained for a minute: on 16 x 16 digits fewer samples are read as their label than from
    `ancestral` with the same steps (.89 against .93).
    """
    times = times_from(_start(schedule, start), steps)
    for t, following in zip(times, [*times[1:], None]):
        bar, after = _bars(schedule, t, following)
        x0 = _clamped(predict_x0(x, t), clamp)
        epsilon = (x - math.sqrt(bar) * x0) / math.sqrt(1 - bar)
        x = math.sqrt(after) * x0 + math.sqrt(1 - after) * epsilon
    return x


def _start(schedule: Schedule, start: int | None) -> int:
    if start is None:
        return schedule.T - 1
    if not 0 <= start < schedule.T:
        raise ValueError(f"start must be an index in 0..T-1 = 0..{schedule.T - 1} (t0 - 1), got {start}")
    return start


def _bars(schedule: Schedule, t: int, following: int | None) -> tuple[float, float]:
    """Return alpha_bar at index t and at the next one; 1 behind the last."""
    return float(schedule.alpha_bar[t]), 1.0 if following is None else float(schedule.alpha_bar[following])


def _clamped(x0: torch.Tensor, clamp: tuple[float, float] | None) -> torch.Tensor:
    return x0 if clamp is None else x0.clamp(*clamp)
