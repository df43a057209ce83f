"""Central rivals: each learns a planted joint, returns the table's own dtypes, repeats itself and is restored."""

import numpy as np
import pandas as pd
import pytest
import torch

from feddiff.data.silos import Silo
from feddiff.seeds import torch_generator
from feddiff.systems import gan_tables, tabddpm
from feddiff.systems.gan_networks import ConvCritic, ConvGenerator, LinearCritic, LinearGenerator, side_of
from feddiff.systems.gan_tables import Cells, GANConfig
from feddiff.systems.gan_training import gradient_penalty
from feddiff.systems.tabddpm import TabDDPMConfig
from feddiff.systems.table_rivals import whole_table

KINDS = {"colour": "categorical", "size": "integer", "shape": "categorical", "price": "numeric"}
SMALL_GAN = dict(steps=150, batch=128, noise=16, ema=0.95, lr=2e-3, critic_lr=5e-3)


def toy(rows=1500, seed=0):
    """shape follows colour in 9 rows of 10, size and price follow colour too; price is sometimes missing."""
    g = np.random.default_rng(seed)
    colour = g.integers(0, 3, rows)
    shape = np.where(g.random(rows) < 0.9, colour, g.integers(0, 3, rows))
    frame = pd.DataFrame({
        "colour": np.array(["blue", "green", "red"])[colour],
        "size": g.integers(0, 20, rows) + 20 * colour,
        "shape": np.array(["disc", "ring", "square"])[shape],
        "price": (np.exp(g.normal(size=rows)) + 5 * colour).round(2),
    })
    frame.loc[g.random(rows) < 0.05, "price"] = np.nan
    return frame


def cramers_v(a, b):
    table = pd.crosstab(a, b).to_numpy(dtype=float)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return float(np.sqrt(((table - expected) ** 2 / expected).sum() / table.sum() / (min(table.shape) - 1)))


def train(name, frame, **changes):
    if name == "tabddpm":
        config = TabDDPMConfig(**(dict(steps=150, width=64, T=20, batch=256, lr=4e-3, ema=0.9) | changes))
        return tabddpm.tab_ddpm(frame, config, kinds=KINDS, progress=False)
    network = name.removeprefix("gan-")
    size = dict(width=64) if network == "linear" else dict(width=24, penalty=1.0)
    config = GANConfig(**(SMALL_GAN | size | dict(network=network) | changes))
    return {"linear": gan_tables.gan_linear, "conv": gan_tables.gan_conv}[network](
        frame, config, kinds=KINDS, progress=False
    )


NAMES = ("tabddpm", "gan-linear", "gan-conv")


