"""The forward process and the identities between x_0, epsilon and v (Ho et al. 2020; Salimans & Ho 2022)."""

import torch

from feddiff.diffusion.schedules import Schedule


def q_sample(x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """Return x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) noise (Ho et al. 2020, eq. 4).

    x0 and noise have shape (n, ...), t has shape (n,) with values in {0, ..., T-1}.
    """
    return schedule.signal(t, x0) * x0 + schedule.noise(t, x0) * noise


def velocity(x0: torch.Tensor, t: torch.Tensor, noise: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """Return v = sqrt(alpha_bar_t) noise - sqrt(1 - alpha_bar_t) x_0 (Salimans & Ho 2022, appendix D)."""
    return schedule.signal(t, x0) * noise - schedule.noise(t, x0) * x0


def x0_from_epsilon(xt: torch.Tensor, t: torch.Tensor, epsilon: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """Return the x_0 that x_t and a noise prediction imply (Ho et al. 2020, eq. 15)."""
    return (xt - schedule.noise(t, xt) * epsilon) / schedule.signal(t, xt)


def x0_from_velocity(xt: torch.Tensor, t: torch.Tensor, v: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """Return the x_0 that x_t and a velocity prediction imply (Salimans & Ho 2022)."""
    return schedule.signal(t, xt) * xt - schedule.noise(t, xt) * v


def epsilon_from_x0(xt: torch.Tensor, t: torch.Tensor, x0: torch.Tensor, schedule: Schedule) -> torch.Tensor:
    """Return the noise that x_t and an x_0 imply."""
    return (xt - schedule.signal(t, xt) * x0) / schedule.noise(t, xt)


def posterior_mean(x0: torch.Tensor, xt: torch.Tensor, t: int, schedule: Schedule) -> torch.Tensor:
    """Return the mean of q(x_{t-1} | x_t, x_0) for one step t (Ho et al. 2020, eq. 7)."""
    beta, bar, before = schedule.beta[t], schedule.alpha_bar[t], schedule.alpha_bar_previous[t]
    of_x0 = float(before.sqrt() * beta / (1 - bar))
    of_xt = float((1 - beta).sqrt() * (1 - before) / (1 - bar))
    return of_x0 * x0 + of_xt * xt
