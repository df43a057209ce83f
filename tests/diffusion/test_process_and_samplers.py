"""Forward process, schedules and samplers against closed forms on Gaussian data."""

import math

import pytest
import torch

from feddiff.diffusion import samplers
from feddiff.diffusion.process import (
    epsilon_from_x0,
    posterior_mean,
    q_sample,
    velocity,
    x0_from_epsilon,
    x0_from_velocity,
)
from feddiff.diffusion.schedules import cosine, linear
from feddiff.seeds import torch_generator

N = 20_000


def test_linear_schedule_has_the_published_ends_and_alpha_bar():
    schedule = linear(1000)
    assert float(schedule.beta[0]) == pytest.approx(1e-4) and float(schedule.beta[-1]) == pytest.approx(0.02)
    # Published values for T = 1000 at the papers' steps 100 and 400.
    assert float(schedule.alpha_bar[99]) == pytest.approx(0.897018, abs=1e-6)
    assert float(schedule.alpha_bar[399]) == pytest.approx(0.195146, abs=1e-6)


def test_beta_scaling_reaches_pure_noise_and_no_scaling_does_not():
    assert float(linear(500, scale_betas=True).alpha_bar[-1]) == pytest.approx(3.8e-5, rel=0.05)
    assert float(linear(500).alpha_bar[-1]) == pytest.approx(6.4e-3, rel=0.05)


@pytest.mark.parametrize("schedule", [linear(100, scale_betas=True), cosine(50)], ids=["linear", "cosine"])
def test_alpha_bar_is_the_product_of_alphas_and_falls(schedule):
    assert torch.allclose(schedule.alpha_bar, torch.cumprod(1 - schedule.beta, 0), atol=0)
    assert bool((schedule.alpha_bar.diff() < 0).all()) and schedule.posterior_variance[0] == 0


@pytest.mark.parametrize("arguments", [dict(T=0), dict(T=10, scale_betas=True, beta_T=0.02), dict(T=5, beta_T=1.0)])
def test_impossible_schedules_are_refused(arguments):
    with pytest.raises(ValueError, match="T|beta"):
        linear(**arguments)


def test_forward_moments_match_the_closed_form_at_every_tenth_step():
    schedule, g = linear(100, scale_betas=True), torch_generator(0, "forward")
    for t in range(0, 100, 10):
        x0 = 1.5 + 0.5 * torch.randn(N, 1, generator=g)
        xt = q_sample(x0, torch.full((N,), t), torch.randn(N, 1, generator=g), schedule)
        bar = float(schedule.alpha_bar[t])
        std = math.sqrt(bar * 0.25 + 1 - bar)
        assert abs(float(xt.mean()) - 1.5 * math.sqrt(bar)) < 4 * std / math.sqrt(N)
        assert abs(float(xt.std()) / std - 1) < 4 / math.sqrt(2 * N)


def test_x0_epsilon_and_velocity_are_inverse_to_each_other():
    schedule, g = linear(100, scale_betas=True), torch_generator(0, "identities")
    x0, noise = torch.randn(64, 3, generator=g).double(), torch.randn(64, 3, generator=g).double()
    t = torch.randint(100, (64,), generator=g)
    xt = q_sample(x0, t, noise, schedule)
    assert torch.allclose(x0_from_epsilon(xt, t, noise, schedule), x0, atol=1e-9)
    assert torch.allclose(x0_from_velocity(xt, t, velocity(x0, t, noise, schedule), schedule), x0, atol=1e-9)
    assert torch.allclose(epsilon_from_x0(xt, t, x0, schedule), noise, atol=1e-9)


def test_posterior_mean_is_the_regression_of_the_step_before_on_x0_and_xt():
    schedule, g, t = linear(20, scale_betas=False, beta_T=0.2), torch_generator(0, "posterior"), 12
    x0 = torch.randn(400_000, generator=g, dtype=torch.float64)
    before = q_sample(x0, torch.full((len(x0),), t - 1), torch.randn(x0.shape, generator=g, dtype=x0.dtype), schedule)
    beta = schedule.beta[t]
    xt = (1 - beta).sqrt() * before + beta.sqrt() * torch.randn(x0.shape, generator=g, dtype=x0.dtype)
    residual = before - posterior_mean(x0, xt, t, schedule)
    assert abs(float((residual * x0).mean())) < 0.005 and abs(float((residual * xt).mean())) < 0.005
    assert float(residual.var()) == pytest.approx(float(schedule.posterior_variance[t]), rel=0.02)


