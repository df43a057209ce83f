"""Variance schedules of the forward process (Ho et al. 2020, section 2; Nichol & Dhariwal 2021, section 3.2)."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Schedule:
    """A variance schedule: `beta` and `alpha_bar` of shape (T,), float64.

    Timesteps are 0-based in code: index t in {0, ..., T-1} is the papers' step t+1. alpha_bar[t] is the share of the
    signal's variance that is left after step t.
    """

    beta: torch.Tensor
    alpha_bar: torch.Tensor

    @property
    def T(self) -> int:
        """Number of diffusion steps."""
        return len(self.beta)

    @property
    def alpha_bar_previous(self) -> torch.Tensor:
        """alpha_bar one step earlier; 1 before the first step."""
        return torch.cat([torch.ones(1, dtype=self.alpha_bar.dtype), self.alpha_bar[:-1]])

    @property
    def posterior_variance(self) -> torch.Tensor:
        """Variance of q(x_{t-1} | x_t, x_0), shape (T,) (Ho et al. 2020, eq. 7)."""
        return self.beta * (1 - self.alpha_bar_previous) / (1 - self.alpha_bar)

    def signal(self, t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return sqrt(alpha_bar[t]), t (n,) or (1,), shaped to broadcast over the records of `like`, in its dtype."""
        return _per_record(self.alpha_bar.sqrt(), t, like)

    def noise(self, t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return sqrt(1 - alpha_bar[t]) shaped to broadcast over the records of `like`."""
        return _per_record((1 - self.alpha_bar).sqrt(), t, like)


def _per_record(values: torch.Tensor, t: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    picked = values.to(device=like.device, dtype=like.dtype)[t]
    return picked.reshape(-1, *[1] * (like.dim() - 1))


def _from_beta(beta: torch.Tensor) -> Schedule:
    if beta.dim() != 1 or len(beta) == 0 or not bool(((beta > 0) & (beta < 1)).all()):
        raise ValueError(
            "every beta must lie strictly between 0 and 1; lower beta_T, or raise T if scale_betas is on "
            f"(got {float(beta.min()):.4g} to {float(beta.max()):.4g})"
        )
    return Schedule(beta=beta, alpha_bar=torch.cumprod(1 - beta, dim=0))


def linear(T: int, *, beta_1: float = 1e-4, beta_T: float = 0.02, scale_betas: bool = False) -> Schedule:
    """Return the linear schedule beta_1..beta_T over T steps (Ho et al. 2020).

    scale_betas multiplies both ends by 1000 / T, as the authors of FinDiff and FedTabDiff do, so that a short chain
    still ends at nearly pure noise; without it alpha_bar at T=500 stops at 6.4e-3 (remaining signal .08).
    """
    if T < 1:
        raise ValueError(f"T must be at least 1, got {T}")
    factor = 1000 / T if scale_betas else 1.0
    return _from_beta(torch.linspace(beta_1 * factor, beta_T * factor, T, dtype=torch.float64))


def cosine(T: int, *, s: float = 0.008) -> Schedule:
    """Return the cosine schedule over T steps, beta capped at 0.999 (Nichol & Dhariwal 2021, eq. 17)."""
    if T < 1:
        raise ValueError(f"T must be at least 1, got {T}")
    grid = torch.linspace(0, 1, T + 1, dtype=torch.float64)
    f = torch.cos((grid + s) / (1 + s) * torch.pi / 2) ** 2
    return _from_beta((1 - f[1:] / f[:-1]).clamp(1e-8, 0.999))
