"""Starts of the local stage and the two stages themselves against closed forms: Gaussians instead of networks."""

import math

import pytest
import torch
from torch import nn

from feddiff.seeds import torch_generator
from feddiff.systems import pfdm, pfdm_parties
from feddiff.systems.image_clients import clipped
from feddiff.systems.image_denoisers import Denoiser, mix_clipped
from feddiff.systems.pfdm_starts import Uploads, class_gaussians, noised, replay

SIDE, STEPS, T0 = 4, 240, 80
MEANS, SPREAD = torch.tensor([-0.4, 0.3]), 0.2


def normal(*shape, stream="test"):
    return torch.randn(shape, generator=torch_generator(0, stream))


def uploads(n=4000, *, noise=0.25, direction=None):
    """Two classes around -1 and +1, white noise, and one direction of standard deviation 2 in the second class."""
    labels = torch.arange(n) % 2
    x = (2.0 * labels - 1).reshape(-1, 1).expand(-1, SIDE**2) + math.sqrt(noise) * normal(n, SIDE**2)
    if direction is not None:
        x = x + labels.reshape(-1, 1) * 2 * normal(n, 1, stream="along") * direction
    return Uploads(images=x.reshape(n, 1, SIDE, SIDE), labels=labels, clients=torch.zeros(n, dtype=torch.int64))


def test_class_means_are_drawn_with_the_noise_of_the_level_and_nothing_else():
    found = class_gaussians(uploads(), torch.tensor([0, 1]), 0.25, components=0)
    assert found.values == 2 * SIDE**2
    labels = torch.tensor([0, 1]).repeat(3000)
    x = found.draw(labels, torch_generator(1, "draw")).flatten(1)
    for label, mean in ((0, -1.0), (1, 1.0)):
        mine = x[labels == label]
        assert float(mine.mean()) == pytest.approx(mean, abs=0.02)
        assert float(mine.var(0).mean()) == pytest.approx(0.25, rel=0.02)


def test_class_gaussians_recover_a_direction_and_keep_white_classes_white():
    axis = torch.zeros(SIDE**2)
    axis[:4] = 0.5
    found = class_gaussians(uploads(direction=axis), torch.tensor([0, 1]), 0.25, components=None)
    assert found.directions[0].shape[1] == 0 and found.directions[1].shape[1] == 1
    assert float((found.directions[1][:, 0] @ axis).abs()) == pytest.approx(2.0, rel=0.05)
    x = found.draw(torch.ones(6000, dtype=torch.int64), torch_generator(1, "draw")).flatten(1)
    expected = 0.25 * torch.eye(SIDE**2) + 4 * torch.outer(axis, axis)
    assert float((torch.cov(x.T) - expected).abs().max()) < 0.1


def test_components_limit_how_many_directions_are_kept():
    x = normal(3000, SIDE**2) * torch.linspace(1, 3, SIDE**2)
    found = Uploads(x.reshape(-1, 1, SIDE, SIDE), torch.zeros(3000, dtype=torch.int64), torch.zeros(3000).long())
    kept = [
        class_gaussians(found, found.labels, 0.25, components=k).directions.get(0, torch.zeros(1, 0)).shape[1]
        for k in (0, 1, 5, None)
    ]
    assert kept == [0, 1, 5, SIDE**2]


def test_replay_gives_uploads_of_the_class_and_repeats_none_before_all_were_used():
    pool = uploads(20)
    labels = torch.tensor([1] * 14 + [0] * 3)
    x = replay(pool, labels, torch_generator(0, "replay"))
    used = [int((pool.images == row).flatten(1).all(1).nonzero()) for row in x]
    assert pool.labels[used].tolist() == labels.tolist()
    assert len(set(used[:10])) == 10 and len(set(used[14:])) == 3
    with pytest.raises(ValueError, match="class 7 has no upload"):
        replay(pool, torch.tensor([7]), torch_generator(0, "replay"))
    with pytest.raises(ValueError, match="class 7 has no upload"):
        class_gaussians(pool, torch.tensor([7]), 0.25)


def test_oracle_noises_clean_pictures_to_the_level():
    clean = torch.full((5, 1, SIDE, SIDE), 0.5)
    x = noised(clean, torch.zeros(5).long(), torch.zeros(4000).long(), 0.36, torch_generator(0, "oracle"))
    assert float(x.mean()) == pytest.approx(0.6 * 0.5, abs=0.01) and float(x.std()) == pytest.approx(0.8, rel=0.01)


def test_clipping_is_a_projection_onto_the_ball():
    x, y = 3 * normal(200, 1, SIDE, SIDE), 0.1 * normal(200, 1, SIDE, SIDE, stream="other")
    for part in (x, y):
        norms = part.flatten(1).norm(dim=1)
        inside = clipped(part, 2.0)
        assert bool((inside.flatten(1).norm(dim=1) <= 2.0 + 1e-5).all())
        assert torch.allclose(inside.flatten(1).norm(dim=1), norms.clamp(max=2.0), atol=1e-5)
        assert torch.allclose(inside * norms.clamp(min=2.0).reshape(-1, 1, 1, 1) / 2, part, atol=1e-5)
    # it moves no two points apart: what makes a bound on single pixels survive it
    gap = (clipped(x, 2.0) - clipped(y, 2.0)).flatten(1).norm(dim=1)
    assert bool((gap <= (x - y).flatten(1).norm(dim=1) + 1e-5).all())
    assert clipped(x, None) is x and not clipped(torch.zeros(1, 1, 2, 2), 1.0).any()


