"""Glue of the membership notebook: fair coins, public codecs, honest bounds, and figures that draw every mean."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feddiff.data import tables
from feddiff.experiments import attack_membership as glue, figures_attacks_membership as figures, records


@pytest.fixture(scope="module")
def played():
    return glue.game(tables.load("bank-marketing"), size=300, clients=2, seed=0)


def start():
    return records.start(notebook="40_membership_tables", scale="quick", parameters={}, seed=0)


def test_pool_and_reference_are_disjoint_and_members_are_the_clients_rows(played):
    assert len(played.pool) == len(played.reference) == 300 and 100 < played.inside.sum() < 200
    assert sum(map(len, played.setting.clients)) == played.inside.sum() == len(played.setting.train)
    assert len(played.setting.test) == (~played.inside).sum() and played.outlying.sum() == 30
    assert played.codec.provenance == "public"
    again = glue.game(tables.load("bank-marketing"), size=300, clients=2, seed=1)
    assert (again.inside != played.inside).any()


def test_a_perfect_attack_proves_much_and_chance_nothing(played):
    rng = np.random.default_rng(0)
    perfect, chance = played.inside + 0.1 * rng.random(300), rng.random((4, 300))
    assert glue.lower_bound(played, {"one": perfect}, delta=1e-5) > 2
    assert glue.lower_bound(played, {str(k): row for k, row in enumerate(chance)}, delta=1e-5) == 0
    wrong = glue.lower_bound(played, {"one": perfect, "two": chance[0]}, delta=1e-5)
    assert wrong < glue.lower_bound(played, {"one": perfect}, delta=1e-5), "more attacks, a stricter test"


def test_the_adversarys_models_do_not_share_the_targets_noise(played, monkeypatch, tmp_path):
    monkeypatch.setenv("FEDDIFF_CACHE", str(tmp_path))
    config = replace(glue.recipe("1", scale="quick", rounds=1), S=1, hidden=(8,), ema=0.0)
    known = glue.shadows(played, config, 2)
    seeds = {played.setting.seed, *(shadow.per_record.__self__.config.seed for shadow in known)}
    assert len(seeds) == 3, "a shadow under the target's seed starts at its weights and draws its DP noise"


def test_recording_keeps_chance_beside(played):
    run = start()
    areas = glue.record(run, played, {"loss": played.inside.astype(float)}, seed=0, view="white", epsilon="1")
    assert areas["loss"] == 1 and abs(areas["permuted"] - 0.5) < 0.15
    names = {row["name"] for row in run._metrics.values()}
    assert {"membership_auc", "advantage", "tpr_at_10_percent", "tpr_at_1_percent"} <= names
    told = {(row["name"], row["labels"]["attack"]): row for row in run._metrics.values()}
    power = [told[f"tpr_at_10_percent{end}", "loss"]["value"] for end in ("_low", "", "_high")]
    assert 0.95 < power[0] < power[1] == power[2] == 1, "every member above every non-member"
    unresolved = told["tpr_at_0_1_percent", "loss"]
    assert unresolved["value"] is None and "non-members" in unresolved["reason"], "refused in words, not left out"
    glue.copies(run, played, played.setting.train.frame, seed=0, release="copy")
    found = {row["name"]: row["value"] for row in run._metrics.values()}
    assert found["copied"] == 1 and found["copied_control"] < 0.1 and found["closer_to_train"] > 0.95


def test_a_thousandth_is_recorded_where_a_thousand_non_members_resolve_it(played):
    inside = np.repeat([True, False], [1000, 1000])
    many = replace(played, inside=inside, outlying=np.arange(2000) % 10 == 0)
    scores = np.where(inside, np.arange(2000) % 1000, 500.0 + np.arange(2000) % 2)
    scores[1000] = 900.5  # one non-member may pass
    run = start()
    glue.record(run, many, {"loss": scores}, seed=0, view="white", epsilon="1")
    told = {(row["name"], row["labels"]["attack"]): row["value"] for row in run._metrics.values()}
    low, power, high = (told[f"tpr_at_0_1_percent{end}", "loss"] for end in ("_low", "", "_high"))
    assert power == 0.498 and 0.46 < low < power < high < 0.54
    assert glue.power_at(0.001) == "tpr_at_0_1_percent" and glue.power_at(0.1) == "tpr_at_10_percent"


def test_agreement_of_ranks_is_kendalls():
    run = start()
    scores = pd.DataFrame({"a": [1, 2, 3, 4.0], "b": [2, 4, 6, 8.0], "c": [4, 3, 2, 1.0], "d": [0, 0, 0, 0.0]})
    assert glue.agreement(run, scores) == pytest.approx((1 - 1 + 0 - 1 + 0 + 0) / 6)


def frame():
    rows, budgets = [], ("0.2", "1", "inf", "inf_long")
    for seed, epsilon in itertools.product((0, 1, 2), budgets):
        for view, attacks, _ in figures.PANELS:
            for attack, group in itertools.product(attacks, figures.GROUPS):
                labels = dict(view=view, attack=attack, group=group, epsilon=epsilon, release="ours")
                rows.append(("membership_auc", 0.5 + 0.01 * seed, seed, labels))
        for bound in figures.BOUNDS:
            rows.append(("epsilon_lower", 0.1 * seed, seed, dict(bound=bound, epsilon=epsilon)))
            if not epsilon.startswith("inf"):
                rows.append(("epsilon_spent", float(epsilon), seed, dict(bound=bound, epsilon=epsilon)))
    for seed, (one, other) in itertools.product((0, 1, 2), itertools.combinations(figures.METRICS, 2)):
        rows.append(("rank_agreement", 0.1 * seed, seed, dict(metric=one, other=other)))
    fixed = dict.fromkeys(("key", "settings", "reason"), "") | {"dataset": "toy", "timing": False}
    return pd.DataFrame([{**fixed, "name": n, "value": v, "seed": s, **labels} for n, v, s, labels in rows]).fillna("")


def test_the_figures_draw_what_they_are_given():
    given = frame()
    points = sum(len(line.get_xdata()) == 1 for axes in figures.budgets(given).axes for line in axes.get_lines())
    assert points == 4 * 2 * sum(len(attacks) for _, attacks, _ in figures.PANELS)
    points = sum(len(line.get_xdata()) == 1 for axes in figures.bounds(given).axes for line in axes.get_lines())
    assert points == 4 * len(figures.BOUNDS)
    points = sum(len(line.get_xdata()) == 1 for axes in figures.ranks(given).axes for line in axes.get_lines())
    assert points == 10
