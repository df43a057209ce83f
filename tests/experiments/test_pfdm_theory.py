"""PFDM on Gaussian classes: closed forms against the samplers themselves, against expansions, and their limits."""

import math

import numpy as np
import pytest

from feddiff.data.images import load_images
from feddiff.experiments import pfdm_theory as theory
from feddiff.experiments.pfdm_theory import Gaussian
from feddiff.seeds import numpy_generator, torch_generator


def law(d=3, stream="law", scale=1.0):
    generator = numpy_generator(1, stream)
    factor = generator.standard_normal((d, d)) * scale
    return Gaussian(generator.standard_normal(d), factor @ factor.T + 0.1 * np.eye(d))


def test_distance_of_gaussians_has_its_closed_forms():
    one, other = Gaussian(np.zeros(2), np.diag([4.0, 9.0])), Gaussian(np.array([3.0, 4.0]), np.diag([1.0, 1.0]))
    assert theory.wasserstein_squared(one, other) == pytest.approx(25 + 1 + 4)
    assert theory.wasserstein_squared(other, one) == pytest.approx(30)
    assert theory.wasserstein_squared(law(), law()) == pytest.approx(0, abs=1e-12)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    turned = [Gaussian(turn @ g.mean, turn @ g.covariance @ turn.T) for g in (one, other)]
    assert theory.wasserstein_squared(*turned) == pytest.approx(30)


@pytest.mark.parametrize("sampler", theory.SAMPLERS)
def test_a_true_start_and_a_true_denoiser_give_the_truth(sampler):
    truth = law()
    for alpha_bar in (0.9, 0.2, 0.01):
        found = theory.local_stage(truth.noised(alpha_bar), truth, alpha_bar, sampler)
        assert theory.wasserstein_squared(found, truth) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("sampler", theory.SAMPLERS)
def test_the_closed_form_is_what_the_samplers_draw(sampler):
    """Two different laws for start and local stage, T + t0 steps of the library's samplers."""
    t0, samples = 200, 6_000
    abar = 1 / (1 + theory.noise(t0))
    local, start = law(stream="local", scale=0.7), law(stream="others", scale=0.7).noised(abar)
    expected = theory.local_stage(start, local, abar, sampler)
    drawn = theory.walked(start, local, t0=t0, samples=samples, generator=torch_generator(0, "walk"), sampler=sampler)
    sampling = (len(local.mean) + 3) * np.trace(expected.covariance) / samples
    steps = 0.01 * np.trace(expected.covariance)
    assert theory.wasserstein_squared(drawn, expected) < 5 * sampling + steps**2 + 1e-3
    assert theory.wasserstein_squared(drawn, local) > 0.05


def test_drawn_moments_of_the_pool_are_those_of_pictures():
    """Mean and spread of the pooled covariance against drawing every upload, below and above d pictures."""
    truth, abar = law(), 0.4
    for others in (2, 40):
        n, quick, slow = 3, [], []
        for repeat in range(1200):
            generator = numpy_generator(0, "pool", others, repeat)
            own = truth.mean + generator.standard_normal((n, 3)) @ np.linalg.cholesky(truth.covariance).T
            found = theory.upload_moments(own, truth, others, abar, generator)
            quick.append([*found.mean, *found.covariance.flatten()])
            more = truth.mean + generator.standard_normal((others, 3)) @ np.linalg.cholesky(truth.covariance).T
            x = np.concatenate([own, more])
            x = math.sqrt(abar) * x + math.sqrt(1 - abar) * generator.standard_normal(x.shape)
            found = theory.moments(x)
            slow.append([*found.mean, *found.covariance.flatten()])
        quick, slow = np.array(quick), np.array(slow)
        error = np.sqrt((quick.var(0) + slow.var(0)) / len(quick))
        assert (np.abs(quick.mean(0) - slow.mean(0)) < 4.5 * error).all()
        assert np.allclose(quick.std(0), slow.std(0), rtol=0.2)


def test_the_error_follows_its_expansion_in_many_pictures():
    """d / n (s/(1+s))^2 + d / ((1+s) N) for the mean, d(d+1)/4 [((s^2+2s)/(1+s)^2)^2 / n + 1/((1+s)^2 N)] for the
    covariance of unit data, to first order in 1 / n, up to the client's own share in the pool."""
    d, n, pool = 4, 2000, 1001
    for t0 in (100, 400):
        s, big = theory.noise(t0), pool * n
        found = theory.simulate(theory.unit(d), t0s=[t0], n=n, repeats=250, seed=0, pool=pool).iloc[0]
        own, shared = (s / (1 + s)) ** 2, 1 / (1 + s)
        mean = d * (own / n + shared / big)
        spread = d * (d + 1) / 4 * (((s**2 + 2 * s) / (1 + s) ** 2) ** 2 / n + shared**2 / big)
        assert found["pfdm"] == pytest.approx(mean + spread, rel=0.15)
        assert found["local"] == pytest.approx((d + d * (d + 1) / 4) / n, rel=0.1)
        assert found["pooled"] == pytest.approx((d + d * (d + 1) / 4) / big, rel=0.15)


def test_limits_of_the_noise():
    found = theory.simulate(theory.unit(6), t0s=[1, 1000], n=60, repeats=40, seed=0).set_index("t0")
    assert found.loc[1, "pfdm"] < 0.1 * found.loc[1, "local"], "hardly noised, the uploads are the pooled pictures"
    assert found.loc[1000, "pfdm"] == pytest.approx(found.loc[1000, "local"], rel=1e-2), "noised away, nothing is left"
    assert found.loc[1000, "no_server"] == pytest.approx(found.loc[1000, "local"], rel=1e-2)
    assert found["local"].nunique() == 1, "the same pictures at every t0"


def test_the_theorem_at_the_papers_settings():
    """pfdm.md 3.6: at t0 = 690 the pooled term weighs .54 % and the gain coefficient is .2 %; at 100, 85 % and 74 %."""
    s = theory.noise(690)
    assert s == pytest.approx(123.8, abs=0.1) and theory.noise(100) == pytest.approx(0.115, abs=1e-3)
    own, pooled = theory.error_shares(s)
    assert pooled * theory.POOL == pytest.approx(0.0054, abs=1e-4) and own == pytest.approx(1 - 0.0054, abs=1e-4)
    assert theory.gain_share(s) == pytest.approx(0.002, abs=1e-4)
    assert theory.error_shares(theory.noise(100))[1] * theory.POOL == pytest.approx(0.85, abs=0.01)
    assert theory.gain_share(theory.noise(100)) == pytest.approx(0.74, abs=0.01)


def test_classes_of_pictures_have_their_moments():
    digits = load_images("digits")
    classes = theory.of_pictures(digits, 0.37)
    assert len(classes) == 10 and classes[0].covariance.shape == (64, 64)
    own = digits.images[digits.labels == 3].reshape(-1, 64) / 127.5 - 1
    assert np.allclose(classes[3].mean, 0.37 * own.mean(0), atol=1e-6)
    assert np.trace(classes[3].covariance) == pytest.approx(0.37**2 * own.var(0).sum(), rel=1e-5)


def test_an_unknown_sampler_is_refused():
    with pytest.raises(ValueError, match="sampler"):
        theory.local_stage(law(), law(), 0.5, "euler")
