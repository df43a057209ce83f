"""Gaussian noise, seeded and cryptographic: right scale, right tails, finite for every bit pattern."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from feddiff.privacy.noise import GaussianNoise, SecureGaussianNoise
from feddiff.seeds import numpy_generator, torch_generator

N = 200_000


def seeded_entropy(seed=0):
    generator = numpy_generator(seed, "entropy")
    return generator.bytes


SOURCES = {
    "seeded": lambda: GaussianNoise(torch_generator(5, "noise")),
    "secure": lambda: SecureGaussianNoise(seeded_entropy()),
}


def passes_ks(sample, std, level=1e-6):
    """Accept or reject N(0, std^2), two-sided, at a level at which a right generator practically never fails."""
    return stats.kstest(sample, "norm", args=(0.0, std)).pvalue > level


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("source", SOURCES)
def test_the_distribution_is_normal_with_the_right_scale_and_no_other(source, dtype):
    std = 1.7
    sample = SOURCES[source]().fill_(torch.empty(N, dtype=dtype), std).double().numpy()
    assert passes_ks(sample, std)
    assert not passes_ks(sample, std * 2 / 3) and not passes_ks(sample, std * 3 / 2)
    assert not passes_ks(sample, std * 1.05), "five per cent too little noise is seen"
    assert stats.skew(sample) == pytest.approx(0, abs=5 * math.sqrt(6 / N))
    assert stats.kurtosis(sample) == pytest.approx(0, abs=5 * math.sqrt(24 / N))


@pytest.mark.parametrize("source", SOURCES)
def test_the_tails_hold_as_many_values_as_they_should(source):
    sample = SOURCES[source]().fill_(torch.empty(5 * N), 1.0).double().numpy()
    for threshold in (2.0, 3.0, 4.0, 4.5):
        mass = stats.norm.sf(threshold)
        low, high = stats.binom.interval(1 - 1e-6, len(sample), mass)
        assert low <= (sample > threshold).sum() <= high
        assert low <= (sample < -threshold).sum() <= high


@pytest.mark.parametrize("source", SOURCES)
def test_values_are_independent_within_and_between_calls(source):
    noise = SOURCES[source]()
    first = noise.fill_(torch.empty(N), 1.0).numpy()
    second = noise.fill_(torch.empty(N), 1.0).numpy()
    limit = 5 / math.sqrt(N)
    assert abs(np.corrcoef(first, second)[0, 1]) < limit
    for lag in (1, 2, N // 2):
        assert abs(np.corrcoef(first[lag:], first[:-lag])[0, 1]) < 2 * limit
        # Box-Muller pairs that were dealt out unscaled would share their radius
        assert abs(np.corrcoef(first[lag:] ** 2, first[:-lag] ** 2)[0, 1]) < 2 * limit


def test_seeded_noise_is_reproducible_and_secure_noise_is_not():
    pairs = [
        [GaussianNoise(torch_generator(5, "noise")).fill_(torch.empty(50), 1.0) for _ in range(2)],
        [SecureGaussianNoise().fill_(torch.empty(50), 1.0) for _ in range(2)],
    ]
    assert torch.equal(*pairs[0]) and not torch.equal(*pairs[1])


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5), ((1 << 18) + 3,)])
@pytest.mark.parametrize("source", SOURCES)
def test_every_shape_is_filled(source, shape):
    filled = SOURCES[source]().fill_(torch.zeros(shape), 2.0)
    assert filled.shape == shape and (filled != 0).all() and filled.isfinite().all()
    assert (SOURCES[source]().fill_(torch.ones(shape), 0.0) == 0).all()


def crafted(radius_bits, angle_bits):
    """Return entropy whose words are the given 64-bit patterns: two rows of radii, then two rows of angles."""

    def entropy(count):
        words = count // 8
        pattern = np.repeat(np.array([radius_bits, angle_bits], dtype=np.uint64), words // 2)
        return pattern.tobytes()

    return entropy


ALL = (1 << 64) - 1
QUARTER = 1 << 51  # a quarter turn of 2^53 steps


@pytest.mark.parametrize(
    ("radius", "angle", "expected"),
    [
        # two pairs r (cos + sin), over sqrt(4): the smallest uniform 2^-53 gives the largest radius sqrt(106 ln 2)
        (0, 0, math.sqrt(106 * math.log(2))),
        (0, QUARTER, math.sqrt(106 * math.log(2))),
        (0, QUARTER // 2, math.sqrt(2) * math.sqrt(106 * math.log(2))),
        (0, 2 * QUARTER, -math.sqrt(106 * math.log(2))),
        (0, 5 * QUARTER // 2, -math.sqrt(2) * math.sqrt(106 * math.log(2))),
        # the largest uniform is exactly 1: radius 0, at any angle
        (ALL, 0, 0.0),
        (ALL, ALL, 0.0),
        # all but the lowest of the 53 bits: the same as one step below 1
        (ALL - 1, 0, math.sqrt(-2 * math.log1p(-(2.0**-53)))),
        # the eleven high bits are not used
        (ALL ^ ((1 << 53) - 1), 0, math.sqrt(106 * math.log(2))),
    ],
)
def test_crafted_bits_reach_the_extremes_and_nothing_beyond(radius, angle, expected):
    noise = SecureGaussianNoise(crafted(radius, angle))
    values = noise.fill_(torch.empty(7, dtype=torch.float64), 1.0)
    assert values.isfinite().all()
    assert values.tolist() == pytest.approx([expected] * 7, rel=1e-12, abs=1e-15)
    assert values.abs().max() <= 17.2


def test_the_operating_system_is_asked_for_thirty_two_bytes_a_value():
    asked = []
    generator = seeded_entropy(1)

    def entropy(count):
        asked.append(count)
        return generator(count)

    SecureGaussianNoise(entropy).fill_(torch.empty(1000), 1.0)
    assert sum(asked) == 32_000


@pytest.mark.parametrize("std", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("source", SOURCES)
def test_a_bad_standard_deviation_is_named(source, std):
    with pytest.raises(ValueError, match="std"):
        SOURCES[source]().fill_(torch.empty(3), std)
