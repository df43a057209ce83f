"""SiloFuse's configuration: sizes by every rule, recipes, budgets, and refusals that name what is wrong."""

from dataclasses import replace

import pytest

from feddiff.systems import silofuse
from feddiff.systems.silofuse_config import SiloFuseConfig


def test_latent_widths_by_both_rules():
    config = SiloFuseConfig()
    assert [config.width(d, 4) for d in (1, 3, 13)] == [1, 3, 13]
    assert [replace(config, latent_factor=0.5).width(d, 4) for d in (1, 3, 4)] == [1, 2, 2]
    assert replace(config, latent_factor=2.0).width(3, 4) == 6
    # S49: by the budget the nine columns of Diabetes become 32 numbers
    assert [replace(config, latent="budget").width(9, m) for m in (1, 4, 8, 64)] == [32, 8, 4, 1]
    assert replace(config, latent=7).width(3, 4) == 7


def test_hidden_widths_by_both_rules():
    assert SiloFuseConfig().hidden_width(4) == 256 and SiloFuseConfig(hidden=64).hidden_width(8) == 64
    assert [SiloFuseConfig(hidden="budget").hidden_width(m) for m in (1, 4, 8)] == [1024, 256, 128]


@pytest.mark.parametrize("alternations", [0, 1, 3, 6])
def test_rounds_share_the_steps_out_and_leave_none_over(alternations):
    config = SiloFuseConfig(ae_steps=100, dm_steps=33, alternations=alternations)
    assert sum(config.autoencoder_training(r).steps for r in range(config.rounds)) == 100
    assert sum(config.diffusion_training(r).steps for r in range(config.rounds)) == 33


def test_joint_training_has_the_steps_of_both_parts():
    assert SiloFuseConfig(ae_steps=30, dm_steps=50).joint_training.steps == 80
    assert SiloFuseConfig(joint_steps=7).joint_training.steps == 7


def test_recipes():
    quick, standard, large = (silofuse.ours(scale=scale) for scale in ("quick", "standard", "paper"))
    assert quick.ae_steps < standard.ae_steps < large.ae_steps and quick.dm_steps < standard.dm_steps < large.dm_steps
    recalled = silofuse.paper(seed=3)
    assert (recalled.width(3, 4), recalled.hidden_width(4), recalled.T, recalled.sample_steps) == (8, 256, 200, 25)
    assert recalled.ae_steps + recalled.dm_steps == 500_000 and recalled.seed == 3
    with pytest.raises(ValueError, match="scale must be one of"):
        silofuse.ours(scale="huge")


@pytest.mark.parametrize(("changes", "message"), [
    (dict(latent="wide"), "latent must be"), (dict(latent=0), "latent must be an integer >= 1"),
    (dict(hidden="columns"), "hidden must be"), (dict(latent_factor=0), "latent_factor must be"),
    (dict(latent=4, latent_factor=2.0), "latent_factor widens"), (dict(variant="gan"), "variant must be"),
    (dict(numerics="log"), "numerics must be"), (dict(schedule="sigmoid"), "schedule must be"),
    (dict(prediction="score"), "prediction must be"), (dict(categories="mean"), "categories must be"),
    (dict(numbers="mode"), "numbers must be"), (dict(unseen="drop"), "unseen must be"),
    (dict(ae_steps=0), "ae_steps must be"), (dict(dm_batch=True), "dm_batch must be"),
    (dict(sample_steps=201), "sample_steps must lie in 1..T = 1..200"), (dict(ae_lr=0), "lr must be > 0"),
    (dict(ema=1.0), "ema must lie in"), (dict(noise=1.0), "noise must lie in"), (dict(beta=-1), "beta must lie in"),
    (dict(alternations=800), "leaves a round without a step"), (dict(alarm=2), "alarm is a reconstruction score"),
    (dict(variance="gamma"), "variance must be one of"),
    (dict(schedule="linear", T=20, sample_steps=20), "needs T > 20"),
    (dict(joint_steps=0), "joint_steps must be"), (dict(seed=-1), "seed must be"),
])
def test_wrong_settings_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        SiloFuseConfig(**changes)
