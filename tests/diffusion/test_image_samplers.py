"""Strided samplers from any level against closed forms: the analytic denoiser of Gaussian data."""

import math

import pytest
import torch

from feddiff.diffusion import samplers
from feddiff.diffusion.image_samplers import ancestral, ddim, schedule_after, times_from
from feddiff.diffusion.schedules import linear
from feddiff.seeds import torch_generator

SCHEDULE = linear(1000)
N = 8_000
MEAN = torch.tensor([1.0, -0.5], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.6, 0.25], [0.25, 0.3]], dtype=torch.float64)


def exact(schedule, mean, covariance):
    """E[x_0 | x_t] for x_0 ~ N(mean, covariance)."""

    def predict(x, t):
        bar = float(schedule.alpha_bar[t])
        total = bar * covariance + (1 - bar) * torch.eye(len(mean), dtype=covariance.dtype)
        gain = math.sqrt(bar) * covariance @ torch.linalg.inv(total)
        return mean + (x - math.sqrt(bar) * mean) @ gain.T

    return predict


def white(variance):
    return exact(SCHEDULE, torch.zeros(1, dtype=torch.float64), torch.full((1, 1), variance, dtype=torch.float64))


def start(n=N, d=2, seed=0):
    return torch.randn(n, d, generator=torch_generator(seed, "start"), dtype=torch.float64)


def noised(t0, n=N):
    """Data at level t0, with their own mean and covariance."""
    bar = SCHEDULE.alpha_bar[t0 - 1]
    return bar.sqrt() * MEAN, bar * COVARIANCE + (1 - bar) * torch.eye(2, dtype=torch.float64)


def assert_moments(x, mean, covariance):
    # Tolerances: four standard errors of a mean, and 5 % of the larger variance (three standard errors at N = 8,000).
    assert torch.allclose(x.mean(0), mean, atol=4 * float(covariance.diagonal().max() / len(x)) ** 0.5 + 0.005)
    assert torch.allclose(x.T.cov(), covariance, atol=0.05 * float(covariance.max()))


def test_all_steps_recover_mean_and_covariance_of_gaussian_data():
    g = torch_generator(0, "steps")
    assert_moments(ancestral(exact(SCHEDULE, MEAN, COVARIANCE), start(), SCHEDULE, g), MEAN, COVARIANCE)
    assert_moments(ddim(exact(SCHEDULE, MEAN, COVARIANCE), start(), SCHEDULE), MEAN, COVARIANCE)


@pytest.mark.parametrize("t0", [100, 690])
def test_two_stages_with_T_plus_t0_and_with_T_minus_t0_steps_end_at_the_same_moments(t0):
    g, (mean, covariance) = torch_generator(t0, "stages"), noised(t0)
    variance = 1 - float(SCHEDULE.alpha_bar[t0 - 1])
    local = exact(SCHEDULE, MEAN, COVARIANCE)
    # T + t0: the noised data are taken for clean ones, T steps on the full schedule; then t0 local steps.
    uploads = ancestral(exact(SCHEDULE, mean, covariance), start(), SCHEDULE, g, known_noise=variance)
    assert_moments(uploads, mean, covariance)
    assert_moments(ancestral(local, uploads, SCHEDULE, g, start=t0 - 1), MEAN, COVARIANCE)
    # T - t0: only the steps above t0, on the schedule that starts there.
    rest = schedule_after(SCHEDULE, t0)
    uploads = ancestral(exact(rest, mean, covariance), start(), rest, g, known_noise=variance)
    assert_moments(uploads, mean, covariance)
    assert_moments(ancestral(local, uploads, SCHEDULE, g, start=t0 - 1), MEAN, COVARIANCE)


def test_schedule_after_composes_with_the_level_that_it_starts_from():
    for t0 in (1, 400, 999):
        rest = schedule_after(SCHEDULE, t0)
        assert rest.T == 1000 - t0
        assert torch.allclose(rest.alpha_bar * SCHEDULE.alpha_bar[t0 - 1], SCHEDULE.alpha_bar[t0:], rtol=1e-12)
    for t0 in (0, 1000):
        with pytest.raises(ValueError, match=r"t0 must lie in 1\.\.T-1 = 1\.\.999"):
            schedule_after(SCHEDULE, t0)


@pytest.mark.parametrize(("steps", "plain", "deterministic"), [(30, 0.784, 0.839), (100, 0.855, 0.879)])
def test_strides_shrink_white_data_and_known_noise_mends_it_exactly(steps, plain, deterministic):
    x, g = start(100_000, 1), torch_generator(0, "strides")
    assert float(ancestral(white(0.8), x, SCHEDULE, g, steps=steps).std()) == pytest.approx(plain, abs=0.005)
    assert float(ddim(white(0.8), x, SCHEDULE, steps=steps).std()) == pytest.approx(deterministic, abs=0.005)
    mended = ancestral(white(0.8), x, SCHEDULE, g, steps=steps, known_noise=0.8).std()
    assert float(mended) == pytest.approx(math.sqrt(0.8), abs=4 * math.sqrt(0.8 / 2 / len(x)))


