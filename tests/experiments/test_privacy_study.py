"""The leak of a codec: found where it is, absent where nothing is read or noise is enough, and back without the noise."""

import math

import numpy as np
import pandas as pd
import pytest

from feddiff.attacks.audit import clopper_pearson_epsilon, threshold_counts
from feddiff.data import tables
from feddiff.data.tables import Table
from feddiff.experiments import privacy_study
from feddiff.privacy.accounting import epsilon, gaussian_epsilon
from feddiff.seeds import numpy_generator


def people(name="toy", rows=400):
    generator = numpy_generator(3, "people")
    frame = pd.DataFrame({
        "age": generator.integers(18, 90, rows), "job": generator.choice(["clerk", "nurse", "smith"], rows),
        "label": generator.choice(["no", "yes"], rows),
    })
    kinds = {"age": "integer", "job": "categorical", "label": "categorical"}
    return Table(frame=frame, target="label", kinds=kinds, name=name, source="file", sha256="0" * 64)


def lower_bound(column, codec, *, trials=600, **changes):
    settings = {"bounds": (0.0, 120.0) if column == "age" else None, "rows": 200, "trials": trials, "seed": 1, "clients": 2}
    scores, present, statement = privacy_study.leak(people(), column, codec, **{**settings, **changes})
    assert scores.shape == present.shape == (trials,)
    return clopper_pearson_epsilon(**threshold_counts(scores, present, fit=100), delta=1e-5), statement


@pytest.mark.parametrize(("column", "codec"), [
    ("age", "pooled"), ("age", "pooled_ties"), ("age", "client"), ("job", "pooled"), ("job", "client"),
])
def test_codecs_of_private_rows_leak_although_the_ledger_spends_nothing(column, codec):
    found, statement = lower_bound(column, codec)
    assert found > 3
    assert statement["epsilon"] == 0 and statement["outside"]


@pytest.mark.parametrize("column", ["age", "job"])
def test_a_public_codec_proves_nothing(column):
    found, statement = lower_bound(column, "public")
    assert found == 0 and statement["epsilon"] == 0 and not statement["outside"]


@pytest.mark.parametrize("column", ["age", "job"])
def test_a_private_codec_stays_within_its_epsilon(column):
    found, statement = lower_bound(column, "private", trials=250, noise_over_sensitivity=5.0)
    assert found <= statement["epsilon"] < 1.1 and not statement["outside"]
    least = gaussian_epsilon(noise_over_sensitivity=5.0, delta=1e-5)
    assert least <= statement["epsilon"] * (1 + 1e-9)


def test_a_private_codec_leaks_without_noise():
    """The same attack then finds the same outlier; the threshold of the labels still hides what one row has."""
    loud, statement = lower_bound("age", "private", trials=250, noise_over_sensitivity=1e-4)
    assert loud > 2 and statement["epsilon"] > 1e3


def test_the_game_repeats_with_its_seed():
    first, second, other = (
        privacy_study.leak(people(), "age", "pooled", bounds=(0, 120), rows=100, trials=50, seed=seed)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
    assert not np.array_equal(first[1], other[1])


def test_public_bounds_hold_every_value_of_the_embedded_tables():
    for name in ("bank-marketing", "adult"):
        table = tables.load(name)
        for column, (low, high) in privacy_study.public_bounds(table).items():
            assert low <= table.frame[column].min() and table.frame[column].max() <= high, column
        labels = privacy_study.vocabulary(table)
        assert all(table.frame[column].isin(own).all() for column, own in labels.items())
        assert table.target not in labels


def test_bounds_of_an_own_table_must_be_given():
    with pytest.raises(ValueError, match="age"):
        privacy_study.public_bounds(people())
    assert privacy_study.public_bounds(people(), {"age": [0, 99]}) == {"age": (0.0, 99.0)}


@pytest.mark.parametrize(("change", "words"), [
    ({"codec": "magic"}, "codec"), ({"column": "age", "bounds": None}, "column"), ({"column": "nothing"}, "column"),
    ({"rows": 4000}, "rows"), ({"rows": 1}, "rows"), ({"codec": "private"}, "noise_over_sensitivity"),
    ({"noise_over_sensitivity": 1.0}, "noise_over_sensitivity"), ({"trials": 0}, "trials"),
])
def test_bad_input_is_named(change, words):
    given = {"column": "job", "codec": "pooled", "bounds": None, "rows": 100, "trials": 10, "seed": 0, "clients": 2}
    with pytest.raises(ValueError, match=words):
        privacy_study.leak(people(), **{**given, **change})


def test_the_central_limit_reports_too_little():
    """privacy.md 1.1: 9.847 for 11.774 at q = 512/60000, sigma 0.5, 1000 steps; 6.007 for one full-batch step."""
    plan = {"sample_rate": 512 / 60_000, "noise_multiplier": 0.5, "steps": 1000, "delta": 1e-5}
    assert privacy_study.central_limit_epsilon(**plan) == pytest.approx(9.847, abs=2e-3)
    one = {"sample_rate": 1.0, "noise_multiplier": 1.0, "steps": 1, "delta": 1e-5}
    assert privacy_study.central_limit_epsilon(**one) == pytest.approx(6.007, abs=2e-3)
    assert privacy_study.central_limit_epsilon(**{**one, "steps": 0}) == 0.0
    assert privacy_study.central_limit_epsilon(**one) > epsilon(**one)
    assert privacy_study.central_limit_epsilon(**{**one, "noise_multiplier": 1e9}) < math.inf
