"""The SiloFuse study: one split for all methods, runs that come back from the cache, scores that rank as they must."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from feddiff.data.tables import Table
from feddiff.experiments import records, silofuse_judge, silofuse_study
from feddiff.systems import silofuse, silofuse_joint

SHORT = dict(ae_steps=4, dm_steps=4, ae_batch=32, dm_batch=32, hidden=16, dm_width=16, dm_blocks=1, T=20,
             sample_steps=4, alarm=-100.0)


def table(rows=200):
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
    return silofuse_study.split(table(), silos=2, seed=0)


@pytest.fixture
def config():
    return silofuse.ours(scale="quick", **SHORT)


def metrics(run, name):
    return {tuple(sorted(row["labels"].items())): row["value"] for row in run._metrics.values() if row["name"] == name}


def test_a_split_shares_rows_and_columns_out(setting):
    assert setting.parts == [["a", "b"], ["c", "d"]] and setting.columns == ["a", "b", "c", "d"]
    assert len(setting.train) == 160 and len(setting.test) == 40 and setting.rows == 160
    assert [list(silo.frame) for silo in setting.held_out] == setting.parts
    fewer = silofuse_study.split(table(), silos=2, rows=100, seed=0)
    assert len(fewer.train) == 80 and fewer.identity != setting.identity
    assert silofuse_study.split(table(), silos=2, rows=100, seed=0).train.frame.equals(fewer.train.frame)
    apart = silofuse_study.split(table(), silos=2, seed=0, order="adversarial")
    assert not {"b", "d"} <= set(apart.parts[0]) and not {"b", "d"} <= set(apart.parts[1])


@pytest.mark.parametrize("method", ["silofuse", "independent_clients", "tab_ddpm", "gan_linear", "e2e"])
def test_a_method_comes_back_from_the_cache_as_it_was(setting, config, method, monkeypatch):
    recipe = silofuse_study.recipes("quick", **SHORT)[method]
    if method in ("tab_ddpm", "gan_linear"):
        recipe = replace(recipe, width=16)
    first = silofuse_study.trained(setting, method, recipe, progress=False)
    monkeypatch.setattr(silofuse, "train", None)
    monkeypatch.setattr(silofuse_joint, "e2e", None)
    again = silofuse_study.trained(setting, method, recipe, progress=False)
    drawn = first.sample(20, seed=3)
    assert list(drawn.columns) == setting.columns
    pd.testing.assert_frame_equal(again.sample(20, seed=3), drawn)


def test_equal_reconstruction_is_what_training_with_as_many_steps_gives(setting, config, monkeypatch):
    goals = iter([0.9, 0.1, 0.2, 0.95])  # the silos, LatentDiff, then twice and four times the steps
    monkeypatch.setattr(silofuse_study, "reconstructed", lambda model: next(goals))
    config = replace(config, alarm=1.0)
    with pytest.warns(UserWarning, match="autoencoders reproduce") as rung:
        run = silofuse_study.trained(setting, "latent_diff_equal_reconstruction", config, progress=False)
    assert run.config.ae_steps == 4 * 2 * SHORT["ae_steps"]
    alarms = [str(entry.message) for entry in rung if "autoencoders reproduce" in str(entry.message)]
    assert len(alarms) == 3, "the silos, LatentDiff, and LatentDiff with more steps"
    quiet = replace(run.config, seed=0, alarm=-100.0)
    other = silofuse.train([run_silo(setting)], quiet, columns=setting.columns, progress=False)
    pd.testing.assert_frame_equal(run.sample(20, seed=1), other.sample(20, seed=1))
    assert run.nbytes == other.nbytes


def run_silo(setting):
    from feddiff.systems.table_rivals import one_silo

    return one_silo(list(setting.silos))


def test_methods_train_for_as_many_steps(config):
    recipes = silofuse_study.recipes("quick", ae_steps=30, dm_steps=50, dm_batch=64)
    assert recipes["tab_ddpm"].steps == 80
    assert {recipes[m].steps * (1 + recipes[m].critic_steps) for m in ("gan_linear", "gan_conv")} == {78}
    assert {recipes[m].batch for m in ("tab_ddpm", "gan_linear", "gan_conv")} == {64}
    assert set(recipes) == set(silofuse_study.METHODS)


def test_an_unknown_method_is_refused(setting, config):
    with pytest.raises(ValueError, match="method must be one of silofuse"):
        silofuse_study.trained(setting, "magic", config)


def test_the_judge_ranks_real_rows_above_columns_on_their_own(setting):
    run = records.start(notebook="30_silofuse_quality", scale="quick", parameters={"dataset": "toy"}, seed=0)
    ceiling = silofuse_judge.ceiling(run, setting, readings="all")
    generator = np.random.default_rng(1)
    shuffled = setting.train.frame.apply(lambda column: generator.permutation(column.to_numpy()))
    alone = silofuse_judge.judge(run, setting, shuffled, method="shuffled")
    for metric in ("resemblance", "utility_median", "cross_tstr", "roc_auc_elsewhere"):
        assert ceiling[metric] > alone[metric] + 0.1, metric
    for metric in ("association_within", "association_across"):
        assert ceiling[metric] < alone[metric] - 0.1, metric
    assert ceiling["association_across_equal_rows"] == ceiling["association_across"]
    assert alone["association_across_equal_rows"] != alone["association_across"]
    parts = metrics(run, "resemblance_part")
    assert len(parts) == 10 and all(0 <= value <= 100 for value in parts.values())
    assert metrics(run, "resemblance_reading") and metrics(run, "reading_range")[("method", "real"),] > 0
    assert (("method", "shuffled"),) not in metrics(run, "reading_range")


def test_equal_tables_score_100_and_do_not_move_with_the_reading(setting):
    run = records.start(notebook="30_silofuse_quality", scale="quick", parameters={"dataset": "toy"}, seed=0)
    parts = silofuse_judge.identical(run, setting)
    assert (parts.loc[parts["default"], "score"] > 99.99).all()
    assert metrics(run, "reading_lowest")[("method", "identical"),] > 99.99


def test_differences_are_of_minus_the_other(new_run):
    run = new_run()
    found = silofuse_judge.difference(
        run, {"resemblance": 90.0, "utility": 80.0, "column_shapes": 1.0, "association_across": float("nan")},
        {"resemblance": 70.0, "utility": 85.0, "column_shapes": 0.0, "association_across": 0.1}, minus="gan_conv",
    )
    assert found == {"resemblance": 20.0, "utility": -5.0}
    assert metrics(run, "utility_difference") == {(("minus", "gan_conv"),): -5.0}


def test_the_alarm_is_recorded_column_by_column(setting, config, new_run):
    run = new_run()
    model = silofuse_study.trained(setting, "silofuse", config, progress=False)
    found = silofuse_judge.reconstruction(run, model, method="silofuse")
    each = metrics(run, "reconstruction")
    assert len(each) == 4 and found["reconstruction_worst"] == min(each.values())
    assert found["reconstruction_mean"] == pytest.approx(sum(each.values()) / 4)
    silofuse_judge.costs(run, model, method="silofuse")
    assert metrics(run, "parameters")[("method", "silofuse"),] == sum(model.parameters.values())
