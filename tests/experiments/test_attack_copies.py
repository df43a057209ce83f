"""A shifted copy passes every metric of closeness and gives all its rows away (the reference's toy, bands)."""

import numpy as np
import pandas as pd
import pytest

from feddiff.attacks import copies
from feddiff.evaluation import membership
from feddiff.experiments import attack_copies, figures_attacks_copies, frames, records


@pytest.fixture(scope="module")
def found():
    run = records.start(notebook="46_copy_detectors_are_not_privacy", scale="quick", parameters={}, seed=0)
    parts = attack_copies.quarters(attack_copies.toy(800, 10, 0), None, 0)
    told = {name: attack_copies.judge(run, parts, name, 0, source="toy") for name in attack_copies.RELEASES}
    rows = [row | {"labels": row["labels"]} for row in run._metrics.values()]
    frame = pd.DataFrame([
        {"notebook": "46", "scale": "quick", "dataset": "toy", "seed": 0, "key": "", "settings": "", "timing": False,
         "name": row["name"], "value": row["value"], "reason": "", **row["labels"]} for row in rows
    ])
    return told, frame


def test_the_table_of_the_reference_within_bands(found):
    told = found[0]
    copy, noised, half, one, fresh = (told[name] for name in
                                      ("copy", "copy_noised", "copy_moved_half", "copy_moved_one", "fresh"))
    assert copy["closer_to_train"] == 1 and copy["dcr_5_ratio"] == 0
    assert copy["distance_auc"] == 1 == copy["exact_copies"]
    assert 0.6 < noised["distance_auc"] < 1 and noised["dcr_5_ratio"] < 1.0
    assert half["dcr_5_ratio"] > 1 and half["moved_back_auc"] > 0.99
    assert one["passes"] == 1 and 0.4 < one["distance_auc"] < 0.6 and one["dcr_5_ratio"] > 1.5
    assert one["moved_back_auc"] > 0.99 and one["recovered"] > 0.95 > 0.1 > one["recovered_holdout"]
    assert fresh["passes"] == 1 and 0.45 < fresh["distance_auc"] < 0.55 and 0.45 < fresh["moved_back_auc"] < 0.55
    assert fresh["recovered"] < 0.1
    assert copy["passes"] == 0 == noised["passes"]


def test_scores_order_members_first_and_a_move_is_taken_off():
    generator = np.random.default_rng(0)
    members, others, public = generator.standard_normal((3, 300, 4))
    scores = [copies.closest_record_scores(side, members) for side in (members, others)]
    assert (scores[0] == 0).all() and (scores[1] < 0).all() and membership.auc(*scores) == 1
    mixed = generator.permutation(np.concatenate(scores))
    assert abs(membership.auc(mixed[:300], mixed[300:]) - 0.5) < 0.1, "permuted labels are chance"
    back = copies.moved_back(members + 7.0, members)
    assert np.allclose(back, members) and copies.recovered(members, back, 0.01) == 1.0
    assert copies.recovered(others, members, 1e-6) == 0.0
    assert np.allclose(copies.moved_back(members, public).mean(axis=0), public.mean(axis=0))
    with pytest.raises(ValueError, match="within"):
        copies.recovered(members, members, 0.0)


def test_quarters_are_disjoint_and_only_numbers_are_kept():
    table = attack_copies.numbers_of("breast-cancer")
    parts = attack_copies.quarters(table.frame, 50, 0)
    whole = pd.concat([parts.train, parts.holdout, parts.fresh, parts.public])
    assert len(whole) == 200 and not whole.duplicated().any()
    assert np.allclose(parts.train.std(), 1) and np.allclose(parts.train.mean(), 0, atol=1e-9)
    assert table.target is None and table.frame.shape[1] >= 10


def test_the_figure_draws_every_mean(found):
    frame = found[1]
    figure = figures_attacks_copies.releases(frame)
    drawn = {round(float(x), 5) for axes in figure.axes for line in axes.get_lines() for x in line.get_xdata()}
    named = [name for metrics, *_ in figures_attacks_copies.PANELS for name, *_ in metrics]
    assert {round(value, 5) for value in frame.loc[frame["name"].isin(named), "value"]} <= drawn
    assert set(frame.columns) >= set(frames.COLUMNS)
