"""Stages and autoencoders of SiloFuse one by one: what each loses, what leaks, how rows seen and unseen differ."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from feddiff.data.tables import Table
from feddiff.experiments import records, silofuse_autoencoders as autoencoders, silofuse_stages as stages
from feddiff.experiments import silofuse_study as study
from feddiff.systems import silofuse


def table(rows=240):
    generator = np.random.default_rng(0)
    group = generator.integers(0, 3, rows)
    frame = pd.DataFrame({
        "a": group + 0.1 * generator.normal(size=rows), "b": np.array(["x", "y", "z"])[group],
        "c": -group + 0.1 * generator.normal(size=rows), "d": np.where(group > 0, "yes", "no"),
    })
    kinds = {"a": "numeric", "b": "categorical", "c": "numeric", "d": "categorical"}
    return Table(frame=frame, target="d", kinds=kinds, name="toy", source="embedded", sha256="ab" * 32)


@pytest.fixture(scope="module")
def setting():
    return study.split(table(), silos=2, seed=0)


@pytest.fixture
def config():
    return silofuse.ours(scale="quick", ae_steps=60, dm_steps=4, ae_batch=64, dm_batch=64, hidden=16, dm_width=16,
                         dm_blocks=1, T=20, sample_steps=4, alarm=-100.0, categories="mode")


@pytest.fixture
def run():
    return records.start(notebook="34_silofuse_autoencoders", scale="quick", parameters={}, seed=0)


def test_decoded_latents_are_rows_by_their_place(setting, config):
    model = study.trained(setting, "silofuse", replace(config, ae_steps=150), progress=False)
    frame = stages.decoded(model, seed=0)
    assert list(frame) == setting.columns
    assert (frame["b"].to_numpy() == setting.train.frame["b"].to_numpy()).mean() > 0.9


def test_the_perfect_autoencoder_loses_nothing_and_comes_from_the_cache(setting, config, monkeypatch):
    first = stages.perfect_autoencoder(setting, config, progress=False)
    encoded = first.codec.encode(setting.train.frame, np.random.default_rng(0))
    x = (stages._wide(encoded, first.codec) - first.shift) / first.scale
    found = stages._narrow(x * first.scale + first.shift, first.codec)
    assert np.array_equal(found.codes, encoded.codes) and np.allclose(found.numbers, encoded.numbers, atol=1e-5)
    monkeypatch.setattr("feddiff.diffusion.latent_diffusion.LatentDiffusion.fit", None)
    again = stages.perfect_autoencoder(setting, config, progress=False)
    drawn = first.sample(20, seed=1)
    pd.testing.assert_frame_equal(again.sample(20, seed=1), drawn)
    assert list(drawn) == setting.columns and set(drawn["b"]) <= set("xyz")


def test_what_a_partitioned_output_offers(setting, run):
    found = stages.partitioned(run, setting, setting.train.frame, method="real")
    assert found["own"] > 0.9 and found["all"] > 0.9
    alone = study.split(table(), silos=4, seed=0)
    assert stages.partitioned(run, alone, setting.train.frame, method="alone")["own"] == 0.5


def test_latents_that_say_nothing_leak_nothing(setting, config, run):
    model = study.trained(setting, "silofuse", replace(config, ae_steps=150), progress=False)
    told = autoencoders.leak(run, setting, model, known=60, case="whole")["known_rows_leak"]
    for client in model.clients:
        noise = torch.randn(len(client), client.width, generator=torch.Generator().manual_seed(1))
        model.coordinator._received[client.name] = noise.numpy()
    nothing = autoencoders.leak(run, setting, model, known=60, case="noise")["known_rows_leak"]
    assert told > 0.5 and nothing < 0.1
    with pytest.raises(ValueError, match="known must lie in"):
        autoencoders.leak(run, setting, model, known=192, case="all")


def test_sizes_count_latents_and_one_hot_columns(setting, config, run):
    model = silofuse.parties(setting.silos, config)
    found = autoencoders.sizes(run, setting, model)
    assert found == {"latent_width": 4, "latents_per_column": 1.0, "one_hot_per_latent": 7 / 4}


def test_generalisation_sees_an_autoencoder_that_learnt_its_rows_by_heart(config, run):
    noise = np.random.default_rng(1).normal(size=(40, 4))
    frame = pd.DataFrame(noise, columns=list("abcd"))
    unrelated = Table(frame=frame, target=None, kinds=dict.fromkeys("abcd", "numeric"), name="noise",
                      source="embedded", sha256="cd" * 32)
    few = study.split(unrelated, silos=1, seed=0)
    # One latent for four unrelated columns: what it gives back of the rows it saw it must have learnt by heart.
    learnt = replace(config, ae_steps=500, latent=1, hidden=64)
    client = autoencoders.autoencoder(few, learnt, progress=False)
    found = autoencoders.generalisation(run, few, client, hidden=64)
    assert found["nll_gap"] == pytest.approx(found["nll_held_out"] - found["nll_training"]) and found["nll_gap"] > 1
    assert found["membership_auc"] > 0.7
    assert found["reconstruction_training"] > found["reconstruction_held_out"] + 0.2
    with pytest.raises(ValueError, match="one silo"):
        autoencoders.autoencoder(study.split(table(), silos=2, seed=0), config)
