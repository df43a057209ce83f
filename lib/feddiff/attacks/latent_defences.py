"""What a silo can do to its latents before it uploads them, for attacks to be tried on.

Threat model: the adversary holds the latents as uploaded and knows the defence and its parameters, but not the secrets
of a silo: its rows, its encoder, the noise drawn, the rotation. Defended latents are tried with the attacks of
`latent_inversion` and `latent_structure`.

- `private_latents`: each row's latent clipped to an L2 ball and noised, a local DP release whose epsilon is exact;
- `rotated`: a secret random rotation, which any attack that learns from pairs learns along (no defence);
- a bottleneck (variational or narrow autoencoder) is a choice of the system and not made here.
"""

import math
from dataclasses import dataclass

import numpy as np

from feddiff.privacy.gaussian import gaussian_noise


@dataclass(frozen=True, eq=False)
class PrivateLatents:
    """z: what is uploaded, (n, s); noise: standard deviation over the clipped latents; statement of the guarantee."""

    z: np.ndarray
    noise: float
    statement: dict[str, object]


def private_latents(
    z: np.ndarray, *, clip_norm: float, epsilon: float, delta: float, releases: int, generator: np.random.Generator
) -> PrivateLatents:
    """Clip each row to L2 norm `clip_norm`, add Gaussian noise, and shrink to unit variance by a public factor.

    Local DP, replace-one (any two rows differ by at most 2 clip_norm), analytic Gaussian mechanism (Balle and Wang,
    2018). epsilon is for one person's `releases` uploads together, one a silo, each with its own noise: releases of
    equal noise-to-sensitivity r compose to one of r / sqrt(releases), exactly. What follows (diffusion, synthesis) is
    post-processing; encoders and decoders themselves are trained without DP and are outside of it.
    """
    if not 0 < clip_norm < math.inf:
        raise ValueError(f"clip_norm must be a positive number, got {clip_norm!r}")
    if releases < 1:
        raise ValueError(f"releases must be at least 1, got {releases!r}")
    ratio = gaussian_noise(target_epsilon=epsilon, delta=delta) * math.sqrt(releases)
    noise = 2 * clip_norm * ratio
    norms = np.linalg.norm(z, axis=1, keepdims=True)
    clipped = z * np.minimum(1.0, clip_norm / np.maximum(norms, 1e-12))
    noised = clipped + noise * generator.standard_normal(z.shape)
    statement = {
        "unit": "one row's latents in all silos", "adjacency": "replace-one", "sampling": "none: every row once",
        "accountant": "analytic Gaussian", "epsilon": epsilon, "delta": delta, "clip_norm": clip_norm,
        "releases": releases, "noise": noise,
        "outside": ["encoders and decoders are trained on the rows without DP"],
    }
    return PrivateLatents((noised / math.sqrt(1 + noise**2)).astype(z.dtype), noise, statement)


def rotated(z: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return z turned by a random rotation (or reflection) that only the silo knows."""
    turn = np.linalg.qr(generator.standard_normal((z.shape[1], z.shape[1])))[0]
    return (z @ turn).astype(z.dtype)
