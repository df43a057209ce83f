"""Adaptive clipping finds the quantile of the norms, and its count is paid for."""

import math

import pytest
import torch
from torch import nn

from feddiff.privacy.adaptive import AdaptiveClip, effective_noise_multiplier, gradient_noise_multiplier
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import torch_generator


def private_step(model, clip_norm, records, **options):
    settings = {"clip_norm": clip_norm, "noise_multiplier": 1.0, "expected_batch": records} | options
    return PrivateStep(model, noise=GaussianNoise(torch_generator(0, "noise")), **settings)


@pytest.mark.parametrize("start", [0.02, 50.0])
@pytest.mark.parametrize("quantile", [0.3, 0.7])
def test_the_clip_norm_settles_at_the_quantile_of_the_norms(start, quantile):
    records, model = 400, nn.Linear(5, 1, bias=False)
    x = torch.randn(records, 5, generator=torch_generator(1, "x"))
    step = private_step(model, start, records)
    clip = AdaptiveClip(
        step, quantile=quantile, count_std=5.0, noise=GaussianNoise(torch_generator(0, "count")), rate=0.5
    )
    for _ in range(80):
        found = clip.update(step.gradient(lambda part: model(x[part]).squeeze(1), records))
    assert found == step.clip_norm
    assert found == pytest.approx(x.norm(dim=1).quantile(quantile).item(), rel=0.1)


def test_one_record_moves_the_count_by_half_at_most():
    """The sensitivity behind the accounting: +-1/2 a record, so that the release is Gaussian at 2 count_std."""
    moved = []
    for norms in (torch.zeros(10), torch.zeros(11), torch.cat([torch.zeros(10), torch.full((1,), 9.0)])):
        step = private_step(nn.Linear(2, 1), 1.0, 20.0)
        clip = AdaptiveClip(step, quantile=0.5, count_std=1.0, noise=GaussianNoise(torch_generator(0, "count")))
        report = type("Report", (), {"norms": norms})
        moved.append(-math.log(clip.update(report)) * 20.0 / clip.rate)
    assert moved[1] - moved[0] == pytest.approx(0.5) and moved[2] - moved[0] == pytest.approx(-0.5)


def test_gradient_and_count_together_cost_what_their_squared_signals_add_up_to():
    both = effective_noise_multiplier(gradient=1.2, count_std=10.0)
    assert 1 / both**2 == pytest.approx(1 / 1.2**2 + (0.5 / 10.0) ** 2)
    assert both < 1.2
    assert gradient_noise_multiplier(effective=both, count_std=10.0) == pytest.approx(1.2)
    clip = AdaptiveClip(
        private_step(nn.Linear(2, 1), 1.0, 20.0, noise_multiplier=1.2),
        quantile=0.5,
        count_std=10.0,
        noise=GaussianNoise(torch_generator(0, "count")),
    )
    assert clip.noise_multiplier == both


def test_an_empty_batch_still_draws_and_moves():
    step = private_step(nn.Linear(2, 1), 1.0, 20.0)
    clip = AdaptiveClip(step, quantile=0.5, count_std=3.0, noise=GaussianNoise(torch_generator(0, "count")))
    assert clip.update(step.gradient(lambda part: None, 0)) != 1.0


def test_what_would_cost_nothing_or_everything_is_refused():
    with pytest.raises(ValueError, match="count would spend it all"):
        gradient_noise_multiplier(effective=2.0, count_std=1.0)
    with pytest.raises(ValueError, match="count_std"):
        effective_noise_multiplier(gradient=1.0, count_std=0.0)
    noise = GaussianNoise(torch_generator(0, "count"))
    for options in ({"clipping": "per-layer"}, {"noise_multiplier": 0.0}):
        with pytest.raises(ValueError, match="flat clipping"):
            step = private_step(nn.Linear(2, 1), 1.0, 20.0, **options)
            AdaptiveClip(step, quantile=0.5, count_std=1.0, noise=noise)
    with pytest.raises(ValueError, match="quantile"):
        AdaptiveClip(private_step(nn.Linear(2, 1), 1.0, 20.0), quantile=1.0, count_std=1.0, noise=noise)
