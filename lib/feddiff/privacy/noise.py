"""Gaussian noise for private training: seeded for experiments, cryptographic for deployment.

`GaussianNoise` draws from a torch generator: reproducible, hence predictable to whoever learns its state, and
exposed to floating-point attacks. `SecureGaussianNoise` draws from the operating system and is neither.
"""

import math
import os
from collections.abc import Callable

import torch

_DRAWS = 4  # 2n Gaussian draws a value with n = 2: recovering the bits takes about 2^159 trials (Holohan & Braghin)
_CHUNK = 1 << 16  # values at a time: the working set stays in cache
_MANTISSA = (1 << 53) - 1


class GaussianNoise:
    """Seeded Gaussian noise from one torch generator; the same state gives the same noise.

    torch's float32 normals on the CPU have 24 bits of uniform behind them: none is beyond 5.8 std (mass 7e-9).
    """

    def __init__(self, generator: torch.Generator):
        if not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator, got {type(generator).__name__}: "
                "use feddiff.seeds.torch_generator(seed, 'noise')"
            )
        self.generator = generator

    def fill_(self, tensor: torch.Tensor, std: float) -> torch.Tensor:
        """Overwrite `tensor` (any shape, floating) with independent N(0, std^2), std >= 0, and return it."""
        _check_std(std)
        return tensor.zero_() if std == 0 else tensor.normal_(0.0, std, generator=self.generator)


class SecureGaussianNoise:
    """Gaussian noise from the operating system's cryptographic generator, hardened against floating-point attacks.

    Uniforms of 53 random bits go through Box-Muller in float64, and each value is the scaled sum of four such normals
    (Holohan & Braghin, 2021, "Secure Random Sampling in Differential Privacy", section 5.1; the fix of Opacus's secure
    mode against Mironov-style attacks on the set of reachable floats). One normal is at most 8.58 in size (the mass
    beyond is 1e-17), so a value is at most 17.2 standard deviations. About 0.1 microseconds a value; not reproducible.
    It protects the noise only: draw batches with `sampling.secure_poisson_batch` beside it. The guarantee that remains
    is computational and up to rounding in the sum of gradients; exact discrete mechanisms are another design.

    entropy: bytes(count) -> that many random bytes; replaced only by tests.
    """

    def __init__(self, entropy: Callable[[int], bytes] = os.urandom):
        self._entropy = entropy

    def fill_(self, tensor: torch.Tensor, std: float) -> torch.Tensor:
        """Overwrite `tensor` (any shape, floating, contiguous) with independent N(0, std^2), std >= 0; return it."""
        _check_std(std)
        if std == 0:
            return tensor.zero_()
        flat = tensor.view(-1)
        for start in range(0, flat.numel(), _CHUNK):
            part = flat[start : start + _CHUNK]
            part.copy_(self._standard_normals(part.numel()).mul_(std))
        return tensor

    def _standard_normals(self, count: int) -> torch.Tensor:
        """Return `count` standard normals, float64: the sum of two Box-Muller pairs each, divided by sqrt(4)."""
        words = torch.frombuffer(bytearray(self._entropy(8 * _DRAWS * count)), dtype=torch.int64)
        words = words.bitwise_and_(_MANTISSA).view(_DRAWS, count)
        # (k + 1) 2^-53 lies in (0, 1] and is exact: the logarithm is finite for every bit pattern
        radius = words[:2].double().add_(1.0).mul_(2.0**-53).log_().mul_(-2.0).sqrt_()
        angle = words[2:].double().mul_(2.0 * math.pi * 2.0**-53)
        normals = angle.cos().add_(angle.sin_()).mul_(radius)
        return normals.sum(0).div_(math.sqrt(_DRAWS))


def _check_std(std: float) -> None:
    if not (math.isfinite(std) and std >= 0):
        raise ValueError(f"std must be finite and >= 0, got {std!r}")
