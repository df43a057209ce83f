"""Private pre-processing: accuracy with little noise, sensitivity by neighbours, budget, thresholds, bad input."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from feddiff.data.columns import CategoryColumn, NumericColumn
from feddiff.privacy import preprocessing
from feddiff.privacy.accounting import gaussian_epsilon
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.preprocessing import (
    private_codec,
    private_label_marginals,
    private_row_counts,
    public_codec,
)
from feddiff.seeds import numpy_generator, torch_generator

KINDS = {"age": "integer", "gain": "numeric", "job": "categorical", "flag": "boolean"}
BOUNDS = {"age": (17, 90), "gain": (0.0, 100_000.0)}
JOBS = ["clerk", "nurse", "smith"]


class Recorder:
    """Noise of zero that remembers its standard deviations."""

    def __init__(self):
        self.stds = []

    def fill_(self, tensor, std):
        self.stds.append(std)
        return tensor.zero_()


def noise(name="noise"):
    return GaussianNoise(torch_generator(5, name))


def people(rows, name="people"):
    generator = numpy_generator(6, name)
    return pd.DataFrame(
        {
            "age": np.clip(generator.normal(40, 12, rows).round(), 17, 90).astype(np.int64),
            "gain": np.where(generator.random(rows) < 0.9, 0.0, generator.lognormal(8, 1, rows).clip(0, 1e5)),
            "job": generator.choice(JOBS, rows, p=[0.6, 0.3, 0.1]),
            "flag": generator.random(rows) < 0.3,
        }
    )


def opened(clients=2, delta=1e-5):
    return PrivacyLedger(clients=[f"client-{k}" for k in range(clients)], delta=delta)


def released(frames, ledger=None, **changes):
    settings = {
        "noise_over_sensitivity": 1.0,
        "bounds": BOUNDS,
        "ledger": ledger or opened(len(frames)),
        "noise": noise(),
        "vocabulary_delta": 1e-6,
    }
    return private_codec(frames, KINDS, **{**settings, **changes})


def by_name(codec):
    return {column.name: column for column in codec.columns}


def test_private_quantiles_follow_the_pooled_distribution():
    frames = [people(4000, "one"), people(6000, "two")]
    codec = released(frames)
    assert codec.provenance == "private"
    pooled = pd.concat(frames, ignore_index=True)
    encoded = codec.encode(pooled, numpy_generator(1, "ties"))
    for position, name in enumerate(codec.number_columns):
        z = np.sort(encoded.numbers[:, position])
        uniform = 0.5 * (1 + torch.erf(torch.from_numpy(z) / math.sqrt(2)).numpy())
        grid = (np.arange(len(z)) + 0.5) / len(z)
        assert np.abs(uniform - grid).max() < 0.02, name  # Kolmogorov distance to N(0, 1)
    assert by_name(codec)["age"].decimals == 0
    decoded = codec.decode(encoded)
    # A value that the noise gave no mass comes back as its neighbour; there are few, in the tails.
    assert (decoded["age"] != pooled["age"]).mean() < 1e-3
    assert ((decoded["gain"] - pooled["gain"]).abs() > 100_000 / 4094).mean() < 0.01
    assert list(decoded.columns) == list(pooled.columns) and (decoded.dtypes == pooled.dtypes).all()


def test_heavy_noise_still_gives_a_valid_codec():
    frames = [people(50, "few"), people(60, "few too")]
    codec = released(frames, noise_over_sensitivity=1e4, vocabulary={"job": JOBS})
    encoded = codec.encode(frames[0], numpy_generator(1, "ties"))
    assert np.isfinite(encoded.numbers).all()
    assert by_name(codec)["age"].values[0] == 17 and by_name(codec)["age"].values[-1] == 90


def test_the_knots_are_not_values_of_the_rows():
    frame = people(500)
    frame.loc[0, "gain"] = 77_777.77
    column = by_name(released([frame]))["gain"]
    assert 77_777.77 not in column.values
    bins = np.array(column.values) / 1e5 * 4094
    np.testing.assert_allclose(bins, bins.round(), atol=1e-6)  # public edges only


def test_the_ledger_holds_the_release_of_every_client():
    ledger = opened(2)
    released([people(300, "a"), people(300, "b")], ledger, noise_over_sensitivity=5.0)
    for client in ledger.clients:
        kinds = [event.kind for event in ledger.events(client)]
        assert kinds == ["gaussian", "delta"]
        exact = gaussian_epsilon(noise_over_sensitivity=5.0, delta=1e-5 - 1e-6)
        assert ledger.epsilon(client) == pytest.approx(exact, rel=1e-5)
    assert PrivacyLedger.from_json(ledger.to_json()) == ledger


@pytest.mark.parametrize("dropped", range(0, 40, 7))
def test_one_row_moves_the_counts_by_the_stated_sensitivity(dropped, monkeypatch):
    frame = people(40)

    def counts(data):
        seen = []
        monkeypatch.setattr(preprocessing, "_noisy", lambda exact, noise, std: seen.append(np.asarray(exact)) or exact)
        released([data], noise=Recorder(), vocabulary={"job": JOBS})
        return np.concatenate(seen).astype(float)

    moved = np.linalg.norm(counts(frame) - counts(frame.drop(index=dropped).reset_index(drop=True)))
    recorder = Recorder()
    monkeypatch.undo()
    released([frame], noise=recorder, vocabulary={"job": JOBS}, noise_over_sensitivity=1.0)
    # std / ratio is the sensitivity that the noise was scaled for: 3 levels for age, 4 for gain.
    assert set(recorder.stds) == {math.sqrt(7)}
    assert moved == pytest.approx(math.sqrt(7), rel=1e-12)


def test_a_rare_label_is_hidden_and_a_common_one_is_not():
    frame = people(3000)
    frame.loc[0, "job"] = "king"
    column = by_name(released([frame]))["job"]
    assert isinstance(column, CategoryColumn)
    assert set(column.vocabulary) == {"clerk", "nurse", "smith", "other"} and column.other == "other"
    assert column.decode(column.encode(frame["job"]))[0] == "other"


def test_a_single_row_passes_the_threshold_as_often_as_delta():
    series, delta, std = pd.Series(["king"]), 0.02, 3.0
    shown = sum(bool(preprocessing._stable_labels(series, noise(f"{k}"), std, delta)) for k in range(4000))
    assert abs(shown - 80) < 4 * math.sqrt(80)


def test_missing_values_are_public_knowledge():
    frame = people(400)
    frame.loc[3, "gain"] = np.nan
    with pytest.raises(ValueError, match="'gain' has missing values"):
        released([frame])
    codec = released([frame], missing=["gain"])
    assert "gain is missing" in codec.code_columns
    assert codec.decode(codec.encode(frame, numpy_generator(1, "ties")))["gain"].isna().sum() == 1


def test_public_codec_reads_no_value():
    codec = public_codec(people(30), KINDS, bounds=BOUNDS, vocabulary={"job": JOBS})
    other = public_codec(people(0), KINDS, bounds=BOUNDS, vocabulary={"job": JOBS})
    assert codec == other and codec.provenance == "public"
    frame = people(200)
    back = codec.decode(codec.encode(frame))
    pd.testing.assert_frame_equal(back.drop(columns="gain"), frame.drop(columns="gain"))
    np.testing.assert_allclose(back["gain"], frame["gain"], atol=1e-1)
    gain = by_name(codec)["gain"]
    assert isinstance(gain, NumericColumn) and gain.mean == 50_000


def test_label_marginals_and_row_counts():
    frames = [people(2000, "one"), people(1000, "two")]
    ledger = opened(2)
    settings = {"noise_over_sensitivity": 20.0, "ledger": ledger, "noise": noise()}
    share = private_label_marginals([frame["job"] for frame in frames], JOBS, **settings)
    np.testing.assert_allclose(share, [0.6, 0.3, 0.1], atol=0.06)
    assert share.sum() == pytest.approx(1.0)
    counts = private_row_counts(frames, **settings)
    assert abs(counts["client-0"] - 2000) < 100 and abs(counts["client-1"] - 1000) < 100
    exact = gaussian_epsilon(noise_over_sensitivity=20 / math.sqrt(2), delta=1e-5)
    assert ledger.epsilon() == pytest.approx(exact, rel=1e-9)
    empty = private_label_marginals([pd.Series([], dtype=object)], JOBS, noise_over_sensitivity=1.0,
                                    ledger=opened(1), noise=Recorder())
    np.testing.assert_allclose(empty, 1 / 3)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bounds": {"age": (17, 90)}}, "'gain' has no public bounds"),
        ({"bounds": {**BOUNDS, "age": (90, 17)}}, "low < high"),
        ({"vocabulary_delta": 0.0}, "'job' has no public vocabulary"),
        ({"vocabulary_delta": 1e-5}, "vocabulary_delta"),
        ({"noise_over_sensitivity": 0.0}, "noise_over_sensitivity"),
        ({"columns": ["age", "height"]}, "'height'"),
        ({"ledger": opened(3)}, "one entry per client"),
    ],
)
def test_bad_input_spends_nothing(changes, named):
    ledger = changes.get("ledger") or opened(1)
    with pytest.raises(ValueError, match=named):
        released([people(20)], **{**changes, "ledger": ledger})
    assert not any(ledger.events(client) for client in ledger.clients)


def test_a_label_outside_the_public_classes_is_named():
    with pytest.raises(ValueError, match="'smith'"):
        private_label_marginals([people(50)["job"]], JOBS[:2], noise_over_sensitivity=1.0, ledger=opened(1),
                                noise=noise())
