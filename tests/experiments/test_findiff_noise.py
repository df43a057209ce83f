"""Noise, clipping and batches: arms move one parameter, the records name it, the figures draw it."""

import pandas as pd
import pytest

from feddiff.data.tables import Table
from feddiff.experiments import figures_findiff_noise as figures
from feddiff.experiments import findiff_noise as noise
from feddiff.experiments import findiff_study as study
from feddiff.experiments import style
from feddiff.seeds import numpy_generator
from feddiff.systems import findiff

BASE = findiff.ours(epsilon=2.0, T=20, R=2, S=2, B=32, hidden=(8,), beta_T=0.01)


@pytest.fixture(scope="module")
def setting():
    g = numpy_generator(0, "table")
    label = g.choice(["no", "yes"], 400, p=[0.6, 0.4])
    frame = pd.DataFrame({
        "x": g.normal(size=400) + (label == "yes"), "z": g.normal(size=400), "c": g.choice(["a", "b", "c"], 400),
        "y": label,
    })
    kinds = dict(x="numeric", z="numeric", c="categorical", y="categorical")
    whole = Table(frame, "y", kinds, name="toy", source="file", sha256="0" * 64)
    return study.split(whole, clients=2, seed=0, rows=100)


def test_arms_move_one_parameter_and_keep_the_rest():
    arms = (noise.at_noise(BASE, [0.0, 4.0]) + noise.at_budgets(BASE, [0.1, 1.0], [1.0]) + noise.at_batches(BASE, [16])
            + noise.at_draws(BASE, [4]))
    assert [arm.labels["sweep"] for arm in arms] == ["noise"] * 2 + ["clip"] * 2 + ["batch", "draws"]
    assert len({tuple(arm.labels.items()) for arm in arms}) == len(arms)
    assert [arm.labels.get("sigma") for arm in arms[:2]] == [0.0, 4.0] and "epsilon" not in arms[0].labels
    for arm in arms:
        assert (arm.config.R, arm.config.S, arm.config.lr, arm.config.hidden) == (BASE.R, BASE.S, BASE.lr, BASE.hidden)


def test_an_arm_records_its_noise_what_it_clipped_and_what_it_spent(new_run, setting):
    run = new_run()
    still, noisy = noise.at_noise(BASE, [0.0, 50.0])
    (private,) = noise.at_budgets(BASE, [1e-6], [2.0])
    found = {arm: noise.measure(run, setting, arm) for arm in (still, noisy, private)}
    assert found[still]["spent"] == float("inf") and found[noisy]["spent"] < 0.1
    assert 0.98 * 2 < found[private]["spent"] <= 2
    rows = {(row["name"], row["labels"]["sweep"], row["labels"].get("sigma")): row for row in run._metrics.values()}
    assert rows["spent_epsilon", "noise", "0"]["value"] is None and rows["spent_epsilon", "noise", "0"]["reason"]
    assert rows["clipped_share", "clip", None]["value"] == 1.0, "no gradient is shorter than 1e-6"
    assert rows["update_noise", "noise", "50"]["value"] == pytest.approx(50 / 32)


def test_the_optimum_and_what_the_default_loses(new_run):
    run = new_run()
    arms = noise.at_budgets(BASE, [0.1, 1.0, 10.0], [1.0]) + noise.at_noise(BASE, [1.0])
    found = {arm: {"pair_trends": value} for arm, value in zip(arms, [0.75, 0.5, 0.25, 1.0], strict=True)}
    assert noise.optima(run, found) == {("clip", 1.0): 0.1}
    values = {row["name"]: row["value"] for row in run._metrics.values()}
    assert values == {"best_value": 0.1, "quality_range": 0.5, "loss_of_default": 0.25}


def test_the_table_of_optima_takes_the_best_mean_of_the_values_that_every_seed_has(toy):
    rows = []
    for seed, late in ((0, None), (1, None), (2, 0.99)):
        for clip, value in (("0.1", 0.80), ("1", 0.79), ("3", 0.7 + 0.01 * seed), ("10", late)):
            labels = {"sweep": "clip", "epsilon": "1", "clip": clip, "batch": "256", "draws": "1"}
            if value is not None:
                rows.append(("adult", seed, "pair_trends", value, labels))
    full, short = noise.optima_table(toy(rows))
    assert short.to_dict("records") == [{
        "dataset": "adult", "sweep": "clip", "epsilon": "1", "tried": "0.1, 1, 3", "best": "0.1",
        "gain_over_default": "0.010 ± 0.000", "level": "0.1, 1", "runs": 3,
    }]
    assert full.set_index("tried")["n"].to_dict() == {"0.1": 3, "1": 3, "3": 3, "10": 1}
    assert full.set_index("tried")["mean"]["3"] == pytest.approx(0.71 - 0.79)


@pytest.fixture
def frame(toy):
    rows = []
    for seed in (0, 1, 2):
        for dataset, shift in (("adult", 0.0), ("bank", 0.05)):
            base = {"clip": "1", "batch": "256", "draws": "1"}
            arms = [{"sweep": "noise", "sigma": s, **base} for s in ("0", "1", "16")]
            arms += [{"sweep": "clip", "epsilon": e, **base, "clip": c} for e in ("1", "10") for c in ("0.1", "1")]
            arms += [{"sweep": "batch", "epsilon": "1", **base, "batch": b} for b in ("64", "256")]
            arms += [{"sweep": "draws", "epsilon": "1", **base, "draws": k} for k in ("1", "4")]
            for place, labels in enumerate(arms):
                value = 0.9 - 0.01 * place + shift + 0.002 * seed
                rows.append((dataset, seed, "pair_trends", value, labels))
                rows.append((dataset, seed, "roc_auc", value, {**labels, "classifier": "boosting"}))
                rows.append((dataset, seed, "attack_risk", 0.02, labels))
                rows.append((dataset, seed, "clipped_share", 0.5, labels))
    return toy(rows)


@pytest.mark.parametrize("draw", [figures.noise, figures.frontier, figures.clipping, figures.batches])
def test_figures_draw_every_data_set(frame, draw):
    figure = draw(frame)
    assert all(axes.has_data() for axes in figure.axes)
    with pytest.raises(style.NothingToDraw):
        draw(frame[frame["name"] == "nothing"])
