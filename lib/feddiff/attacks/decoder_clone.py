"""Cloning a secret decoder from the protocol's own synthetic output.

Threat model: a coordinator that generates synthetic latents z~ and sends them to the silos, as SiloFuse's (Shankar et
al., 2024) does. Once a silo publishes or shares its decoded rows x~ = D(z~), which is what synthesis is for, every
published row is a pair (z~, x~) that the coordinator has for nothing. A clone of the decoder learnt from these pairs is
applied to the latents of the REAL rows. No real row, no weight, no query beyond the protocol is needed. Rows published
in another order, or decoded by someone else's latents, give no pairs: the control.
"""

import numpy as np
import torch

from feddiff.attacks.latent_inversion import invert
from feddiff.attacks.latent_rows import Rows


def clone(
    z_synthetic: np.ndarray, released: Rows, z: np.ndarray, *, generator: torch.Generator, method: str = "mlp",
    rows: int | None = None,
) -> Rows:
    """Return the rows that the clone reads from real latents z (n, s), learnt from the first `rows` pairs (None: all).

    z_synthetic (N, s): what was sent to the silo; released: its published rows in the same order. Methods as `invert`.
    """
    rows = len(released) if rows is None else rows
    if not 1 <= rows <= len(released):
        raise ValueError(f"rows must lie in 1..{len(released)}, the published rows, got {rows!r}")
    first = np.arange(rows)
    return invert(z_synthetic[first], released.select(first), z, method=method, generator=generator)


def shuffled(released: Rows, generator: np.random.Generator) -> Rows:
    """Return the published rows in a random order: the control, and a defence against this attack."""
    return released.select(generator.permutation(len(released)))
