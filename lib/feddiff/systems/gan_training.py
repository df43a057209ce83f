"""Wasserstein training of a generator against a critic, with gradient penalty (Gulrajani et al. 2017, algorithm 1)."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from feddiff.diffusion.descent import Batches
from feddiff.diffusion.ema import EMA
from feddiff.seeds import torch_generator

BETAS = (0.5, 0.9)
WINDOW = 25
# Cosine decay ends at this share of the learning rate.
FLOOR = 0.05

# A batch of n generated rows (n, d), with gradients to the generator.
Draw = Callable[[int], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Rivalry:
    """How two networks are trained: see `GANConfig` for the names."""

    steps: int
    critic_steps: int
    batch: int
    packing: int
    penalty: float
    lr: float
    critic_lr: float
    ema: float


@dataclass(frozen=True)
class Contest:
    """What a training leaves beside the networks: mean losses by window (step, critic, generator), and seconds."""

    history: pd.DataFrame
    seconds: float


def gradient_penalty(
    critic: nn.Module, real: torch.Tensor, fake: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Return the mean of (|d critic / d x| - 1)^2 at random points between packs of real and generated rows."""
    share = torch.rand(len(real), 1, 1, generator=generator)
    between = (share * real + (1 - share) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


def contend(
    generator: nn.Module, critic: nn.Module, draw: Draw, real: torch.Tensor, config: Rivalry, *, seed: int, name: str,
    draws: torch.Generator, progress: bool = True,
) -> Contest:
    """Train `generator`, whose rows `draw` returns, against `critic` on the rows `real` (n, d).

    draws: of the points of the gradient penalty. The generator ends with averaged weights. Raises FloatingPointError
    naming the step and the network whose loss is not finite.
    """
    optimisers = {
        "critic": torch.optim.Adam(critic.parameters(), lr=config.critic_lr, betas=BETAS, fused=True),
        "generator": torch.optim.Adam(generator.parameters(), lr=config.lr, betas=BETAS, fused=True),
    }
    batches = Batches(torch.zeros(len(real), dtype=torch.int64), config.batch, False, seed, name)
    average, history, window = EMA(config.ema), [], []
    packs = (-1, config.packing, real.shape[1])
    begun = time.perf_counter()
    for step in tqdm(range(config.steps), desc=name, disable=not progress):
        decay = FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * step / config.steps))
        for network, lr in (("critic", config.critic_lr), ("generator", config.lr)):
            optimisers[network].param_groups[0]["lr"] = lr * decay
        losses = {}
        for k in range(config.critic_steps):
            rows = real[batches.rows_of(step * config.critic_steps + k)].reshape(packs)
            with torch.no_grad():
                fake = draw(config.batch).reshape(packs)
            loss = critic(fake).mean() - critic(rows).mean()
            loss = loss + config.penalty * gradient_penalty(critic, rows, fake, draws)
            losses["critic"] = _descend(loss, optimisers["critic"], step, f"{name}: critic")
        critic.requires_grad_(False)
        loss = -critic(draw(config.batch).reshape(packs)).mean()
        losses["generator"] = _descend(loss, optimisers["generator"], step, f"{name}: generator")
        critic.requires_grad_(True)
        average.update(torch.cat([p.detach().flatten() for p in generator.parameters()]))
        window.append(losses)
        if (step + 1) % WINDOW == 0 or step + 1 == config.steps:
            history.append({"step": step + 1, **pd.DataFrame(window).mean().to_dict()})
            window = []
    with torch.no_grad():
        sizes = [p.numel() for p in generator.parameters()]
        for p, part in zip(generator.parameters(), average.average.split(sizes)):
            p.copy_(part.view(p.shape))
    return Contest(pd.DataFrame(history), time.perf_counter() - begun)


def _descend(loss: torch.Tensor, optimiser: torch.optim.Optimizer, step: int, what: str) -> float:
    """Make one step down `loss` and return it; FloatingPointError before the step when it is not finite."""
    value = float(loss.detach())
    if not math.isfinite(value):
        raise FloatingPointError(f"{what}: the loss is not finite at step {step + 1}; lower lr and critic_lr")
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    return value
