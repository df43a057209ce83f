"""Attacks on the system's own uploads: the cells that are measured, the figures that show them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from feddiff.data.images import load_images
from feddiff.experiments import attack_uploads as attack
from feddiff.experiments import figures_attacks_uploads as figures
from feddiff.experiments import pictures, records
from feddiff.systems import pfdm


@pytest.fixture(scope="module")
def chosen():
    return attack.pool(load_images("digits"), 8, candidates=300, uploads=60, public=300, seed=0)


@pytest.fixture
def run():
    parameters = dict(dataset="digits")
    return records.start(notebook="44_upload_reidentification", scale="quick", parameters=parameters, seed=0)


def value(run, name, **labels):
    wanted = {label: records.label_text(text) for label, text in labels.items()}
    found = [row["value"] for row in run._metrics.values()
             if row["name"] == name and wanted.items() <= row["labels"].items()]
    assert len(found) == 1
    return found[0]


def test_pools_are_disjoint_and_the_same_at_every_side(chosen):
    source = load_images("digits")
    large = attack.pool(source, 16, candidates=300, uploads=60, public=300, seed=0)
    assert np.array_equal(large.labels, chosen.labels) and large.candidates.shape == (300, 1, 16, 16)
    everything = torch.cat([chosen.candidates, chosen.public])
    assert len(torch.unique(everything.flatten(1), dim=0)) == 600
    assert torch.equal(chosen.truth, chosen.candidates[:60])
    with pytest.raises(ValueError, match="too few"):
        attack.pool(source, 8, candidates=1500, uploads=10, public=300, seed=0)


def test_uploads_are_the_systems_own(chosen):
    config = pfdm.v1(t0=400)
    one, again, other = (attack.sent(config, chosen.truth, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    labels = torch.from_numpy(chosen.labels[chosen.uploaded])
    own = replace(config, seed=1, network="tiny", global_images=0)
    federation = pfdm.train([(chosen.truth, labels)], own, fit_clients=(), progress=False)
    assert torch.equal(one, federation.uploads.images)


def test_a_cell_is_measured_whole(chosen, run):
    for config in (pfdm.v1(t0=50), pfdm.v1(t0=900)):
        attack.budget(run, config, (1, 8, 8))
        attack.identify(run, chosen, config, seed=0)
        attack.reconstruct(run, chosen, config, seed=0)
        attack.with_seed(run, chosen, config, seed=0)
    early, late = (dict(side=8, t0=t0, C="none") for t0 in (50, 900))
    assert value(run, "matched", **early) > 0.95 and value(run, "matched", **late) < 0.1
    assert value(run, "matched_chance", **late) == pytest.approx(1 / 300)
    assert value(run, "class_read", **early) > 0.8
    assert value(run, "epsilon_proved", **early) > 4 and value(run, "epsilon_proved", **late) < 1
    assert value(run, "recovery", attacker="blind", **late) == pytest.approx(1)
    assert 0.9 < value(run, "recovery", attacker="public_moments", **late) < 1.1
    assert value(run, "recovery", attacker="public_moments", **early) < 0.2
    for where in (early, late):
        assert value(run, "recovery", attacker="seed", **where) < 1e-8
        assert value(run, "psnr", attacker="seed", **where) > 60


def test_clipping_takes_contrast_that_psnr_puts_back(chosen, run):
    found = attack.with_seed(run, chosen, replace(pfdm.v1(t0=100), C=2.0), seed=0)["seed"]
    # Exact but for the norm of each picture, which clipping took: the average contrast is put back.
    cosine = torch.nn.functional.cosine_similarity(found.flatten(1), chosen.truth.flatten(1))
    assert cosine.min() > 0.9999
    assert value(run, "recovery", attacker="seed", side=8, t0=100, C=2) < 1e-6
    assert 15 < value(run, "psnr", attacker="seed", side=8, t0=100, C=2) < 60


def test_repeats_give_more_away(chosen, run):
    config = pfdm.v1(t0=400)
    attack.repeat(run, chosen, config, [1, 4], seed=0)
    attack.budget(run, config, (1, 8, 8), repeats=[1, 4])
    where = dict(side=8, t0=400, C="none")
    assert value(run, "matched_repeated", repeats=4, **where) > value(run, "matched_repeated", repeats=1, **where) + 0.1
    assert value(run, "recovery_repeated", repeats=4, **where) < value(run, "recovery_repeated", repeats=1, **where)
    assert value(run, "epsilon_image", repeats=4, **where) > 2 * value(run, "epsilon_image", repeats=1, **where)
    assert 4 <= attack.drawn_again(60_000, seed=0) <= 12


def test_figures_show_every_cell(toy):
    rows, shares = [], {}
    for place, (t0, C) in enumerate((("100", "none"), ("400", "none"), ("400", "10"), ("690", "10"))):
        for side in ("8", "28"):
            where = dict(side=side, t0=t0, C=C)
            shares[t0, C, side] = 0.9 - 0.2 * place + 0.01 * int(side)
            rows += [("toy", 0, "matched", shares[t0, C, side], where), ("toy", 0, "matched_chance", 0.001, where),
                     ("toy", 0, "epsilon_value", 50.0 / (1 + place), where),
                     ("toy", 0, "epsilon_image", 5000.0 / (1 + place), where | {"repeats": "1"})]
            rows += [("toy", 0, "epsilon_image", 9000.0 / (1 + place), where | {"repeats": "4"})]
            if side == "28":
                rows += [("toy", 0, "recovery", 0.5, where | {"attacker": name}) for name in figures.ATTACKERS]
                rows += [("toy", 0, f"{name}_repeated", 0.5 + 0.1 * int(k), where | {"repeats": k})
                         for name in ("matched", "recovery") for k in ("1", "4")]
    frame = toy(rows, notebook="44_upload_reidentification")
    drawn = {round(float(y), 6) for panel in figures.matched(frame).axes for line in panel.get_lines()
             for y in line.get_ydata()}
    assert {round(share, 6) for share in shares.values()} <= drawn
    assert len(figures.reconstructed(frame).axes) == 2 and len(figures.repeated(frame).axes) == 3


def test_the_sheet_is_drawn_from_what_lies_beside_the_record(chosen, run):
    config = pfdm.v1(t0=100)
    attack.budget(run, config, (1, 8, 8))
    guesses = attack.reconstruct(run, chosen, config, seed=0)
    rows = {"truth": chosen.truth} | {name: guesses[name] for name in ("none", "blind", "public_moments", "pool")}
    pictures.save(run, "reconstructed_100_none", attack.sheet(rows, chosen.labels[chosen.uploaded], 10))
    run.data(load_images("digits"))
    run.save()
    frame = records.load_records("44_upload_reidentification", "quick")
    panel = figures.pictures(frame).axes[0]
    assert [text.get_text() for text in panel.get_yticklabels()] == [
        "the picture", "its upload", "guess without it", "public moments", "a pool with it"]
