"""The laws that training draws its timesteps from; both know the progress of the training, and no data.

"uniform" over the chain (Ho et al. 2020, algorithm 1). "adaptive": DP-FinDiff's power law (Sattarov, Schreyer & Borth,
arXiv 2512.00638, and its public code): weights (t + 1)^a with a from 3 (nearly pure noise) to -1 (nearly clean rows)
over the training, weight 0 at t = 0. No importance correction: the loss that is minimised is another one.
"""

import torch

LAWS = ("uniform", "adaptive")
START, END = 3.0, -1.0


def adaptive_weights(T: int, progress: float) -> torch.Tensor:
    """Return the probabilities of t = 0..T-1, shape (T,), float64, at a progress in [0, 1]; T >= 2."""
    weights = torch.arange(1, T + 1, dtype=torch.float64) ** (START + progress * (END - START))
    weights[0] = 0.0
    return weights / weights.sum()


def draw(law: str, T: int, shape: tuple[int, ...], progress: float, generator: torch.Generator) -> torch.Tensor:
    """Return timesteps in {0, ..., T-1} of this shape, int64; progress: share of the training that is done."""
    if law == "uniform":
        return torch.randint(T, shape, generator=generator)
    if law != "adaptive":
        raise ValueError(f"law must be one of {LAWS}, got {law!r}")
    reached = adaptive_weights(T, progress).cumsum(0)
    return torch.searchsorted(reached / reached[-1], torch.rand(shape, generator=generator).double(), right=True)