def _gaussian_denoiser(schedule, mean, std):
    """E[x_0 | x_t] for x_0 ~ N(mean, std^2): the exact denoiser."""

    def predict(x, t):
        bar = float(schedule.alpha_bar[t])
        gain = math.sqrt(bar) * std**2 / (bar * std**2 + 1 - bar)
        return mean + gain * (x - math.sqrt(bar) * mean)

    return predict


def _ancestral_std(schedule, std, variance):
    """Standard deviation that ancestral sampling with the exact denoiser of N(., std^2) ends with: it is affine."""
    spread = 1.0
    for t in range(schedule.T - 1, -1, -1):
        bar, before, beta = (float(v[t]) for v in (schedule.alpha_bar, schedule.alpha_bar_previous, schedule.beta))
        gain = math.sqrt(bar) * std**2 / (bar * std**2 + 1 - bar)
        if t == 0:
            return gain * math.sqrt(spread)
        slope = math.sqrt(before) * beta / (1 - bar) * gain + math.sqrt(1 - beta) * (1 - before) / (1 - bar)
        spread = slope**2 * spread + float(variance[t])


@pytest.mark.parametrize("variance", ["beta", "posterior"])
def test_ancestral_sampling_ends_where_the_exact_recursion_says(variance):
    schedule, g = linear(200, scale_betas=True), torch_generator(1, "sampler")
    x = torch.randn(N, 1, generator=g)
    sample = samplers.ancestral(_gaussian_denoiser(schedule, 2.0, 0.5), x, schedule, g, variance=variance)
    chosen = schedule.beta if variance == "beta" else schedule.posterior_variance
    assert float(sample.mean()) == pytest.approx(2.0, abs=0.02)
    assert float(sample.std()) == pytest.approx(_ancestral_std(schedule, 0.5, chosen), rel=0.02)


def test_sigma_beta_is_right_for_unit_data_and_sigma_posterior_shrinks_it():
    schedule = linear(200, scale_betas=True)
    assert _ancestral_std(schedule, 1.0, schedule.beta) == pytest.approx(1.0, abs=0.01)
    assert _ancestral_std(schedule, 1.0, schedule.posterior_variance) < 0.985


@pytest.mark.parametrize(("steps", "bound"), [(200, 0.03), (25, 0.15)])
def test_ddim_recovers_mean_and_spread_and_more_steps_come_closer(steps, bound):
    schedule, g = linear(200, scale_betas=True), torch_generator(1, "sampler")
    x = torch.randn(N, 1, generator=g)
    sample = samplers.ddim(_gaussian_denoiser(schedule, 2.0, 0.5), x, schedule, g, steps=steps)
    assert float(sample.mean()) == pytest.approx(2.0, abs=bound)
    assert float(sample.std()) == pytest.approx(0.5, rel=bound)


def test_ddim_with_eta_1_and_all_steps_is_ancestral_with_the_posterior_variance():
    schedule = linear(50, scale_betas=True)
    predict = _gaussian_denoiser(schedule, 1.0, 0.3)
    x = torch.randn(32, 2, generator=torch_generator(0, "x"), dtype=torch.float64)
    one = samplers.ancestral(predict, x, schedule, torch_generator(0, "noise"), variance="posterior")
    two = samplers.ddim(predict, x, schedule, torch_generator(0, "noise"), steps=50, eta=1.0)
    assert torch.allclose(one, two, atol=1e-10)


def test_strided_steps_start_at_the_top_end_at_zero_and_fall():
    for steps in (2, 7, 99, 100):
        times = samplers.strided(100, steps)
        assert times[0] == 99 and times[-1] == 0 and len(times) == steps
        assert all(a > b for a, b in zip(times, times[1:]))
    with pytest.raises(ValueError, match="sampling steps"):
        samplers.strided(10, 11)
