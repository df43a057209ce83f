"""DP-GAN: the critic's step by its definition on neighbouring batches, the ledger of the whole horizon, a short run."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import softplus

from feddiff.privacy import accounting
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import torch_generator
from feddiff.systems import dp_gan as module
from feddiff.systems.dp_gan import DPGANConfig, critic_step, dp_gan, from_state, ledger_of
from feddiff.systems.gan_networks import LinearCritic

KINDS = {"colour": "categorical", "size": "numeric", "label": "categorical"}
SMALL = dict(epsilon=5.0, steps=6, critic_steps=2, batch=32, width=16, noise=8)
D, C, B = 5, 0.5, 4.0


def toy(rows=200, seed=0):
    g = np.random.default_rng(seed)
    colour = g.integers(0, 3, rows)
    return pd.DataFrame({"colour": np.array(["r", "g", "b"])[colour], "size": g.normal(size=rows) + colour,
                         "label": np.where(colour > 0, "yes", "no")})


def critic():
    return LinearCritic(D, packing=1, width=6, layers=1, generator=torch_generator(0, "critic"))


def rows(n, name):
    return 3 * torch.randn(n, D, generator=torch_generator(0, name))


def gradient(network, real, fake, *, sigma=0.0, clip=C, seed=0):
    noise = GaussianNoise(torch_generator(seed, "noise"))
    with PrivateStep(network, clip_norm=clip, noise_multiplier=sigma, expected_batch=B, noise=noise) as step:
        critic_step(step, network, real, fake)
        return torch.cat([p.grad.flatten().clone() for p in network.parameters()])


def test_the_step_is_the_sum_of_clipped_gradients_of_pairs():
    network, real, fake = critic(), rows(7, "real"), rows(7, "fake")
    total = torch.zeros(sum(p.numel() for p in network.parameters()))
    for x, z in zip(real, fake):
        loss = softplus(-network(x.view(1, 1, D))).sum() + softplus(network(z.view(1, 1, D))).sum()
        own = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])
        total += own * min(1.0, C / float(own.norm()))
    assert torch.allclose(gradient(network, real, fake), total / B, atol=1e-5)


def test_a_record_moves_the_sum_by_at_most_the_clipping_norm():
    network, real, fake = critic(), rows(9, "real"), rows(9, "fake")
    whole = gradient(network, real, fake)
    for k in range(9):
        kept = [i for i in range(9) if i != k]
        assert float((whole - gradient(network, real[kept], fake[kept])).norm()) * B <= C + 1e-4
    wild = torch.cat([real, 1e4 * torch.ones(1, D)])
    moved = gradient(network, wild, torch.cat([fake, fake[:1]])) - whole
    assert float(moved.norm()) * B <= C + 1e-4


def test_noise_has_the_scale_that_the_ledger_is_told():
    network, sigma = critic(), 3.0
    empty = torch.empty(0, D)
    drawn = torch.cat([gradient(network, empty, empty, sigma=sigma, seed=seed) for seed in range(200)])
    assert float(drawn.std()) == pytest.approx(sigma * C / B, rel=0.05)


def test_the_budget_covers_the_whole_horizon():
    config = DPGANConfig(**SMALL)
    ledger, sigma = ledger_of(config, 200)
    (event,) = ledger.events("curator")
    assert (event.steps, event.noise, event.sample_rate) == (12, sigma, 32 / 200)
    assert 0.98 * 5 < ledger.epsilon() <= 5
    one_step = accounting.noise_multiplier(target_epsilon=5.0, sample_rate=32 / 200, steps=1, delta=1e-5)
    assert sigma > one_step


def test_a_run_repeats_itself_and_is_restored(monkeypatch):
    frame, config, counted = toy(), DPGANConfig(**SMALL), []
    true = module.critic_step
    monkeypatch.setattr(module, "critic_step", lambda *given: counted.append(len(given[2])) or true(*given))
    model = dp_gan(frame, config, kinds=KINDS, progress=False)
    assert len(counted) == 12 and len(set(counted)) > 1  # Poisson batches differ in size
    drawn = model.sample(50, seed=1)
    assert list(drawn.columns) == list(frame.columns) and drawn["colour"].isin(["r", "g", "b"]).all()
    assert drawn.equals(dp_gan(frame, config, kinds=KINDS, progress=False).sample(50, seed=1))
    again = from_state(model.to_state(), frame, config, kinds=KINDS)
    assert again.sample(50, seed=1).equals(drawn) and again.privacy == model.privacy
    assert model.privacy["epsilon"] <= 5 and any("codec" in what for what in model.privacy["outside"])


def test_the_noise_depends_on_the_budget():
    noise = [ledger_of(DPGANConfig(**SMALL | dict(epsilon=e)), 200)[1] for e in (1.0, 5.0)]
    assert noise[0] > noise[1]


@pytest.mark.parametrize(("change", "words"), [
    (dict(epsilon=0.0), "epsilon"), (dict(steps=0), "steps"), (dict(delta=1.0), "delta"),
    (dict(numerics="x"), "numerics"),
])
def test_bad_settings_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        DPGANConfig(**SMALL | change)


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="fewer than batch"):
        dp_gan(toy(20), DPGANConfig(**SMALL), kinds=KINDS, progress=False)
