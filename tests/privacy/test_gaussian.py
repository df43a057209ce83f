"""The analytic Gaussian mechanism and the forward diffusion: published values, the definition, extreme ranges."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from feddiff.privacy import accounting

EXACT = [
    (0.5, 9.997256, 10.997151),
    (1, 4.377178, 4.886554),
    (3, 1.271088, 1.447988),
    (5, 0.725522, 0.834118),
    (10, 0.340669, 0.396857),
]
# t0, alpha_bar, then (theorem, analytic) for C = 1, sqrt(3), 10 and, at full range, analytic for MNIST and both for CIFAR
FORWARD = [
    (100, 45.745, 41.845, 101.3, 95.0, 2025, 1993, 14362, 55087, 54911),
    (300, 9.091, 7.739, 17.41, 15.31, 209.1, 199.6, 1222, 4466, 4417),
    (400, 5.211, 4.300, 9.640, 8.231, 95.749, 89.664, 496.9, 1751.6, 1721.5),
    (600, 1.617, 1.240, 2.869, 2.284, 20.96, 18.58, 79.8, 249.9, 239.4),
    (800, 0.379, 0.261, 0.660, 0.475, 4.066, 3.307, 11.2, 30.26, 27.25),
]


def alpha_bar(step: int) -> float:
    return float(np.prod(1 - np.linspace(1e-4, 0.02, 1000)[:step]))


@pytest.mark.parametrize(("noise", "at_1e5", "at_1e6"), EXACT)
def test_epsilon_matches_the_published_table(noise, at_1e5, at_1e6):
    assert accounting.gaussian_epsilon(noise_over_sensitivity=noise, delta=1e-5) == pytest.approx(at_1e5, rel=3e-6)
    assert accounting.gaussian_epsilon(noise_over_sensitivity=noise, delta=1e-6) == pytest.approx(at_1e6, rel=3e-6)


@pytest.mark.parametrize(("target", "noise"), [(0.1, 30.749566), (1, 3.730632), (3, 1.390593), (8, 0.600229)])
def test_noise_matches_the_published_table(target, noise):
    assert accounting.gaussian_noise(target_epsilon=target, delta=1e-5) == pytest.approx(noise, rel=3e-6)


def test_delta_is_the_hockey_stick_divergence():
    for noise, epsilon in [(0.5, 9.0), (1.0, 3.0), (4.0, 0.4), (30.0, 0.05)]:
        mu = 1 / noise
        start = mu / 2 + epsilon / mu

        def excess(x, mu=mu, epsilon=epsilon):
            return norm.pdf(x - mu) - math.exp(epsilon) * norm.pdf(x)

        expected = quad(excess, start, start + 12, epsabs=0, epsrel=1e-10)[0]
        delta = accounting.gaussian_delta(noise_over_sensitivity=noise, epsilon=epsilon)
        assert delta == pytest.approx(expected, rel=1e-7)


def test_noise_never_overshoots_and_inverts_over_nine_decades():
    for target in np.geomspace(1e-5, 1e4, 40):
        for delta in (1e-12, 1e-5, 0.1):
            noise = accounting.gaussian_noise(target_epsilon=target, delta=delta)
            spent = accounting.gaussian_epsilon(noise_over_sensitivity=noise, delta=delta)
            assert target * (1 - 1e-6) < spent <= target


def test_epsilon_falls_with_noise_over_thirty_decades():
    values = [accounting.gaussian_epsilon(noise_over_sensitivity=s, delta=1e-5) for s in np.geomspace(1e-15, 1e15, 200)]
    assert all(later <= earlier for earlier, later in zip(values, values[1:], strict=False))
    assert values[0] == pytest.approx(0.5e30, rel=1e-6) and values[-1] == 0.0


def test_classical_formula_adds_too_little_noise_beyond_one():
    classical = math.sqrt(2 * math.log(1.25 / 1e-5)) / 10
    assert accounting.gaussian_epsilon(noise_over_sensitivity=classical, delta=1e-5) > 10


def test_gaussian_degenerate_cases():
    assert accounting.gaussian_epsilon(noise_over_sensitivity=0, delta=1e-5) == math.inf
    assert accounting.gaussian_epsilon(noise_over_sensitivity=math.inf, delta=1e-5) == 0.0
    assert accounting.gaussian_delta(noise_over_sensitivity=0, epsilon=1.0) == 1.0
    assert accounting.gaussian_delta(noise_over_sensitivity=math.inf, epsilon=0.0) == 0.0
    # 2 Phi(mu/2) - 1 is the total variation: a delta beyond it buys epsilon 0.
    assert accounting.gaussian_epsilon(noise_over_sensitivity=1.0, delta=2 * norm.cdf(0.5) - 1 + 1e-9) == 0.0


@pytest.mark.parametrize("row", FORWARD, ids=lambda row: f"t0={row[0]}")
def test_forward_diffusion_table(row):
    step, pixel_theorem, pixel, rgb_theorem, rgb, clip_theorem, clip, mnist, cifar_theorem, cifar = row
    sizes = [(1, pixel_theorem, pixel), (math.sqrt(3), rgb_theorem, rgb), (10, clip_theorem, clip)]
    sizes += [(28, None, mnist), (math.sqrt(3072), cifar_theorem, cifar)]
    for norm_bound, theorem, analytic in sizes:
        setting = {"alpha_bar": alpha_bar(step), "clip_norm": norm_bound, "delta": 1e-5}
        assert accounting.forward_diffusion_epsilon(**setting) == pytest.approx(analytic, rel=5e-3)
        if theorem is not None:
            value = accounting.forward_diffusion_epsilon(**setting, bound="theorem")
            assert value == pytest.approx(theorem, rel=2e-3)
            assert value > accounting.forward_diffusion_epsilon(**setting)


def test_forward_diffusion_quoted_numbers():
    headline = {"alpha_bar": alpha_bar(690), "clip_norm": 10, "delta": 1e-5}
    assert accounting.forward_diffusion_epsilon(**headline, bound="theorem") == pytest.approx(10.243, abs=2e-3)
    assert accounting.forward_diffusion_epsilon(**headline) == pytest.approx(8.774, abs=2e-3)
    # k uploads of one record are one release of mu sqrt(k): the clip norm grows by sqrt(k).
    for uploads, expected in [(1, 4.300), (10, 17.504), (100, 89.664)]:
        value = accounting.forward_diffusion_epsilon(
            alpha_bar=alpha_bar(400), clip_norm=math.sqrt(uploads), delta=1e-5
        )
        assert value == pytest.approx(expected, abs=1e-3)


def test_forward_diffusion_degenerate_and_bad_input():
    assert accounting.forward_diffusion_epsilon(alpha_bar=0, clip_norm=1, delta=1e-5) == 0.0
    assert accounting.forward_diffusion_epsilon(alpha_bar=1, clip_norm=1, delta=1e-5) == math.inf
    assert accounting.forward_diffusion_epsilon(alpha_bar=0.5, clip_norm=0, delta=1e-5) == 0.0
    with pytest.raises(ValueError, match="bound"):
        accounting.forward_diffusion_epsilon(alpha_bar=0.5, clip_norm=1, delta=1e-5, bound="classical")
    with pytest.raises(ValueError, match="alpha_bar"):
        accounting.forward_diffusion_epsilon(alpha_bar=1.5, clip_norm=1, delta=1e-5)
    with pytest.raises(TypeError, match="clip_norm"):
        accounting.forward_diffusion_epsilon(alpha_bar=0.5, clip_norm="1", delta=1e-5)
    with pytest.raises(ValueError, match="delta"):
        accounting.gaussian_epsilon(noise_over_sensitivity=1, delta=0)
    with pytest.raises(ValueError, match="target_epsilon"):
        accounting.gaussian_noise(target_epsilon=0, delta=1e-5)
