"""The glue of notebook 45 on a tiny federation: exact at batch 1, nothing behind noise, owners of different clients."""

import numpy as np
import pandas as pd
import pytest
import torch

from feddiff.data import tables
from feddiff.experiments import attack_gradients as gradients
from feddiff.experiments import figures_attacks_gradients as figures
from feddiff.experiments import findiff_study as study
from feddiff.experiments import records
from feddiff.systems import findiff


@pytest.fixture(scope="module")
def setting():
    return study.split(tables.load("adult"), clients=2, seed=0, partition="occupation", max_rows=700)


@pytest.fixture(scope="module")
def model(setting):
    config = findiff.ours(R=2, S=3, B=32, ema=0.0, hidden=(64,), T=50)
    return findiff.train(setting.clients, config, progress=False)


@pytest.fixture(scope="module")
def run():
    return records.start(notebook="45_gradient_leakage", scale="quick", parameters={}, seed=0)


@pytest.fixture(scope="module")
def found(run, model):
    return {name: gradients.attack(run, model, name, [1, 8], [None, 0.0, 1.0], trials=4, seed=0)
            for name in gradients.ATTACKS}


@pytest.fixture(scope="module")
def owners(run, model, setting):
    held_out = gradients.known_rows(setting.test.frame, setting.train.frame, setting.train.kinds)
    sent = gradients.uploads(model, 10, seed=0)
    return gradients.whose(run, model, sent, [1, 20], held_out, rows=100, draws=4, seed=0, epsilon="inf")


def test_a_record_comes_back_whole_from_a_step_on_it_alone(found):
    for noise in ("none", "0"):
        assert found["ratio"][1, noise]["input_error"] < 1e-4
        assert found["ratio"][1, noise]["records_recovered"] == 1
        assert found["bins"][1, noise]["inputs_recovered"] == 1
    assert found["separation"][8, "none"]["records_recovered"] > found["ratio"][8, "none"]["records_recovered"]
    assert found["bins"][8, "none"]["inputs_recovered"] > 0.5


def test_noise_and_other_batches_give_nothing(found):
    for attack in found.values():
        for (_, noise), numbers in attack.items():
            assert numbers["inputs_recovered_control"] == 0
            assert noise != "1" or numbers["inputs_recovered"] == 0
            assert noise != "1" or numbers.get("records_recovered", 0) == 0


def test_a_step_is_reproducible_and_the_hook_is_gone(model):
    first, second = (gradients.step(model, 4, noise=1.0, seed=3) for _ in range(2))
    assert all(torch.equal(first.gradients[name], second.gradients[name]) for name in first.gradients)
    assert first.inputs.shape == (4, first.gradients["body.0.weight"].shape[1])
    assert not gradients.first_layer(model.federation.clients[0].network)._forward_hooks
    wrong = gradients.step(model, 4, noise=1.0, seed=3, trial=1)
    assert not torch.equal(first.inputs, wrong.inputs)


def test_recovered_by_hand():
    seen = gradients.Step(None, {}, torch.zeros(2, 1), torch.tensor([[0, 1], [2, 2]]), torch.tensor([[0.0], [1.0]]))
    told = gradients.recovered(torch.tensor([[0, 1], [2, 0]]), torch.tensor([[0.2], [3.0]]), seen)
    assert np.allclose(told, [1.0, 1 / 3])
    assert (gradients.recovered(torch.zeros(0, 2), torch.zeros(0, 1), seen) == 0).all()


def test_owners_are_found_better_by_groups(owners):
    assert owners[1].count == 200 and owners[20].count == 10
    assert owners[20].value > 0.7 and owners[1].value > 0.5


def test_unknown_categories_are_left_out_and_other_networks_refused(model):
    train, held = pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}), pd.DataFrame({"a": ["x", "z"], "b": [5, 6]})
    kept = gradients.known_rows(held, train, {"a": "categorical", "b": "integer"})
    assert kept.to_dict("list") == {"a": ["x"], "b": [5]}
    with pytest.raises(ValueError, match="attack"):
        gradients.inputs_found(model, gradients.step(model, 1, noise=None, seed=0), "guess")


def test_the_figures_draw_what_was_recorded(run, found, owners):
    frame = pd.DataFrame([
        {"notebook": "45", "scale": "quick", "dataset": "toy", "seed": 0, "key": "", "settings": "", "timing": False,
         "name": row["name"], "value": row["value"], "reason": "", **row["labels"]} for row in run._metrics.values()
    ]).fillna("")
    for draw, names in ((figures.steps, ("inputs_recovered", "records_recovered", "correlation")),
                        (figures.owners, ("source_accuracy",))):
        drawn = {round(float(y), 5) for axes in draw(frame).axes for line in axes.get_lines() for y in line.get_ydata()}
        assert {round(value, 5) for value in frame.loc[frame["name"].isin(names), "value"]} <= drawn
