"""The ledger is complete and well-formed, and every kind of rule gives each verdict where the answer is known."""

import math

import numpy as np
import pandas as pd
import pytest
import yaml

from feddiff.experiments import claims, rules, scales

FROM_TO = {"metric": "m", "from": {"epsilon": "inf"}, "to": {"epsilon": "1"}}
OF_MINUS = {"metric": "m", "of": {"epsilon": "1"}, "minus": {"epsilon": "inf"}}
FORMULA = {
    "kind": "formula", "call": "gaussian_epsilon", "arguments": {"noise_over_sensitivity": 1.0, "delta": 1e-5}
}


@pytest.fixture(scope="module")
def ledger():
    return claims.load()


def test_every_claim_has_one_entry_with_notebook_and_rule(ledger):
    assert [claim.id for claim in ledger] == list(claims.IDS) and len(ledger) == 46 + 56 + 49
    for claim in ledger:
        assert claim.notebooks or not rules.needs_records(claim.rule), claim.id
        assert "\n" not in claim.claim


def test_rules_of_the_first_notebooks_are_written(ledger):
    kinds = {claim.id: claim.rule["kind"] for claim in ledger}
    written = "F1 F2 F3 F4 F5 F6 F11 F12 F13 F26 F34 F37 F39 P14 P15 P16 P17".split()
    assert all(kinds[name] != "pending" for name in written)


def test_unit_tests_that_the_ledger_names_exist(ledger):
    for claim in ledger:
        if claim.rule["kind"] == "test":
            assert (scales.checkout() / claim.rule["file"]).is_file(), claim.id


