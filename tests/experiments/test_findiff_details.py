"""Details of the authors' code: partitions, drift, scoring, distances; the figures that show them."""

from dataclasses import replace

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feddiff.data.tables import Table
from feddiff.experiments import figures_findiff_details as figures
from feddiff.experiments import findiff_details as details
from feddiff.experiments import findiff_study as study
from feddiff.experiments import style
from feddiff.seeds import numpy_generator
from feddiff.systems import findiff

SMALL = dict(T=30, R=2, S=2, B=32, hidden=(8, 8))


def toy_table(rows=2000):
    g = numpy_generator(0, "table")
    label = g.choice(["no", "yes"], rows, p=[0.7, 0.3])
    frame = pd.DataFrame({
        "age": g.integers(18, 60, rows), "z": g.normal(size=rows) + 2 * (label == "yes"),
        "c": g.choice(["a", "b"], rows), "rare": np.where(np.arange(rows) % 50, "x", "y"), "y": label,
    })
    kinds = dict(age="integer", z="numeric", c="categorical", rare="categorical", y="categorical")
    return Table(frame, "y", kinds, name="toy", source="file", sha256="0" * 64)


@pytest.fixture(scope="module")
def setting():
    return study.split(toy_table(), clients=2, seed=0, rows=300)


def test_age_is_found_and_typed_as_a_category():
    table = toy_table(100)
    assert details.age_of(table) == "age"
    assert details.retyped(table, "age").kinds["age"] == "categorical" and table.kinds["age"] == "integer"
    with pytest.raises(ValueError, match="'c' is no number column"):
        details.retyped(table, "c")
    with pytest.raises(ValueError, match="no column named age"):
        details.age_of(replace(table, frame=table.frame.rename(columns={"age": "years"}),
                               kinds={("years" if k == "age" else k): v for k, v in table.kinds.items()}))


@pytest.mark.parametrize("kind", details.PARTITIONS)
def test_every_split_keeps_the_rows_and_has_its_own_identity(setting, kind):
    spread = details.spread(setting, kind, "c", 2)
    assert sum(map(len, spread.clients)) == len(setting.train) and len(spread.clients) == 2
    assert spread.identity != setting.identity and kind in spread.identity
    values = [set(client.frame[{"label": "y", "attribute": "c"}.get(kind, "y")]) for client in spread.clients]
    assert (len(values[0] & values[1]) == 0) == (kind in ("label", "attribute"))


def test_the_most_even_attribute_is_taken(setting):
    assert details.attribute_of(setting, 2) == "c"
    with pytest.raises(ValueError, match="no categorical column with 5 values"):
        details.attribute_of(setting, 5)


def test_one_label_a_client_reveals_the_client(setting):
    assert details.revealed(details.spread(setting, "label", "c", 2)) == 1.0
    assert details.revealed(details.spread(setting, "iid", "c", 2)) == pytest.approx(0.5, abs=0.05)


def test_the_label_embedding_moves_less_with_one_label_a_client(setting):
    config = details.recipe(**SMALL | dict(R=4, B=200))
    drift = {}
    for kind in ("iid", "label"):
        spread = details.spread(setting, kind, "c", 2)
        drift[kind] = details.label_drift(findiff.train(spread.clients, config, progress=False))
    frozen = findiff.train(setting.clients, replace(config, freeze_condition=True), progress=False)
    assert 0 < drift["label"] < drift["iid"] and details.label_drift(frozen) == 0


def test_training_rows_flatter_a_copy(new_run, setting):
    found = details.judged_on(new_run(), setting, {"copies": setting.train.frame})
    for name in ("column_shapes", "pair_trends_quantile"):
        assert found["copies", "training", name] >= found["copies", "held_out", name] > 0.9


def test_accuracy_is_read_above_its_floor(new_run, setting):
    run = new_run()
    every = pd.concat([setting.train.frame, setting.test.frame])
    whole = replace(setting.train, frame=pd.concat([every, every[every[setting.target] == every[setting.target].iloc[0]]]))
    floor = details.above_the_floor(run, setting, whole, {"real": setting.train.frame})
    values = {row["name"]: row["value"] for row in run._metrics.values()}
    labels = whole.frame[setting.target]
    assert floor == pytest.approx(0.7, abs=0.03)
    assert values["majority_share"] == (labels == labels.mode()[0]).mean() != floor, "of the whole table, not the sample"
    assert values["accuracy_above_floor"] == pytest.approx(values["accuracy"] - floor) and values["roc_auc"] > 0.8


def test_the_share_of_freezing_is_that_of_the_comparison_that_the_authors_code_makes(new_run, setting, monkeypatch):
    worth = {("trained", None): 0.9, ("frozen", None): 0.84, ("trained", 1.0): 0.8, ("frozen", 1.0): 0.7}

    def scored(run, setting, config, *, condition, epsilon):
        assert config.freeze_condition == (condition == "frozen") and (epsilon == "inf") == (config.epsilon is None)
        pairs = worth[condition, config.epsilon]
        return None, None, {"pair_trends": pairs, "roc_auc": 0.7 + 0.01 * (pairs - 0.7)}

    monkeypatch.setattr(details, "scored", scored)
    run = new_run()
    shares = details.freezing(run, setting, epsilon=1.0, R=1)
    assert shares["pair_trends"] == pytest.approx(0.06 / 0.2) and np.isnan(shares["roc_auc"])
    rows = {row["labels"]["quality"]: row for row in run._metrics.values() if row["name"] == "freezing_share"}
    assert rows["roc_auc"]["value"] is None and "less than" in rows["roc_auc"]["reason"]