def test_mixing_clips_and_flags_the_same_pictures_at_the_given_share():
    x = normal(4000, 1, SIDE, SIDE)
    mixed, flag = mix_clipped(0.3, 1.0)(x, torch_generator(0, "mix"))
    assert float(flag.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(mixed[~flag], x[~flag])
    assert torch.allclose(mixed[flag].flatten(1).norm(dim=1), torch.ones(int(flag.sum())))


class Analytic(nn.Module):
    """The exact noise prediction for Gaussian data N(means[label], spread^2 I); remembers the steps it was asked at."""

    channels, size, widths = 1, SIDE, (8,)

    def __init__(self, schedule, means, spread):
        super().__init__()
        self.schedule, self.means, self.spread, self.asked = schedule, means, spread, []

    def forward(self, x, t, label, flag=None):
        self.asked.append(int(t[0]))
        bar = float(self.schedule.alpha_bar[int(t[0])])
        centred = x - math.sqrt(bar) * self.means[label].reshape(-1, 1, 1, 1)
        return math.sqrt(1 - bar) * centred / (bar * self.spread**2 + 1 - bar)


def analytic_run(monkeypatch, *, spread=SPREAD, **settings):
    """A run whose denoisers are exact: the clients' of N(MEANS, spread^2), the server's of their noised uploads."""
    made = {}

    def build(name, config, shape, classes, *, schedule=None, hi=None, flag=False, device="cpu"):
        schedule = schedule or config.schedule
        if name == "global":
            bar = config.alpha_bar
            network = Analytic(schedule, math.sqrt(bar) * MEANS, math.sqrt(bar * spread**2 + 1 - bar))
        else:
            network = Analytic(schedule, MEANS, spread)
        made[name] = network
        return Denoiser(name, network, schedule, config, hi=hi or schedule.T, flag=flag, device=device)

    monkeypatch.setattr(pfdm_parties, "denoiser", build)
    monkeypatch.setattr(Denoiser, "fit", lambda self, *args, **options: None)
    settings = dict(T=STEPS, beta_1=0.0025, beta_T=0.075, t0=T0, C=None, clip_mixing=0.0) | settings
    labels = torch.arange(12000) % 2
    images = MEANS[labels].reshape(-1, 1, 1, 1) + spread * normal(12000, 1, SIDE, SIDE).clamp(-2.5, 2.5)
    return pfdm.train([(images, labels)], pfdm.PFDMConfig(**settings), progress=False), made


LABELS = torch.arange(2000) % 2


@pytest.mark.parametrize("stages", ["T + t0", "T - t0"])
def test_two_stages_recover_gaussian_data_over_all_steps(monkeypatch, stages):
    run, made = analytic_run(monkeypatch, stages=stages)
    x = run.sample(0, LABELS, seed=0, steps=None, local_steps=None)
    for label in (0, 1):
        mine = x[LABELS == label]
        assert float(mine.mean()) == pytest.approx(float(MEANS[label]), abs=0.01)
        assert float(mine.std()) == pytest.approx(SPREAD, rel=0.1)
    chunks = len(LABELS) // 500
    shared = STEPS if stages == "T + t0" else STEPS - T0
    assert made["client-0"].asked == list(range(T0 - 1, -1, -1)) * chunks
    assert made["global"].asked == list(range(shared - 1, -1, -1)) * chunks
    assert run.calls() == {"global": shared, "local": T0, "total": shared + T0}


def test_both_schemes_give_starts_of_the_same_distribution_as_the_uploads(monkeypatch):
    for stages in ("T + t0", "T - t0"):
        run, _ = analytic_run(monkeypatch, stages=stages)
        x = run.starts(0, LABELS, seed=0, steps=None)
        for label in (0, 1):
            mine, real = x[LABELS == label], run.uploads.of_class(label)
            assert float(mine.mean()) == pytest.approx(float(real.mean()), abs=0.03)
            # 16,000 values: four standard errors
            assert float(mine.std()) == pytest.approx(float(real.std()), rel=0.025)


@pytest.mark.parametrize("stages", ["T + t0", "T - t0"])
@pytest.mark.parametrize("steps", [5, 20])
def test_strided_starts_keep_the_spread_of_the_uploads_within_one_percent(monkeypatch, stages, steps):
    run, _ = analytic_run(monkeypatch, spread=1e-3, stages=stages)
    labels = torch.arange(8000) % 2

    def spread_of(x, labels):
        return float((x - math.sqrt(run.config.alpha_bar) * MEANS[labels].reshape(-1, 1, 1, 1)).std())

    real = spread_of(run.uploads.images, run.uploads.labels)
    aware = spread_of(run.starts(0, labels, seed=0, steps=steps), labels)
    plain = spread_of(run.starts(0, labels, seed=0, steps=steps, noise_aware=False), labels)
    assert aware == pytest.approx(real, rel=0.01)
    assert plain < 0.97 * real


def test_moments_of_the_uploads_are_as_good_as_a_denoiser_on_gaussian_data(monkeypatch):
    run, _ = analytic_run(monkeypatch)
    for start in ("class_gaussian", "uploads", "oracle", "global"):
        x = run.sample(0, LABELS, seed=0, start=start, steps=None, local_steps=None)
        for label in (0, 1):
            mine = x[LABELS == label]
            assert float(mine.mean()) == pytest.approx(float(MEANS[label]), abs=0.015), start
            assert float(mine.std()) == pytest.approx(SPREAD, rel=0.1), start
    # From N(0, I) the local stage is drawn towards the origin: it takes the start for a noised picture of the class.
    alone = run.sample(0, LABELS, seed=0, start="noise", local_steps=None)
    for label in (0, 1):
        gap = float(x[LABELS == label].mean() - alone[LABELS == label].mean()) / float(MEANS[label])
        assert gap > 0.01
