"""Reverse samplers: functions of a prediction x_0(x_t, t), a schedule and a generator; they know no trainer.

`predict_x0(x, t)` takes x of shape (n, ...) and one integer step t shared by all records, so a network can compute
its time branch once a step instead of once a record.
"""

from collections.abc import Callable

import torch

from feddiff.diffusion.process import epsilon_from_x0, posterior_mean
from feddiff.diffusion.schedules import Schedule

PredictX0 = Callable[[torch.Tensor, int], torch.Tensor]


def strided(T: int, steps: int) -> list[int]:
    """Return `steps` timesteps from T-1 down to 0, evenly spread; all of them when steps == T."""
    if not 1 <= steps <= T:
        raise ValueError(f"sampling steps must lie in 1..T = 1..{T}, got {steps}")
    return torch.linspace(T - 1, 0, steps, dtype=torch.float64).round().long().tolist() if steps > 1 else [T - 1]


@torch.no_grad()
def ancestral(
    predict_x0: PredictX0,
    x: torch.Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    *,
    variance: str = "beta",
) -> torch.Tensor:
    """Return x_0 by the T ancestral steps from x = x_T; no noise at the last step (Ho et al. 2020, algorithm 2).

    variance: "beta" (sigma_t^2 = beta_t, the authors' choice) or "posterior" (the variance of q(x_{t-1} | x_t, x_0)).
    """
    variances = {"beta": schedule.beta, "posterior": schedule.posterior_variance}
    if variance not in variances:
        raise ValueError(f"variance must be 'beta' or 'posterior', got {variance!r}")
    scales = variances[variance].sqrt()
    for t in range(schedule.T - 1, 0, -1):
        x = posterior_mean(predict_x0(x, t), x, t, schedule)
        x = x + float(scales[t]) * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return predict_x0(x, 0)


@torch.no_grad()
def ddim(
    predict_x0: PredictX0,
    x: torch.Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    *,
    steps: int,
    eta: float = 0.0,
) -> torch.Tensor:
    """Return x_0 from x = x_T over `steps` strided timesteps (Song et al. 2021, eq. 12).

    eta 0 is deterministic DDIM; eta 1 is strided ancestral sampling with the posterior variance.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    times = strided(schedule.T, steps)
    for t, following in zip(times, [*times[1:], None]):
        x0 = predict_x0(x, t)
        if following is None:
            return x0
        bar, after = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[following])
        epsilon = epsilon_from_x0(x, torch.tensor([t], device=x.device), x0, schedule)
        sigma = eta * ((1 - after) / (1 - bar) * (1 - bar / after)) ** 0.5
        x = after**0.5 * x0 + (1 - after - sigma**2) ** 0.5 * epsilon
        if sigma > 0:
            x = x + sigma * torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    raise AssertionError("unreachable: the last timestep returns")
