"""Local updates, bytes to a loss, server optimisers, optimiser states and the alarm, on a toy table."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feddiff.data.tables import Table
from feddiff.experiments import figures_findiff_aggregation, figures_findiff_rounds
from feddiff.experiments import findiff_aggregation as aggregation, findiff_clients, findiff_rounds as study
from feddiff.experiments.frames import load_records
from feddiff.experiments.style import NothingToDraw
from feddiff.systems import findiff


@pytest.fixture(scope="module")
def settings():
    generator = np.random.default_rng(0)
    group = generator.integers(0, 3, 700)
    frame = pd.DataFrame({
        "a": group + 0.1 * generator.normal(size=700), "b": np.array(list("uvx"))[group],
        "label": np.where(generator.random(700) > 0.4, "yes", "no"),
    })
    kinds = {"a": "numeric", "b": "categorical", "label": "categorical"}
    table = Table(frame=frame, target="label", kinds=kinds, name="toy", source="embedded", sha256="ab" * 32)
    found = findiff_clients.splits(table, [2], [2], category="b", seed=0, rows=60, max_rows=None)
    return {partition: setting for (partition, _), setting in found.items()}


BASE = findiff.ours(epsilon=1.0, R=2, S=2, B=16, hidden=(8,), ema=0.0)


def test_the_grid_keeps_what_it_says():
    grid = study.grid(BASE, total=12, updates=[1, 4], rounds=3, more=[2])
    assert {key: (config.R, config.S) for key, config in grid.items()} == {
        ("steps", 1): (12, 1), ("steps", 4): (3, 4), ("rounds", 2): (3, 2),
    }
    with pytest.raises(ValueError, match="5 local updates"):
        study.grid(BASE, total=12, updates=[5], rounds=3, more=[])


def test_bytes_to_a_target_stop_at_the_first_round_below_it(new_run):
    history = pd.DataFrame({"held_out_loss": [3.0, 2.0, 2.5, 1.0], "bytes": [10, 10, 10, 10]})
    assert study.reach(history, 2.0, 5) == {"bytes_to_target": 20.0, "rounds_to_target": 2.0, "steps_to_target": 10.0}
    assert study.reach(history, 0.5, 5) is None
    other = history.assign(held_out_loss=[4.0, 3.0, 2.2, 2.4])
    told = study.to_target(new_run(scale="quick"), {1: history, 5: other}, partition="iid")
    assert told[5]["rounds_to_target"] == 3 and told[1]["rounds_to_target"] == 2, "the target is 2.2, which both reach"


def test_slopes_are_per_factor_ten_and_the_interaction_is_their_difference(new_run):
    scores = {
        ("iid", "steps", count): dict.fromkeys(study.SLOPES, 0.1 * np.log10(count)) for count in (1, 10, 100)
    } | {("by_category", "steps", count): dict.fromkeys(study.SLOPES, -0.2 * np.log10(count)) for count in (1, 10, 100)}
    told = study.interaction(new_run(scale="quick"), scores, budget="none")
    assert told == {("steps", metric): pytest.approx(0.3) for metric in study.SLOPES}


def test_held_out_rows_have_known_categories(settings):
    setting = settings["iid"]
    odd = setting.test.frame.assign(b=setting.test.frame["b"].where(setting.test.frame.index > 4, "new"))
    table = study.held_out(replace(setting, test=replace(setting.test, frame=odd)), 30)
    assert len(table) == 30 and "new" not in set(table.frame["b"])


def test_local_updates_end_to_end(settings, new_run):
    run = new_run(notebook="12_findiff_local_updates", scale="quick")
    found, histories, labels = {}, {}, dict(budget="none", epsilon="inf")
    for partition, setting in settings.items():
        for (regime, count), config in study.grid(BASE, total=4, updates=[1, 4], rounds=2, more=[1, 2]).items():
            key = partition, regime, count
            found[key], histories[key] = study.measure(
                run, setting, replace(config, epsilon=None), partition=partition, regime=regime, local_updates=count,
                **labels)
        curve = {key[2]: own for key, own in histories.items() if key[:2] == (partition, "steps")}
        study.to_target(run, curve, partition=partition, regime="steps", **labels)
    assert len(study.interaction(run, found, **labels)) == 6
    assert found["iid", "steps", 1]["bytes_sent"] == 4 * found["iid", "steps", 4]["bytes_sent"]
    run.save()
    frame = load_records("12_findiff_local_updates", "quick")
    for name in ("updates", "communication", "interaction", "interaction_rounds"):
        assert getattr(figures_findiff_rounds, name)(frame).axes
    with pytest.raises(NothingToDraw):
        figures_findiff_rounds.updates(frame[frame["name"] != "roc_auc"])


def test_aggregation_end_to_end(settings, new_run):
    run, setting = new_run(notebook="13_findiff_aggregation", scale="quick"), settings["by_category"]
    start = aggregation.start_loss(setting, BASE)
    found = {}
    for budget, epsilon in (("epsilon", 1.0), ("none", None)):
        labels = dict(budget=budget, epsilon=epsilon or "inf", partition="by_category")
        for strategy, own in (aggregation.STRATEGIES | aggregation.PLANTED).items():
            config = replace(BASE, epsilon=epsilon, strategy=own)
            found[budget, strategy], history = study.measure(
                run, setting, config, attacks=20, released=strategy in aggregation.STRATEGIES, policy="adam_keep",
                strategy=strategy, **labels)
            aggregation.alarm(run, history, start, policy="adam_keep", strategy=strategy, **labels)
        for policy in ("adam_reset", "sgd"):
            config = replace(BASE, epsilon=epsilon, **aggregation.POLICIES[policy])
            scores, _ = study.measure(run, setting, config, policy=policy, strategy="FedAvg", **labels)
            aggregation.difference(run, scores, found[budget, "FedAvg"], of=policy, minus="adam_keep",
                                   strategy="FedAvg", **labels)
        assert aggregation.spread(run, {n: found[budget, n] for n in aggregation.STRATEGIES}, **labels) >= 0
    cost = aggregation.cost_of_privacy(run, found["epsilon", "FedAvg"], found["none", "FedAvg"], strategy="FedAvg")
    assert set(cost) == {"pair_trends", "roc_auc"}
    run.save()
    frame = load_records("13_findiff_aggregation", "quick")
    for name in ("strategies", "traces", "states"):
        assert getattr(figures_findiff_aggregation, name)(frame).axes


def test_sgd_has_no_state_to_keep(settings):
    config = replace(BASE, epsilon=None, R=3, **aggregation.POLICIES["sgd"])
    kept, reset = (study.watched(settings["iid"], replace(config, optimiser_state=s)) for s in ("keep", "reset"))
    assert (kept.federation.weights() == reset.federation.weights()).all()
    adam = [study.watched(settings["iid"], replace(BASE, epsilon=None, R=3, optimiser_state=state))
            for state in ("keep", "reset")]
    assert (adam[0].federation.weights() != adam[1].federation.weights()).any()


@pytest.mark.parametrize(("losses", "rings"), [
    ([2.0, 1.5, 1.2, 1.1], False), ([2.0, 1.0, 1.04, 1.04], False), ([2.0, 1.0, 1.0, 1.06], True),
    ([9.0, 9.0, 9.0, 9.0], True),
])
def test_the_alarm_rings_on_a_rise_and_above_the_untrained_network(new_run, losses, rings):
    history = pd.DataFrame({"held_out_loss": losses})
    assert aggregation.alarm(new_run(scale="quick"), history, start=2.5) is rings


def test_the_late_slope_is_per_round_and_in_per_cent():
    assert aggregation.late_slope(pd.Series([5.0, 4.0, 4.0, 3.0, 2.0, 1.0])) == pytest.approx(-100.0)
    assert math.isclose(aggregation.late_slope(pd.Series([1.0, 1.0, 1.0])), 0.0, abs_tol=1e-9)


def test_tuning_scores_every_candidate_at_every_budget(settings):
    frame = aggregation.tune(settings["iid"], replace(BASE, R=20), [{}, dict(lr=1e-9)], [1.0, None])
    assert list(frame.columns) == ["candidate", "1", "inf", "sum"] and len(frame) == 2
    assert frame["inf"][0] < frame["inf"][1], "a learning rate of nothing is worse"
    assert frame["sum"].tolist() == pytest.approx((frame["1"] + frame["inf"]).tolist())
