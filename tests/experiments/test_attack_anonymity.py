"""Glue of the anonymity notebook: known answers, honest intervals, identifiers, and figures that draw every mean."""

import math

import numpy as np
import pandas as pd
import pytest

from feddiff.attacks import anonymity, copies
from feddiff.attacks.games import Counts, judge
from feddiff.data import tables
from feddiff.experiments import attack_anonymity as glue, attack_membership, records
from feddiff.experiments import figures_attacks_anonymity as figures

SILO = ["record number", "age", "job", "marital"]


def start():
    return records.start(notebook="42_anonymity", scale="quick", parameters={}, seed=0)


@pytest.fixture(scope="module")
def split():
    table, ids = glue.identified("bank-marketing")
    assert ids == ["record number"] and "record number" not in tables.load("bank-marketing").kinds
    return glue.parts(table, rows=300, seed=0)


@pytest.fixture(scope="module")
def told(split):
    run, small = start(), split.without(["record number"])
    rows, games = {}, {}
    for name in glue.KNOWN:
        synthetic = glue.known(small, name)
        games[name] = glue.play(run, small, synthetic, SILO[1:], release=name, predicates=200, targets=300)
        rows[name] = glue.verdicts(run, glue.others(run, small, synthetic, release=name), games[name], release=name)
    attack_membership.agreement(run, pd.DataFrame(rows).T[list(glue.RANKED)], releases="all")
    return run, rows, games


def long(run, seed=0, dataset="bank-marketing"):
    frame = pd.DataFrame([
        {"notebook": run.notebook, "scale": "standard", "dataset": dataset, "seed": seed, "key": "", "settings": "",
         "name": row["name"], "value": row["value"], "reason": "", "timing": False, **row["labels"]}
        for row in run._metrics.values()
    ])
    return frame.fillna({name: "" for name in frame.columns if name != "value"})


def test_parts_are_disjoint_equal_and_the_same_people_with_and_without_identifiers(split):
    each = [split.train, split.control, split.fresh, split.reference]
    assert [len(part) for part in each] == [300, 300, 300, 100]
    people = np.concatenate([part.frame["record number"] for part in each])
    assert len(set(people)) == 1_000
    small = split.without(["record number"])
    assert "record number" not in small.train.kinds and small.train.frame["age"].equals(split.train.frame["age"])
    dealt = glue.federation(small, 2)
    assert sum(map(len, dealt.clients)) == 300 == dealt.rows and dealt.test is small.control
    shared = glue.setting(split, 4)
    assert list(shared.silos[0].kinds) == SILO and shared.rows == 300
    with pytest.raises(ValueError, match="rows"):
        glue.parts(split.reference.select(np.arange(50)), rows=None, seed=0)


def test_known_answers(told):
    _, rows, games = told
    for game in ("singling-out-univariate", "singling-out-multivariate", "attribute-inference"):
        assert rows["copy"][game] > 0.9, game
        assert games["fresh"][game].low == 0, game
    assert rows["copy"]["linkability"] > 0.5 > 0.1 > rows["fresh"]["linkability"]
    assert rows["permuted"]["singling-out-univariate"] > 0.9, "values alone single out"
    assert rows["permuted"]["attribute-inference"] < 0.15 and rows["permuted"]["passes dcr"] == 1
    assert rows["copy"]["passes dcr"] == 0 and abs(rows["fresh"]["closer_to_train"] - 0.5) < 0.1
    assert rows["copy"]["closest"] == pytest.approx(1, abs=0.01) and abs(rows["fresh"]["closest"] - 0.5) < 0.1
    assert abs(rows["copy_moved"]["closest"] - 0.5) < 0.15 and rows["copy_moved"]["moved_back"] > 0.9
    assert rows["copy_noised"]["linkability"] > rows["fresh"]["linkability"]


def test_known_releases_keep_columns_and_rows(split):
    frame = split.train.frame
    permuted, moved = glue.known(split, "permuted"), glue.known(split, "copy_moved")
    for column in frame:
        assert sorted(permuted[column]) == sorted(frame[column])
    assert not permuted.equals(frame) and (moved["job"] != frame["job"]).all()
    assert np.allclose(moved["age"], np.round(frame["age"] + frame["age"].std()))
    with pytest.raises(ValueError, match="name"):
        glue.known(split, "other")


