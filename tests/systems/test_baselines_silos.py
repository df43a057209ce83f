"""Rivals built on SiloFuse: LatentDiff is its M = 1, independent clients share nothing, marginals share less."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feddiff.data.silos import Silo
from feddiff.systems import baselines_silos, silofuse
from feddiff.systems.silofuse_config import SiloFuseConfig

KINDS = {"colour": "categorical", "size": "numeric", "shape": "categorical", "price": "numeric"}
COLUMNS = ["price", "shape", "colour", "size"]
CONFIG = SiloFuseConfig(ae_steps=60, ae_batch=128, hidden=32, dm_steps=80, dm_batch=128, dm_width=32, dm_blocks=2,
                        T=20, sample_steps=5, alarm=-1e9)


@pytest.fixture(scope="module")
def silos():
    g = np.random.default_rng(0)
    colour = g.integers(0, 3, 300)
    frame = pd.DataFrame({
        "colour": np.array(["blue", "green", "red"])[colour],
        "size": g.normal(size=300) + 3 * colour,
        "shape": np.array(["disc", "ring", "square"])[colour],
        "price": g.normal(size=300) - 3 * colour,
    })
    keys = np.arange(300) + 1000
    one = Silo("silo 0", frame[["colour", "size"]], {c: KINDS[c] for c in ("colour", "size")}, keys)
    order = g.permutation(300)
    two = Silo("silo 1", frame[["shape", "price"]].iloc[order].reset_index(drop=True),
               {c: KINDS[c] for c in ("shape", "price")}, keys[order])
    return [one, two]


def test_central_silo_is_the_joined_table_and_gets_all_steps(silos):
    (whole,), config = baselines_silos.central(silos, CONFIG)
    assert list(whole.kinds) == ["colour", "size", "shape", "price"] and config.ae_steps == 2 * CONFIG.ae_steps
    # Rows are joined by key: colour and shape are one and the same thing here.
    assert len(whole.frame[["colour", "shape"]].drop_duplicates()) == 3
    assert baselines_silos.central(silos, CONFIG, ae_steps=7)[1] == replace(CONFIG, ae_steps=7)
    assert baselines_silos.central(silos, CONFIG, variant="vae")[1].variant == "vae"


def test_latent_diff_is_silofuse_with_one_silo(silos):
    short = replace(CONFIG, ae_steps=5, dm_steps=10)
    run = baselines_silos.latent_diff(silos, short, columns=COLUMNS, progress=False)
    (whole,), config = baselines_silos.central(silos, short)
    same = silofuse.train([whole], config, columns=COLUMNS, progress=False)
    sample = run.sample(40, seed=1)
    assert list(sample) == COLUMNS and sample.equals(same.sample(40, seed=1))
    assert run.rounds == 1 and len(run.clients) == 1
    again = silofuse.from_state(run.to_state(), [whole], config, columns=COLUMNS)
    assert again.sample(40, seed=2).equals(run.sample(40, seed=2))
    single = baselines_silos.latent_diff([silos[0]], short, progress=False)
    assert single.sample(20, seed=0).equals(silofuse.train([silos[0]], short, progress=False).sample(20, seed=0))


def test_tabsyn_like_is_variational(silos):
    run = baselines_silos.tabsyn_like(silos, replace(CONFIG, dm_steps=10), ae_steps=10, progress=False)
    assert run.config.variant == "vae" and run.config.ae_steps == 10
    assert sorted(run.sample(10, seed=0)) == sorted(KINDS)


def test_independent_clients_share_nothing(silos):
    run = baselines_silos.independent_clients(silos, CONFIG, columns=COLUMNS, progress=False)
    assert list(run.runs) == ["silo 0", "silo 1"]
    sample = run.sample(3000, seed=1)
    assert list(sample) == COLUMNS and sample.equals(run.sample(3000, seed=1))
    # Each silo keeps its own association; nothing is left across silos (in the table they are all but one).
    codes = sample["colour"].astype("category").cat.codes
    assert abs(np.corrcoef(codes, sample["size"])[0, 1]) > 0.3
    assert abs(np.corrcoef(sample["size"], sample["price"])[0, 1]) < 4 / 3000**0.5
    assert set(run.reconstruction()["silo"]) == {"silo 0", "silo 1"} == set(run.seconds) == set(run.parameters)
    again = baselines_silos.independent_from_state(run.to_state(), silos, CONFIG, columns=COLUMNS)
    assert again.sample(30, seed=2).equals(run.sample(30, seed=2))
    with pytest.raises(ValueError, match="rows must be"):
        run.sample(0, seed=0)


def test_independent_clients_have_the_autoencoders_of_silofuse(silos):
    config = replace(CONFIG, latent="budget", hidden="budget", ae_steps=3, dm_steps=3)
    alone = baselines_silos.independent_clients(silos, config, progress=False)
    joint = silofuse.train(silos, config, progress=False)
    for client in joint.clients:
        (other,) = alone.runs[client.name].clients
        assert other.width == client.width == 16
        assert other.decode(np.ones((5, 16), dtype=np.float32), seed=0).equals(
            client.decode(np.ones((5, 16), dtype=np.float32), seed=0)
        )


def test_independent_marginals_keep_columns_alone(silos):
    model = baselines_silos.independent_marginals(silos, seed=0, columns=COLUMNS)
    sample = model.sample(3000, seed=1)
    assert list(sample) == COLUMNS and sample.equals(model.sample(3000, seed=1))
    shares = sample["colour"].value_counts(normalize=True)
    real = silos[0].frame["colour"].value_counts(normalize=True)
    assert (shares - real).abs().max() < 0.04
    codes = sample["colour"].astype("category").cat.codes
    assert abs(np.corrcoef(codes, sample["size"])[0, 1]) < 4 / 3000**0.5
    numeric = Silo("numbers", silos[0].frame[["size"]], {"size": "numeric"})
    with pytest.raises(ValueError, match="one categorical column"):
        baselines_silos.independent_marginals([numeric], seed=0)
