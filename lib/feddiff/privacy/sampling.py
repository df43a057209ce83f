"""Poisson sampling of records: the sampling that every epsilon of this project assumes.

Each record enters a batch independently with probability q. Shuffled or fixed-size batches are other mechanisms with
another epsilon (Chua et al., 2024, "How Private are DP-SGD Implementations?"): they are never a substitute.
"""

import math
import os
from collections.abc import Callable

import torch


def poisson_batch(rows: int, sample_rate: float, generator: torch.Generator) -> torch.Tensor:
    """Return the sorted indices of a Poisson sample of `rows` records, each in with probability `sample_rate`.

    rows: number of records of the client, >= 0; sample_rate: q in [0, 1], a public constant (never computed from a
    neighbour-dependent count during training). Shape (b,), int64, b ~ Binomial(rows, q), possibly 0.
    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {type(generator).__name__}: use feddiff.seeds.torch_generator"
        )

    def uniform(count: int) -> torch.Tensor:
        draws = torch.rand(count, dtype=torch.float64, generator=generator, device=generator.device)
        return draws.cpu()

    return _bernoulli_process(rows, sample_rate, uniform)


def secure_poisson_batch(rows: int, sample_rate: float) -> torch.Tensor:
    """Return a Poisson sample as `poisson_batch`, drawn from the operating system's cryptographic generator.

    For deployment: amplification by sampling holds only while the adversary cannot predict who is in the batch.
    """

    def uniform(count: int) -> torch.Tensor:
        words = torch.frombuffer(bytearray(os.urandom(8 * count)), dtype=torch.int64)
        return (words & ((1 << 53) - 1)).double() * 2.0**-53

    return _bernoulli_process(rows, sample_rate, uniform)


def _bernoulli_process(rows: int, sample_rate: float, uniform: Callable[[int], torch.Tensor]) -> torch.Tensor:
    """Return the successes of `rows` Bernoulli trials through their geometric waiting times.

    Exact, and costs O(rows * q) draws instead of O(rows): a mask over 10^6 rows would cost as much as a small step.
    uniform(count): float64 draws in [0, 1) with 53 bits.
    """
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 0:
        raise ValueError(f"rows must be an integer >= 0, got {rows!r}")
    if not 0.0 <= sample_rate <= 1.0:
        raise ValueError(f"sample_rate must lie in [0, 1], got {sample_rate!r}: expected batch / rows of the client")
    if rows == 0 or sample_rate == 0.0:
        return torch.empty(0, dtype=torch.int64)
    if sample_rate == 1.0:
        return torch.arange(rows)
    mean = rows * sample_rate
    block = int(mean + 6.0 * math.sqrt(mean)) + 16
    log_failure = math.log1p(-sample_rate)
    pieces, last = [], -1.0
    while last < rows:
        # P[wait > k] = P[1 - u <= (1 - q)^k] = (1 - q)^k, for 1 - u uniform on (0, 1]
        waits = torch.log1p(-uniform(block)).div_(log_failure).floor_().add_(1.0)
        positions = waits.cumsum(0).add_(last)
        last = positions[-1].item()
        pieces.append(positions[positions < rows])
    return torch.cat(pieces).long()
