"""One integer seed per run, split by name into independent generators.

Every stream of randomness (data, partition, init, batches, noise, sampling, attack) has a name; adding a draw to
one stream never shifts another, and no generator of numpy, torch or the standard library is shared or global.
"""

import hashlib

import numpy as np
import torch


def derive(seed: int, *names: str | int) -> int:
    """Return the 63-bit seed of the stream `names` under `seed` (SHA-256; stable over machines and versions)."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed must be an integer >= 0, got {seed!r}")
    text = "\x1f".join([str(int(seed)), *(f"{type(name).__name__}:{name}" for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return the numpy generator of the stream `names` under `seed`."""
    return np.random.default_rng(derive(seed, *names))


def torch_generator(seed: int, *names: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return the torch generator of the stream `names` under `seed`, on `device`."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derive(seed, *names))
    return generator