@pytest.mark.parametrize("t0", [400, 690])
def test_uploads_sampled_with_30_steps_keep_their_standard_deviation_within_one_percent(t0):
    # Pictures clipped to norm 10 at 16 x 16: a mean square of 100 / 256 a pixel, most of it in few directions.
    bar, d = float(SCHEDULE.alpha_bar[t0 - 1]), 16
    spectrum = torch.tensor([2.0**-k for k in range(1, d + 1)], dtype=torch.float64)
    clean = torch.diag(spectrum * (0.39 * d / spectrum.sum()))
    covariance = bar * clean + (1 - bar) * torch.eye(d, dtype=torch.float64)
    predict = exact(SCHEDULE, torch.zeros(d, dtype=torch.float64), covariance)
    g, real = torch_generator(0, "uploads"), math.sqrt(float(covariance.diagonal().mean()))
    aware = ancestral(predict, start(20_000, d), SCHEDULE, g, steps=30, known_noise=1 - bar)
    assert float(aware.square().mean().sqrt()) == pytest.approx(real, rel=0.01)
    naive = ancestral(predict, start(20_000, d), SCHEDULE, g, steps=30)
    assert float(naive.square().mean().sqrt()) < 0.97 * real


def test_equal_to_the_samplers_of_tables_where_they_overlap():
    schedule, x = linear(60, scale_betas=True), start(8)
    predict = exact(schedule, MEAN, COVARIANCE)
    make = lambda: torch_generator(0, "noise")
    full = ancestral(predict, x, schedule, make())
    assert torch.allclose(full, samplers.ancestral(predict, x, schedule, make(), variance="posterior"), atol=1e-12)
    strided = ancestral(predict, x, schedule, make(), steps=9)
    assert torch.allclose(strided, samplers.ddim(predict, x, schedule, make(), steps=9, eta=1.0), atol=1e-10)
    silent = samplers.ddim(predict, x, schedule, make(), steps=9)
    assert torch.allclose(ddim(predict, x, schedule, steps=9), silent, atol=1e-12)


def test_known_noise_one_is_the_variance_beta():
    schedule, x = linear(60, scale_betas=True), start(8)
    predict, g, h = exact(schedule, MEAN, COVARIANCE), torch_generator(0, "noise"), torch_generator(0, "noise")
    ours = ancestral(predict, x, schedule, g, known_noise=1.0)
    # The sampler of tables returns x_0_hat at the last step; ours adds the noise that unit white data still lack.
    last = samplers.ancestral(predict, x, schedule, h, variance="beta")
    last = last + math.sqrt(float(schedule.beta[0])) * torch.randn(x.shape, generator=h, dtype=x.dtype)
    assert torch.allclose(ours, last, atol=1e-10)


def test_start_and_steps_choose_the_indices_that_are_visited():
    seen = []

    def predict(x, t):
        seen.append(t)
        return x

    for run in (ancestral, ddim):
        extra = (torch_generator(0, "noise"),) if run is ancestral else ()
        seen.clear()
        run(predict, start(2), SCHEDULE, *extra, start=99, steps=4)
        assert seen == [99, 66, 33, 0]
        seen.clear()
        run(predict, start(2), SCHEDULE, *extra, start=3)
        assert seen == [3, 2, 1, 0]
    assert times_from(0, 1) == [0] and times_from(5, 1) == [5]


def test_clamp_bounds_the_prediction_and_the_last_step_adds_no_noise():
    predict = lambda x, t: 5 * x
    out = ancestral(predict, start(100), SCHEDULE, torch_generator(0, "noise"), steps=10, clamp=(-1.0, 1.0))
    assert float(out.abs().max()) <= 1.0
    assert float(ddim(predict, start(100), SCHEDULE, steps=10, clamp=(-1.0, 1.0)).abs().max()) <= 1.0


def test_noise_comes_from_the_generator_and_the_input_is_not_changed():
    before, x = torch.random.get_rng_state(), start(50)
    kept, run = x.clone(), lambda seed: ancestral(white(1.0), x[:, :1], SCHEDULE, torch_generator(seed, "n"), steps=5)
    assert torch.equal(run(0), run(0)) and not torch.equal(run(0), run(1))
    assert torch.equal(x, kept) and torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(steps=0), r"steps must lie in 1\.\.1000"),
        (dict(start=9, steps=11), r"1\.\.10 for a start at index 9, got 11"),
        (dict(start=1000), r"start must be an index in 0\.\.T-1"),
        (dict(start=-1), r"start must be an index in 0\.\.T-1"),
        (dict(known_noise=1.5), "known_noise is a variance in"),
    ],
)
def test_impossible_walks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ancestral(white(1.0), start(2, 1), SCHEDULE, torch_generator(0, "noise"), **options)
