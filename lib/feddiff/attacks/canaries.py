"""Gradient-space canaries: what an observer of every private gradient learns of one record.

Threat model: the strongest that DP-SGD is proved against. The adversary sees the noised gradient of every step, knows
all parameters of the mechanism and all other records, and chose the canary; only its coin and the noise are unknown.

A canary is a record whose clipped gradient is C e_j, where no other record has a gradient (Nasr et al. 2023, "Tight
Auditing of Differentially Private Machine Learning"): the strongest record there is, so the audit is tight. Canaries
with coordinates, coins and noise of their own are independent trials, many to a step.
"""

import numpy as np
import torch
from torch import nn

from feddiff.attacks.step_mutants import Variant
from feddiff.privacy.arguments import count, real
from feddiff.privacy.sampling import poisson_batch
from feddiff.seeds import torch_generator

CLIP = 0.5
OTHERS = 7  # records beside the canaries
SPARE = 5  # coordinates of each layer that no canary has
LOUDNESS = 40.0  # norm of a canary's gradient before clipping, over the clip norm


class _Branches(nn.Module):
    """Two linear layers side by side; the canaries live in the first coordinates of the second."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        # The gradient of a linear loss is its input, whatever the weights are.
        self.first, self.second = (
            nn.utils.skip_init(nn.Linear, width, 1, bias=False).requires_grad_() for _ in range(2)
        )
        nn.init.zeros_(self.first.weight)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.first(x[:, : self.width]) + self.second(x[:, self.width :])).squeeze(1)


def _records(canaries: int, seed: int) -> torch.Tensor:
    """Return the other records, then the canaries, as inputs = gradients, shape (OTHERS + canaries, 2 * width)."""
    width = canaries + SPARE
    x = torch.randn(OTHERS + canaries, 2 * width, generator=torch_generator(seed, "canaries", "records"))
    x[:OTHERS, width : width + canaries] = 0.0
    x[OTHERS:] = 0.0
    x[OTHERS:, width : width + canaries] = LOUDNESS * CLIP * torch.eye(canaries)
    return x


def _step(variant: Variant, model: nn.Module, sigma: float, batch: float, seed: int):
    return variant.step(
        model,
        clip_norm=CLIP,
        noise_multiplier=real("sigma", sigma, open_low=True, open_high=True),
        expected_batch=batch,
        noise=variant.noise(torch_generator(seed, "canaries", "noise"), batch),
        **variant.options,
    )


def observe_steps(
    variant: Variant, *, sigma: float, seed: int, canaries: int = 50, steps: int = 40
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and coins of independent full-batch steps, both of length canaries * steps (single: 400).

    In each step each canary is in by a fair coin; its score is its coordinate of the private gradient times
    batch / C, for a correct step N(0 or 1, sigma^2): one Gaussian release with mu = 1 / sigma.
    """
    canaries, steps = count("canaries", canaries, low=1), count("steps", steps, low=1)
    if variant.single:
        canaries, steps = 1, 400
    model, x = _Branches(canaries + SPARE), _records(canaries, seed)
    batch = OTHERS + canaries / 2
    coins = torch.randint(0, 2, (steps, canaries), generator=torch_generator(seed, "canaries", "coins")).bool()
    seen = torch.empty(steps, canaries)
    with _step(variant, model, sigma, batch, seed) as step:
        for trial, present in enumerate(coins):
            rows = torch.cat([x[:OTHERS], x[OTHERS:][present]])
            step.gradient(lambda part, rows=rows: model(rows[part]), len(rows))
            seen[trial] = model.second.weight.grad[0, :canaries] * (batch / CLIP)
    return seen.flatten().numpy(), coins.flatten().numpy()


def observe_run(
    variant: Variant, *, sigma: float, sample_rate: float, steps: int, seed: int, canaries: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and coins of one training run with Poisson batches, both (canaries,).

    Each canary is in the data by one fair coin for the whole run; its score is the log-likelihood ratio of its
    coordinate over all steps, in against out, which no other score beats (Neyman and Pearson).
    """
    rate = real("sample_rate", sample_rate, high=1.0, open_low=True)
    canaries, steps = count("canaries", canaries, low=1), count("steps", steps, low=1)
    model, x = _Branches(canaries + SPARE), _records(canaries, seed)
    coins = torch.randint(0, 2, (canaries,), generator=torch_generator(seed, "canaries", "coins")).bool()
    x = torch.cat([x[:OTHERS], x[OTHERS:][coins]])
    batch = rate * (OTHERS + canaries / 2)
    batches = torch_generator(seed, "canaries", "batches")
    scores = torch.zeros(canaries, dtype=torch.float64)
    with _step(variant, model, sigma, batch, seed) as step:
        for _ in range(steps):
            rows = x[poisson_batch(len(x), rate, batches)]
            step.gradient(lambda part, rows=rows: model(rows[part]), len(rows))
            seen = model.second.weight.grad[0, :canaries].double() * (batch / CLIP)
            scores += torch.log1p(rate * torch.expm1((seen - 0.5) / sigma**2))
    return scores.numpy(), coins.numpy()