def test_without_records_nothing_measured_is_decided(ledger):
    verdicts = claims.evaluate(ledger, pd.DataFrame({"notebook": []}))
    by_id = verdicts.set_index("id")
    assert by_id.loc["F2", "verdict"] == "pending" and "10_findiff_privacy_budget" in by_id.loc["F2", "evidence"]
    assert by_id.loc["F13", "verdict"] == "not testable here"
    assert by_id.loc[["P14", "P15", "P16", "P17"], "verdict"].tolist() == ["reproduced"] * 3 + ["partly"]
    assert claims.counts(verdicts)["claims"].tolist() == [46, 56, 49]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e.pop(), "missing \\['S49'\\]"), (lambda e: e.append(dict(e[0])), "doubled \\['F1'\\]"),
        (lambda e: e[0].update(id="F99"), "unknown \\['F99'\\]"), (lambda e: e[0].update(claim=" "), "F1.*claim"),
        (lambda e: e[0].update(source=["rumour"]), "source"), (lambda e: e[0].update(notebooks=[]), "notebooks"),
        (lambda e: e[0].update(notebooks=["Ten"]), "notebooks"), (lambda e: e[0].pop("measured"), "exactly the fields"),
        (lambda e: e[0].update(rule={"kind": "guess"}), "needs a kind"),
        (lambda e: e[0].update(rule={"kind": "within", "metric": "x"}), "at_least, at_most"),
        (lambda e: e[0].update(rule={"kind": "count", "metric": "x", "at_least": "4"}), "at_least"),
        (lambda e: e[0].update(rule={"kind": "all_of", "rules": [{"kind": "count"}]}), "part 0.*lacks"),
        (lambda e: e[0].update(rule=OF_MINUS | {"kind": "difference", "direction": "up"}), "direction"),
        (lambda e: e[0].update(rule=FORMULA | {"call": "eval", "claimed": 1, "at_most": True}), "may call"),
        (lambda e: e[0].update(rule=FORMULA | {"claimed": 1}), "either relative_tolerance or at_most"),
    ],
)
def test_a_bad_ledger_is_refused_with_its_entry(tmp_path, change, words):
    content = yaml.safe_load((scales.checkout() / "notebooks/claims.yaml").read_text())
    change(content["claims"])
    (tmp_path / "claims.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=words):
        claims.load(tmp_path / "claims.yaml")


def two_arms(base, changed, noise=0.0, seeds=3, dataset="t"):
    shifts = noise * np.array([-1, 0, 1, 0.5, -0.5])[:seeds]
    for seed in range(seeds):
        yield (dataset, seed, "m", base, {"epsilon": "inf"})
        yield (dataset, seed, "m", changed + shifts[seed], {"epsilon": "1"})


@pytest.mark.parametrize(
    ("changed", "noise", "verdict"),
    [
        (0.85, 0.005, "reproduced"), (0.95, 0.005, "partly"), (1.15, 0.005, "not reproduced"),
        (1.0, 0.01, "not reproduced"),
        (0.90, 0.2, "not testable here"), (0.60, 0.005, "partly"),
    ],
)
def test_relative_change_of_minus_15(toy, changed, noise, verdict):
    rule = {"kind": "relative_change", **FROM_TO, "expected_percent": -15, "tolerance_points": 1}
    assert rules.judge(rule, toy(two_arms(1.0, changed, noise))).verdict == verdict


def test_a_base_that_may_be_zero_decides_nothing_and_outvotes_nobody(toy):
    rule = {"kind": "relative_change", **FROM_TO, "expected_percent": -15, "tolerance_points": 1}
    vague = [("vague", seed, "m", value, {"epsilon": text})
             for seed, value in enumerate((0.0, 0.02, 0.001)) for text in ("inf", "1")]
    outcome = rules.judge(rule, toy(vague))
    assert outcome.verdict == "not testable here"
    assert "not clearly different from 0" in outcome.evidence
    clear = [*two_arms(1.0, 0.85, 0.005, dataset="clear")]
    outcome = rules.judge(rule, toy([*vague, *clear]))
    assert outcome.verdict == "reproduced"
    assert "vague: " in outcome.evidence
    assert rules.judge(rule, toy([*clear, *two_arms(1.0, 1.2, 0.005, dataset="other")])).verdict == "partly"


@pytest.mark.parametrize(
    ("changed", "noise", "verdict"),
    [
        (0.99, 0.001, "reproduced"), (1.2, 0.001, "reproduced"), (0.9, 0.001, "not reproduced"),
        (0.98, 0.02, "not testable here"),
    ],
)
def test_not_worse_by_2_percent(toy, changed, noise, verdict):
    outcome = rules.judge({"kind": "not_worse", **FROM_TO, "margin_percent": 2}, toy(two_arms(1.0, changed, noise)))
    assert outcome.verdict == verdict


@pytest.mark.parametrize(("direction", "changed", "noise", "verdict"), [
    ("above", 1.1, 0.01, "reproduced"), ("above", 0.9, 0.01, "not reproduced"), ("above", 1.1, 0.2, "not reproduced"),
    ("below", 0.9, 0.01, "reproduced"), ("below", 1.1, 0.01, "not reproduced"),
    ("either", 0.9, 0.01, "reproduced"), ("either", 1.1, 0.01, "reproduced"), ("either", 1.1, 0.2, "not reproduced"),
])
def test_difference_excludes_zero(toy, direction, changed, noise, verdict):
    rule = {"kind": "difference", **OF_MINUS, "direction": direction}
    assert rules.judge(rule, toy(two_arms(1.0, changed, noise))).verdict == verdict


def curve(means, noise=0.001):
    for seed in range(3):
        for text, mean in zip(("0.2", "1", "10"), means, strict=True):
            yield ("t", seed, "m", mean + noise * (seed - 1) * float(text), {"epsilon": text})


@pytest.mark.parametrize(("means", "verdict"), [
    ((0.1, 0.2, 0.3), "reproduced"), ((0.2, 0.1, 0.3), "partly"), ((0.3, 0.2, 0.1), "not reproduced"),
    ((0.2, 0.2, 0.2), "not reproduced"),
])
def test_monotone(toy, means, verdict):
    rule = {"kind": "monotone", "metric": "m", "along": "epsilon", "order": ["0.2", "1", "10"], "direction": "up"}
    assert rules.judge(rule, toy(curve(means))).verdict == verdict


@pytest.mark.parametrize(("values", "verdict"), [
    ((4.1, 4.2, 4.15), "reproduced"), ((3.0, 4.2, 5.4), "partly"), ((1.0, 1.1, 1.2), "not reproduced"),
])
def test_within(toy, values, verdict):
    rows = [("t", seed, "m", value, {}) for seed, value in enumerate(values)]
    assert rules.judge({"kind": "within", "metric": "m", "at_least": 4}, toy(rows)).verdict == verdict


@pytest.mark.parametrize(("values", "verdict"), [
    ((80.0, 100.0, 120.0), "reproduced"), ((99.9, 100.0, 100.1), "not reproduced"),
    ((97.0, 100.0, 103.0), "not testable here"), ((80.0, 120.0), "pending"),
])
def test_spread(toy, values, verdict):
    rows = [("t", seed, "m", value, {}) for seed, value in enumerate(values)]
    assert rules.judge({"kind": "spread", "metric": "m", "at_least_percent": 2}, toy(rows)).verdict == verdict


def test_the_interval_of_a_spread_is_that_of_a_normal_law(toy):
    rows = [("t", seed, "m", value, {}) for seed, value in enumerate((90.0, 100.0, 110.0))]
    found = rules.judge({"kind": "spread", "metric": "m", "at_least_percent": 2}, toy(rows))
    # sd 10; chi-square with 2 degrees of freedom: quantiles -2 log(1 - p).
    low, high = (10 * math.sqrt(2 / (-2 * math.log(tail))) for tail in (0.025, 0.975))
    assert f"10.000 [{low:.3f}, {high:.3f}] %" in found.evidence


def test_count_and_formula():
    frame = pd.DataFrame({"dataset": list("abc"), "seed": 0, "name": "m", "value": 1.0})
    assert rules.judge({"kind": "count", "metric": "m", "at_least": 3}, frame).verdict == "reproduced"
    assert rules.judge({"kind": "count", "metric": "m", "at_least": 4}, frame).verdict == "partly"
    alone = rules.judge({"kind": "count", "metric": "m", "at_least": 4}, frame.head(1))
    assert alone.verdict == "pending" and "1 of 4" in alone.evidence, "one set so far says nothing about the others"
    assert rules.judge(FORMULA | {"claimed": 4.377, "relative_tolerance": 0.001}, frame).verdict == "reproduced"
    assert rules.judge(FORMULA | {"claimed": 4.3, "relative_tolerance": 0.001}, frame).verdict == "not reproduced"
    assert rules.judge(FORMULA | {"claimed": 4.4, "at_most": True}, frame).verdict == "reproduced"
    assert rules.judge(FORMULA | {"claimed": 4.3, "at_most": True}, frame).verdict == "not reproduced"


def test_datasets_that_disagree_give_partly(toy):
    rows = [*two_arms(1.0, 1.1, 0.01, dataset="a"), *two_arms(1.0, 0.9, 0.01, dataset="b")]
    assert rules.judge({"kind": "difference", **OF_MINUS, "direction": "above"}, toy(rows)).verdict == "partly"


def test_one_seed_and_open_labels_stay_pending(toy):
    rule = {"kind": "difference", **OF_MINUS, "direction": "above"}
    one = rules.judge(rule, toy(two_arms(1.0, 2.0, seeds=1)))
    assert (one.verdict, one.evidence) == ("pending", "one seed gives no interval")
    several = toy([*two_arms(1.0, 2.0), ("t", 0, "m", 1.0, {"epsilon": "1", "method": "b"})])
    assert "several m" in rules.judge(rule, several).evidence
    assert "hold no other" in rules.judge({**rule, "metric": "other"}, toy(two_arms(1.0, 2.0))).evidence


def test_a_data_set_with_one_seed_waits_and_undoes_no_verdict(toy):
    rows = [("done", seed, "m", 1.0 + 0.01 * seed, {}) for seed in range(3)]
    rule, late = {"kind": "within", "metric": "m", "at_least": 0.5}, ("late", 0, "m", 0.0, {})
    found = rules.judge(rule, toy([*rows, late]))
    assert found.verdict == "reproduced" and "late: too few seeds yet (n = 1)" in found.evidence
    assert rules.judge(rule, toy([late])).verdict == "pending"
    assert rules.judge({**rule, "exact": True}, toy([*rows, late])).verdict == "partly", "exact values need one seed"
    two = [*rows, late, ("late", 1, "m", 0.0, {})]
    found = rules.judge(rule, toy(two))
    assert found.verdict == "reproduced" and "late: too few seeds yet (n = 2)" in found.evidence
    assert rules.judge(rule, toy(two[3:])).verdict == "not reproduced", "where no set has three, two decide"
    assert rules.judge(rule, toy([*two, ("late", 2, "m", 0.0, {})])).verdict == "partly"
    spread = {"kind": "spread", "metric": "m", "at_least_percent": 0.1}
    assert rules.judge(spread, toy(two)).verdict == rules.judge(spread, toy(rows)).verdict == "reproduced"


def test_pairing_by_seed_beats_the_spread_between_seeds(toy):
    rows = []
    for seed in range(3):
        rows.append(("t", seed, "m", 10.0 * seed, {"epsilon": "inf"}))
        rows.append(("t", seed, "m", 10.0 * seed + 0.5 + 0.01 * seed, {"epsilon": "1"}))
    assert rules.judge({"kind": "difference", **OF_MINUS, "direction": "above"}, toy(rows)).verdict == "reproduced"


def test_readme_block_is_replaced_and_nothing_else(ledger):
    verdicts = claims.evaluate(ledger, pd.DataFrame({"notebook": []}))
    text = f"# A\n{claims.MARKS[0]}\nold\n{claims.MARKS[1]}\ntail\n"
    new = claims.replace_block(text, claims.readme_block(verdicts, 0))
    assert new.startswith("# A\n") and new.endswith("\ntail\n") and "old" not in new and "No standard records" in new
    assert claims.replace_block(new, claims.readme_block(verdicts, 0)) == new
    assert "From 3 standard records" in claims.readme_block(verdicts, 3)
    for broken in ("no marks", claims.MARKS[1] + claims.MARKS[0], text + claims.MARKS[0]):
        with pytest.raises(ValueError, match="once each"):
            claims.replace_block(broken, "x")