@pytest.fixture(scope="module")
def trained():
    frame = toy()
    return frame, {name: train(name, frame) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_learns_a_planted_joint(trained, name):
    frame, models = trained
    sample = models[name].sample(2000, seed=1)
    real = cramers_v(frame["colour"], frame["shape"])
    assert real > 0.8
    assert 0.5 < cramers_v(sample["colour"], sample["shape"]) < 1
    means = sample.groupby("colour")["size"].mean()
    assert means["red"] - means["blue"] > 20
    shares = sample["colour"].value_counts(normalize=True).reindex(["blue", "green", "red"], fill_value=0)
    assert shares.min() > 0.15


@pytest.mark.parametrize("name", NAMES)
def test_sample_has_the_table_s_shape_and_repeats(trained, name):
    frame, models = trained
    sample = models[name].sample(50, seed=3)
    assert sample.dtypes.equals(frame.dtypes) and list(sample) == list(frame) and len(sample) == 50
    assert sample.equals(models[name].sample(50, seed=3)) and not sample.equals(models[name].sample(50, seed=4))
    assert sample["size"].between(frame["size"].min(), frame["size"].max()).all()
    assert sample["colour"].isin(frame["colour"]).all()
    with pytest.raises(ValueError, match="rows must be"):
        models[name].sample(0, seed=0)


@pytest.mark.parametrize("name", NAMES)
def test_state_restores_the_model(trained, name):
    frame, models = trained
    model, room = models[name], tabddpm if name == "tabddpm" else gan_tables
    again = room.from_state(model.to_state(), frame, model.config, kinds=KINDS)
    assert again.sample(40, seed=5).equals(model.sample(40, seed=5))
    assert again.settings == model.settings and again.settings["parameters"] > 0 and again.settings["seconds"] > 0
    assert again.history.equals(model.history) and again.history["step"].iloc[-1] == model.config.steps
    with pytest.raises(ValueError, match="state is that of"):
        room.from_state(model.to_state() | {"name": "another"}, frame, model.config, kinds=KINDS)


@pytest.mark.parametrize("name", NAMES)
def test_training_repeats_and_takes_silos(name):
    frame = toy(200)
    one = train(name, frame, steps=3)
    halves = [list(KINDS)[:2], list(KINDS)[2:]]
    silos = [Silo(f"silo {i}", frame[half], {c: KINDS[c] for c in half}) for i, half in enumerate(halves)]
    train_on = {"tabddpm": tabddpm.tab_ddpm, "gan-linear": gan_tables.gan_linear, "gan-conv": gan_tables.gan_conv}
    two = train_on[name](silos, one.config, progress=False)
    assert two.sample(30, seed=0).equals(one.sample(30, seed=0))
    with pytest.raises(ValueError, match="kinds"):
        train_on[name](frame, one.config, progress=False)
    with pytest.raises(ValueError, match="leave kinds out"):
        train_on[name](silos, one.config, kinds=KINDS, progress=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kept", [["colour", "shape"], ["size", "other"]])
def test_only_categories_or_only_numbers(name, kept):
    frame = toy(100).assign(other=np.arange(100.0))
    kinds = {column: (KINDS | {"other": "numeric"})[column] for column in kept}
    config = TabDDPMConfig(steps=2, width=8, T=4) if name == "tabddpm" else GANConfig(
        network=name.removeprefix("gan-"), steps=2, width=8, batch=50
    )
    fit = {"tabddpm": tabddpm.tab_ddpm, "gan-linear": gan_tables.gan_linear, "gan-conv": gan_tables.gan_conv}[name]
    sample = fit(frame[kept], config, kinds=kinds, progress=False).sample(20, seed=0)
    assert list(sample) == kept and len(sample) == 20 and sample.notna().all().all()


def test_tabddpm_cross_entropy_and_linear_schedule_run():
    model = train("tabddpm", toy(200), categorical="cross-entropy", schedule="linear", T=24, steps=3)
    assert len(model.sample(10, seed=0)) == 10


@pytest.mark.parametrize(("name", "part"), [
    ("gan-linear", "generator"), ("gan-conv", "critic"), ("tabddpm", "loss"),
])
def test_loss_that_is_not_finite_stops_training(name, part):
    rate = {"generator": dict(critic_lr=1e30, critic_steps=1), "critic": dict(lr=1e30), "loss": dict(lr=1e30)}[part]
    with pytest.raises(FloatingPointError, match=f"{part}.*step"):
        train(name, toy(200), **rate)


def test_gan_stops_at_the_very_step():
    with pytest.raises(FloatingPointError, match="not finite at step [1-9]; lower lr"):
        train("gan-linear", toy(200), lr=1e30, critic_lr=1e30)


@pytest.mark.parametrize(("change", "what"), [
    (dict(steps=0), "steps"), (dict(packing=3), "multiple of packing"), (dict(tau=0.0), "tau"),
    (dict(network="wide"), "network"), (dict(batch=True), "batch"), (dict(numerics="none"), "numerics"),
])
def test_gan_config_refuses(change, what):
    with pytest.raises(ValueError, match=what):
        GANConfig(**change)


@pytest.mark.parametrize(("change", "what"), [
    (dict(T=0), "T must"), (dict(lr=0.0), "lr"), (dict(schedule="flat"), "schedule"),
    (dict(categorical="x"), "categor"),
])
def test_tabddpm_config_refuses(change, what):
    with pytest.raises(ValueError, match=what):
        TabDDPMConfig(**change)


def test_networks_must_agree_with_the_function_and_scales_are_known():
    with pytest.raises(ValueError, match="network='linear'"):
        gan_tables.gan_linear(toy(50), GANConfig(network="conv"), kinds=KINDS)
    for make in (tabddpm.ours, lambda scale: gan_tables.ours("conv", scale)):
        assert make("quick").steps < make("standard").steps < make("paper").steps
        with pytest.raises(ValueError, match="scale"):
            make("huge")


@pytest.mark.parametrize(("d", "side"), [(1, 8), (64, 8), (65, 16), (256, 16), (2964, 64)])
def test_rows_fit_their_square(d, side):
    assert side_of(d) == side
    g = torch_generator(0, "test")
    raw = ConvGenerator(8, d, width=16, generator=g)(torch.zeros(3, 8))
    assert raw.shape == (3, d)
    assert ConvCritic(d, packing=1, width=16, generator=g)(raw.unsqueeze(1)).shape == (3,)


def test_every_cell_of_the_row_reaches_the_critic():
    g = torch_generator(1, "test")
    for critic in (ConvCritic(23, packing=2, width=8, generator=g),
                   LinearCritic(23, packing=2, width=8, layers=2, generator=g)):
        rows = torch.randn(4, 2, 23, generator=g, requires_grad=True)
        (slope,) = torch.autograd.grad(critic(rows).sum(), rows)
        assert (slope.abs() > 0).all()
    z = torch.randn(2, 5, generator=g)
    generator = LinearGenerator(5, 7, width=4, layers=2, generator=g)
    assert generator(z).shape == (2, 7) and generator.output.in_features == 5 + 2 * 4


def test_gradient_penalty_of_a_linear_critic_is_its_closed_form():
    class Plane(torch.nn.Module):
        def forward(self, x):
            return 3.0 * x[:, 0, 0] + 4.0 * x[:, 0, 1]

    g = torch_generator(2, "test")
    rows = [torch.randn(10, 1, 2, generator=g) for _ in range(2)]
    assert float(gradient_penalty(Plane(), *rows, g)) == pytest.approx((5 - 1) ** 2)


def test_cells_are_one_hot_and_soft_ones_are_laws():
    table = whole_table(toy(60), KINDS, numerics="quantile-ties", seed=0)
    cells = Cells(table.levels, table.numbers.shape[1], 0.2)
    assert table.levels == (3, 3, 2) and cells.dim == 10
    rows = cells.real(table)
    at = 0
    for j, levels in enumerate(table.levels):
        assert rows[:, at : at + levels].argmax(dim=1).equal(table.codes[:, j])
        assert rows[:, at : at + levels].sum(dim=1).eq(1).all()
        at += levels
    assert rows[:, at:].equal(table.numbers)
    from_raw = cells.soften(torch.zeros(5000, 10), torch_generator(3, "test"))
    assert from_raw[:, 6:8].sum(dim=1).numpy() == pytest.approx(np.ones(5000), abs=1e-5)
    # Equal logits: each of three levels is the largest in a third of the rows.
    shares = np.bincount(from_raw[:, :3].argmax(dim=1), minlength=3) / 5000
    assert np.abs(shares - 1 / 3).max() < 0.03
    assert from_raw[:, 8:].eq(0).all()