def test_copies_are_nearest_and_fresh_rows_are_the_scale(new_run, setting):
    run = new_run()
    synthetic, _ = study.floor(setting, "independent")
    found = details.distances(run, setting, synthetic, (0.0, 0.5, 1.0), 200)
    assert found["0"] > found["0.5"] > found["1"] == 0 < found["held_out"]
    copied = {row["labels"]["copied"]: row["value"] for row in run._metrics.values() if row["name"] == "rows_copied"}
    assert copied["1"] == 1.0 and copied["0.5"] >= 0.5


def test_the_ablation_compares_four_arms_and_a_seed_on_the_same_rows(new_run, setting):
    run, one = new_run(), details.pooled(setting)
    assert len(one.clients) == 1 and len(one.clients[0]) == len(setting.train) and one.identity != setting.identity
    found = details.ablation(run, one, details.recipe(epsilon=5.0, **SMALL), epsilon=5)
    assert set(found) == {*details.ABLATION, "again"} and set(details.REPORTED_GAIN) < set(found)
    base = found["mean_uniform"]
    for arm in set(found) - {"mean_uniform"}:
        assert found[arm]["roc_auc_gain"] == pytest.approx(100 * (found[arm]["roc_auc"] / base["roc_auc"] - 1))
    assert found["sum_uniform"]["clipped_share"] >= base["clipped_share"]
    recorded = {row["labels"]["ablation"] for row in run._metrics.values() if row["name"] == "pair_trends_gain"}
    assert recorded == set(found) - {"mean_uniform"}


@pytest.mark.parametrize("same", [True, False])
def test_summing_a_records_loss_is_a_clipping_norm_divided_by_the_columns(setting, same):
    # d times the gradient, clipped to C, is d times the gradient clipped to C / d, with d times its noise; Adam does
    # not see a constant factor.
    config = details.recipe(epsilon=5.0, C=6.0, **SMALL)
    summed = findiff.train(setting.clients, replace(config, reduction="sum"), progress=False)
    columns = summed.head.space.dim if same else 1
    mean = findiff.train(setting.clients, replace(config, C=config.C / columns), progress=False)
    gap = float((summed.federation.weights() - mean.federation.weights()).abs().mean())
    assert gap < 1e-6 if same else gap > 1e-5


@pytest.fixture
def frame(toy):
    rows = []
    for dataset in ("adult", "credit-default"):
        for seed in (0, 1):
            arms = [{label: name} for label, (_, names) in figures.STUDIES.items() for name in names]
            arms += [{"condition": c, "epsilon": e} for c in ("trained", "frozen") for e in ("1", "inf")]
            for labels in arms:
                rows += [(dataset, seed, name, 0.8, labels) for name in ("column_shapes", "pair_trends")]
                rows.append((dataset, seed, "roc_auc", 0.7, labels | {"classifier": "boosting"}))
            for step in ("1", "100", "200"):
                own = {"round": step, "anchor": "federated"}
                rows += [(dataset, seed, name, 1.0, own) for name in
                         ("epsilon_spent", "epsilon_logged", "denoising_error_logged")]
                rows += [(dataset, seed, "denoising_error", 1.0, own | {"state": s}) for s in ("keep", "reset")]
            for read in ("right", "as_text"):
                own = {"anchor": "federated", "read": read, "state": "keep"}
                rows += [(dataset, seed, name, 0.7, own) for name in ("sdv_shapes", "sdv_pairs")]
            for method in ("copies", "ours", "paper"):
                for where in ("training", "held_out"):
                    rows.append((dataset, seed, "pair_trends_quantile", 0.8, {"method": method, "judged_on": where}))
            for method in ("real", "ours", "paper"):
                for name in ("accuracy_above_floor", "balanced_accuracy", "roc_auc"):
                    rows.append((dataset, seed, name, 0.6, {"method": method, "scored": "floor"}))
            for arm in (*details.ABLATION, "again"):
                own = {"ablation": arm}
                rows += [(dataset, seed, name, 0.5 + seed, own) for name in
                         ("roc_auc_gain", "pair_trends_gain", "clipped_share")]
            rows += [(dataset, seed, "distance_mean", 0.3, {"copied": c}) for c in ("0", "0.5", "1", "held_out")]
    return toy(rows)


@pytest.mark.parametrize("draw", [figures.choices, figures.frozen, figures.anchor, figures.scoring, figures.gains])
def test_figures_draw_every_data_set(frame, draw):
    assert all(axes.has_data() for axes in draw(frame).axes)
    with pytest.raises(style.NothingToDraw):
        draw(frame[frame["name"] == "nothing"])


def test_the_table_of_gains_shows_what_is_reported(frame):
    full, short = figures.gains_table(frame)
    assert len(short) == 2 * 5 and set(short["reported gain (%)"]) == {"", "0.13", "1.22", "2.20"}
    assert set(full["name"]) == {"roc_auc_gain", "pair_trends_gain", "clipped_share"}
    assert figures.gains_table(frame[frame["name"] == "nothing"])[1].empty