def test_a_moved_table_is_brought_back_by_its_marginals_alone():
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 6.0] * 9, "label": ["a", "a", "a", "b"] * 9,
                          "yes": [True, False, False, False] * 9, "tie": ["a", "b", "b", "a"] * 9, "name": range(36)})
    kinds = {"x": "numeric", "label": "categorical", "yes": "boolean", "tie": "categorical", "name": "categorical"}
    moved = frame.assign(x=frame["x"] + 9, label=frame["label"].map({"a": "b", "b": "a"}), yes=~frame["yes"])
    back = copies.table_moved_back(moved, frame, kinds)
    assert np.allclose(back["x"], frame["x"]) and list(back["label"]) == list(frame["label"])
    assert list(back["yes"]) == list(frame["yes"]) and list(moved["label"][:4]) == ["b", "b", "b", "a"]
    assert list(back) == ["x", "label", "yes"], "labels as frequent as each other have no rank to be known by"


def test_a_silo_knows_its_own_columns_only():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"own": np.arange(200.0), "noise": rng.random(200), "secret": rng.integers(0, 9, 200)})
    kinds = {"own": "numeric", "noise": "numeric", "secret": "categorical"}
    control = frame.assign(own=frame["own"] + 0.5, secret=rng.permutation(frame["secret"]))
    shared = dict(attacks=200, kinds=kinds, secrets="secret")
    by_own, by_noise = (
        anonymity.attribute_inference(frame, frame.assign(noise=rng.random(200)), control, known=known,
                                      generator=np.random.default_rng(1), **shared) for known in ("own", ["noise"])
    )
    assert by_own.counts.successes == 200 and by_noise.counts.successes < 60
    with pytest.raises(ValueError, match="cannot be known"):
        anonymity.attribute_inference(frame, frame, control, known="secret", generator=rng, **shared)


def result(won, control, made=1_000):
    return judge("linkability", Counts(made, won, made, control, made, 0))


def test_a_relative_change_has_an_interval_only_where_its_base_is_clear():
    run = start()
    strong, half, none = ({game: result(*counts) for game in anonymity.GAMES}
                          for counts in ((900, 100), (500, 100), (110, 100)))
    found = glue.relative_change(run, half, strong, versus="strong", release="half")
    assert found.low < 100 * ((4 / 9) / (8 / 9) - 1) < found.high and -60 < found.low < found.high < -40
    same = glue.relative_change(run, strong, strong, versus="strong", release="strong")
    assert same.low < 0 < same.high and same.value == pytest.approx(0)
    unclear = glue.relative_change(run, strong, none, versus="none", release="strong")
    assert math.isnan(unclear.value)
    reasons = [row["reason"] for row in run._metrics.values() if row["labels"]["versus"] == "none"]
    assert len(reasons) == 3 and all("not clearly above" in reason for reason in reasons)


def test_identifiers_fill_the_predicates(split):
    run, small = start(), split.without(["record number"])
    kept = glue.identifiers(run, split, {"copy": glue.known(split, "copy")}, ["record number"], kept=True,
                            predicates=100)
    dropped = glue.identifiers(run, small, {"copy": glue.known(small, "copy")}, ["record number"], kept=False,
                               predicates=100)
    assert kept["copy"] > 0.9 < dropped["copy"]
    share = {row["labels"]["ids"]: row["value"] for row in run._metrics.values() if row["name"] == "ids_share"}
    assert share["keep"] > 0.3 and share["drop"] == 0


def test_the_alarm_sounds_for_a_copy_and_not_for_fresh_rows(told):
    values = {(row["name"], row["labels"].get("release")): row["value"] for row in told[0]._metrics.values()}
    assert values["alarm", "copy"] == 1 and values["alarm_low", "copy"] > 0.8 and values["alarm", "fresh"] == 0


def test_the_figures_draw_every_mean(told):
    frame = pd.concat([long(told[0]), long(told[0], dataset="other")], ignore_index=True)
    for table in (frame, pd.concat([frame, frame.assign(seed=1)], ignore_index=True)):
        drawn = {round(float(x), 5) for axes in figures.risks(table).axes for line in axes.get_lines()
                 for x in line.get_xdata()}
        assert {round(value, 5) for value in frame.loc[frame["name"] == "risk", "value"]} <= drawn
        figure = figures.metrics(table)
        texts = [text.get_text() for axes in figure.axes for text in axes.texts]
        assert len(texts) == 2 * len(glue.KNOWN) * len(figures.COLUMNS)
        assert "5 releases" in figure.axes[0].get_title(loc="left")
        assert {title.get_title(loc="left").split(":")[0] for title in figure.axes} == {"bank-marketing", "other"}
    full, short = figures.scores(frame)
    assert len(short) == 2 * len(glue.KNOWN) and len(full) == len(texts)
    assert "fails" in short.set_index(["dataset", "release"]).loc[("other", "exact copy"), "inference"]
