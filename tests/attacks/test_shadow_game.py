"""The record-level game: a release that holds the target is told from one that cannot, and chance stays chance."""

import numpy as np
import pandas as pd
import pytest

from feddiff.attacks import audit, shadow_game as game
from feddiff.evaluation.membership import auc
from feddiff.seeds import numpy_generator


def table(rows):
    draw = numpy_generator(0, "rows")
    frame = pd.DataFrame(draw.standard_normal((rows, 3)), columns=list("abc"))
    frame["kind"] = draw.choice(["x", "y"], rows)
    return frame


ROWS = table(60)
TARGET = pd.DataFrame({"a": [9.0], "b": [-9.0], "c": [9.0], "kind": ["z"]})


def bootstrap(rows, seed):
    """Release rows as they are, drawn with replacement: whoever was in is likely out there."""
    return rows.iloc[numpy_generator(seed, "bootstrap").integers(len(rows), size=120)].reset_index(drop=True)


def blind(rows, seed):
    """Release fresh draws that depend on nobody."""
    draw = numpy_generator(seed, "blind")
    return pd.DataFrame(draw.standard_normal((120, 3)), columns=list("abc")).assign(kind=draw.choice(["x", "y"], 120))


def test_outliers_come_first():
    rows = pd.concat([ROWS, TARGET], ignore_index=True)
    assert game.outliers(rows, 1).tolist() == [60]
    assert len(set(game.outliers(rows, 7).tolist())) == 7
    with pytest.raises(ValueError, match="count"):
        game.outliers(rows, 0)


def test_a_release_that_copies_the_target_is_found_and_an_audit_says_so():
    played = game.play(bootstrap, ROWS, TARGET, trials=64, seed=0)
    inside, outside = played.tested
    assert len(inside) == len(outside) == 16 and auc(inside, outside) > 0.85
    counts = audit.threshold_counts(played.scores, played.present, fit=played.fit)
    assert audit.clopper_pearson_epsilon(**counts) > 1


def test_a_blind_release_is_chance():
    areas, bounds = [], []
    for seed in range(3):
        played = game.play(blind, ROWS, TARGET, trials=48, seed=seed)
        areas.append(auc(*played.tested))
        counts = audit.threshold_counts(played.scores, played.present, fit=played.fit)
        bounds.append(audit.clopper_pearson_epsilon(**counts))
    assert abs(np.mean(areas) - 0.5) < 0.18 and max(bounds) == 0  # 2.5 standard errors of three games of 12 + 12


def test_a_dp_count_is_never_audited_above_its_epsilon():
    # Laplace noise of scale 1 / epsilon on the number of rows of kind z: exactly (epsilon, 0)-DP for a record.
    def noisy(rows, seed):
        draw = numpy_generator(seed, "laplace")
        count = np.clip(round((rows["kind"] == "z").sum() + draw.laplace(scale=2.0) + 10), 0, 120)
        return blind(rows, seed).assign(kind=np.repeat(["z", "x"], [count, 120 - count]))

    bounds = []
    for seed in range(2):
        played = game.play(noisy, ROWS, TARGET, trials=48, seed=seed)
        bounds.append(audit.clopper_pearson_epsilon(
            **audit.threshold_counts(played.scores, played.present, fit=played.fit)
        ))
    assert max(bounds) <= 0.5


def test_every_training_has_its_own_seed_and_its_own_side():
    seen = []

    def watched(rows, seed):
        seen.append((len(rows), seed))
        return blind(rows, seed)

    played = game.play(watched, ROWS, TARGET, trials=16, seed=3)
    assert len({seed for _, seed in seen}) == 16
    assert [count == 61 for count, _ in seen] == played.present.tolist()
    assert played.present[:8].sum() == played.present[8:].sum() == 4
    again = game.play(blind, ROWS, TARGET, trials=16, seed=3)
    assert np.array_equal(again.scores, played.scores)


@pytest.mark.parametrize(("change", "words"), [
    (dict(trials=6), "trials"), (dict(trials=10), "trials"), (dict(target=ROWS.iloc[:2]), "one target"),
    (dict(rows=ROWS.iloc[:0]), "training rows"),
])
def test_bad_input_is_named(change, words):
    given = dict(rows=ROWS, target=TARGET, trials=8) | change
    with pytest.raises(ValueError, match=words):
        game.play(blind, given["rows"], given["target"], trials=given["trials"], seed=0)
