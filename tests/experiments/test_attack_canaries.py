"""Glue of the audit notebook: neighbours differ in one canary at one client, guesses prove what they may; Holm."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from feddiff.attacks.audit import gaussian_dp_epsilon, one_run_epsilon
from feddiff.data import tables
from feddiff.experiments import attack_canaries as glue, audit_family, figures_attacks_canaries, records
from feddiff.experiments.attack_membership import recipe
from feddiff.seeds import numpy_generator


def planted(**changes):
    given = dict(rows=100, canaries=60, clients=2, seed=0)
    return glue.plant(tables.load("bank-marketing"), **given | changes)


def start():
    return records.start(notebook="47_dp_audit", scale="quick", parameters={}, seed=0)


def metrics(run):
    rows = run._metrics.values()
    return pd.DataFrame([{"name": row["name"], "value": row["value"], **row["labels"]} for row in rows])


def test_one_coin_changes_one_record_at_one_client_and_nothing_else():
    coins = numpy_generator(3, "coins").random(60) < 0.5
    other = coins.copy()
    other[7] = not coins[7]
    one, two = planted(coins=coins), planted(coins=other)
    pd.testing.assert_frame_equal(one.canaries.frame, two.canaries.frame)
    assert one.codec == two.codec and one.codec.provenance == "public"
    assert one.setting.identity != two.setting.identity, "the cache must not take one for the other"
    more, fewer = (one, two) if coins[7] else (two, one)
    changed = [k for k, parts in enumerate(zip(more.setting.clients, fewer.setting.clients, strict=True))
               if not parts[0].frame.equals(parts[1].frame)]
    assert len(changed) == 1
    long, short = more.setting.clients[changed[0]].frame, fewer.setting.clients[changed[0]].frame
    canary = one.canaries.frame.iloc[7]
    rest = long[~(long == canary).all(axis=1)].reset_index(drop=True)
    assert len(long) == len(short) + 1
    pd.testing.assert_frame_equal(rest, short)


def test_exactly_the_canaries_with_a_coin_are_trained_on():
    found = planted()
    rows = pd.concat([client.frame for client in found.setting.clients]).itertuples(index=False, name=None)
    trained = set(rows)
    inside = [row in trained for row in found.canaries.frame.itertuples(index=False, name=None)]
    assert inside == found.coins.tolist() and 15 < found.coins.sum() < 45
    assert sum(map(len, found.setting.clients)) == len(found.setting.train) == 100 + found.coins.sum()
    assert len(found.setting.test) == (~found.coins).sum()


def test_perfect_scores_reach_the_ceiling_and_permuted_coins_prove_nothing():
    many = planted(canaries=200)
    seen = glue.guess(many, many.coins + 0.1 * numpy_generator(0, "noise").random(200), epsilon=2.0)
    assert seen.counts == dict(canaries=200, guesses=100, correct=100)
    assert one_run_epsilon(**seen.counts, delta=1e-5) == pytest.approx(3.49, abs=0.01)
    assert all(bound(**seen.permuted, delta=1e-5) == 0 for bound in glue.BOUNDS.values())
    run = start()
    decided = audit_family.decide(run, seen.audits(2.0, delta=1e-5, variant="leaky", epsilon="2"), significance=0.05)
    assert decided["refuted"].tolist() == [1, 1] and (decided["p_value"] < 0.01).all()


def test_a_training_is_recorded_with_its_control_and_its_epsilon(monkeypatch, tmp_path):
    monkeypatch.setenv("FEDDIFF_CACHE", str(tmp_path))
    run, found = start(), planted()
    config = replace(recipe("1", scale="quick", rounds=1), S=1, B=16, hidden=(8,), ema=0.0)
    seen = glue.arm(run, found, config, epsilon="1", significance=0.05)
    told = metrics(run)
    assert 0 < seen.epsilon <= 1 and seen.counts["guesses"] == seen.permuted["guesses"] == 30
    assert told["name"].value_counts().to_dict() == dict(
        canary_auc=1, canary_right=2, canary_epsilon_lower=4, canary_epsilon=1
    )
    assert (told[told["name"] == "canary_epsilon_lower"]["value"] <= seen.epsilon).all()
    long = told.assign(dataset="toy", seed=0, notebook="47_dp_audit", key="", reason="").fillna("")
    axes = figures_attacks_canaries.canaries(long).axes
    assert [sum(len(line.get_xdata()) == 1 for line in panel.get_lines()) for panel in axes] == [4, 1]


@pytest.mark.parametrize(("change", "words"), [
    (dict(rows=0), "rows"), (dict(rows=10_000), "rows"), (dict(canaries=0), "canaries"),
    (dict(coins=np.ones(3, dtype=bool)), "coins"),
])
def test_bad_input_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        planted(**change)


def test_holm_spares_what_one_audit_alone_would_refute():
    """Twenty audits with p = .03 each refute nothing together; a planted fault among them is still refuted."""
    def audited(true_positives, name):
        bound = partial(gaussian_dp_epsilon, true_positives=true_positives, positives=100, false_positives=20,
                        negatives=100, delta=1e-5)
        return audit_family.Audit(bound, 1.0, dict(audit="one step", variant=name, sigma=1.0, bound="gaussian"))

    borderline = next(hits for hits in range(20, 100) if audited(hits, "").bound(significance=0.05) > 1.0)
    family = [audited(borderline, f"right {k}") for k in range(20)] + [audited(100, "planted")]
    run = start()
    decided = audit_family.decide(run, family, significance=0.05).set_index("variant")
    assert decided["refuted"].to_dict() == {f"right {k}": 0 for k in range(20)} | {"planted": 1}
    assert (decided["p_value"] <= 0.05).all(), "alone each would look refuted"
    frame = pd.concat([metrics(run).assign(seed=seed) for seed in (0, 1)])
    full, short = audit_family.decisions(frame.assign(epsilon=""))
    assert len(full) == 42 and short.set_index("variant").loc["planted", ["audits", "refuted"]].tolist() == [2, 2]
    assert int(short["refuted"].sum()) == 2


def test_records_without_decisions_give_empty_tables():
    frame = pd.DataFrame([{"name": "epsilon", "value": 1.0, "seed": 0, "variant": "correct", "bound": ""}])
    full, short = audit_family.decisions(frame)
    assert full.empty and short.empty
