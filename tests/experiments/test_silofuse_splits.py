"""Other splits of one setting: same rows, other owners; budgets, bits, floors and slopes."""

import numpy as np
import pandas as pd
import pytest

from feddiff.data.tables import Table
from feddiff.experiments import records, silofuse_splits as splits, silofuse_study as study
from feddiff.systems import silofuse


@pytest.fixture(scope="module")
def setting():
    generator = np.random.default_rng(0)
    group = generator.integers(0, 5, 200)
    frame = pd.DataFrame({
        "a": group + 0.1 * generator.normal(size=200), "b": np.array(list("uvxyz"))[group],
        "c": generator.normal(size=200), "d": np.where(generator.random(200) > 0.4, "yes", "no"),
    })
    kinds = {"a": "numeric", "b": "categorical", "c": "numeric", "d": "categorical"}
    return study.split(Table(frame=frame, target="d", kinds=kinds, name="toy", source="embedded", sha256="ab" * 32),
                       silos=2, seed=0)


@pytest.fixture
def run():
    return records.start(notebook="32_silofuse_robustness", scale="quick", parameters={}, seed=0)


def values(run, name):
    return [row["value"] for row in run._metrics.values() if row["name"] == name]


def test_only_the_owners_change(setting):
    again = splits.resplit(setting, 2)
    assert again.parts == setting.parts and again.train is setting.train
    draws = {tuple(map(tuple, splits.resplit(setting, 2, "random", draw).parts)) for draw in range(6)}
    assert len(draws) > 1
    assert splits.resplit(setting, 2, "random", 1).parts == splits.resplit(setting, 2, "random", 1).parts
    apart = splits.resplit(setting, 2, "adversarial").parts
    assert not any({"a", "b"} <= set(part) for part in apart)
    assert splits.resplit(setting, 4).identity != setting.identity


@pytest.mark.parametrize(("silos", "steps"), [(1, 3200), (3, 1067), (4, 800), (8, 400), (16, 200), (60, 200)])
def test_many_silos_share_the_steps_of_four(silos, steps):
    assert splits.equal_budget(silofuse.ours(scale="standard"), silos).ae_steps == steps


def test_bits_come_back_as_the_table(setting):
    cut, back = splits.in_bits(setting)
    assert cut.columns == ["a", "b bit 0", "b bit 1", "b bit 2", "c", "d"] and len(cut.silos) == 6
    for table, bits in ((setting.train, cut.train), (setting.test, cut.test)):
        pd.testing.assert_frame_equal(back(bits.frame), table.frame, check_dtype=False)


def test_shuffled_silos_are_whole_inside_and_strangers_across(setting, run):
    frame = splits.shuffled(setting)
    rows = lambda table: sorted(map(tuple, table[["a", "b"]].to_numpy().tolist()))  # noqa: E731
    assert rows(frame) == rows(setting.train.frame) and list(frame) == setting.columns
    apart = splits.resplit(setting, 4)
    near = splits.all_pairs(run, setting, frame, method="near")
    far = splits.all_pairs(run, apart, splits.shuffled(apart), method="far")
    assert far["association_all"] > near["association_all"] + 0.1
    assert splits.all_pairs(run, setting, setting.train.frame, method="same")["association_all"] == 0


def test_neighbours_are_kept_by_the_split_that_holds_them(setting, run):
    assert splits.neighbours(run, setting, order="contiguous") > 1
    assert splits.neighbours(run, splits.resplit(setting, 2, "adversarial"), order="adversarial") < 1
    assert splits.neighbours(run, splits.resplit(setting, 4), order="alone") is None


def test_averages_changes_and_slopes(run):
    mean = splits.average([{"x": 1.0, "y": 5.0}, {"x": 3.0}])
    assert mean == {"x": 2.0}
    assert splits.change(run, {"association_all": 0.5}, {"association_all": 0.2}, change="q")["association_all"] == (
        pytest.approx(0.3))
    found = {m: {"resemblance": 90 - 2 * np.log2(m), "association_all": 0.1} for m in (1, 2, 4, 8)}
    told = splits.slopes(run, found)
    assert told["resemblance"] == pytest.approx(-2) and told["association_all"] == pytest.approx(0, abs=1e-12)
    assert "utility" not in told and values(run, "resemblance_slope") == [pytest.approx(-2)]


def test_shapes_are_told_apart_by_what_a_column_holds(setting, run):
    assert set(splits.shapes(run, setting, setting.test.frame, method="same").values()) == {1.0}
    frame = setting.train.frame.assign(b="u")
    told = splits.shapes(run, setting, frame, method="one level")
    rows = {row["labels"]["sort"]: row["value"] for row in run._metrics.values() if row["labels"]["method"] == "one level"}
    assert rows == told and tuple(rows) == splits.SORTS
    assert told["more levels"] == pytest.approx((setting.test.frame["b"] == "u").mean())
    assert min(told["number"], told["two levels"]) > 0.7
    lonely = splits.resplit(setting, 4)
    assert splits.shapes(run, lonely, frame, method="other owners") == told
