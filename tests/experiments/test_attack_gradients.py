"""The glue of notebook 45 on a tiny federation: exact at batch 1, nothing behind noise, owners of different clients.

One local step of an update is the gradient; clients with equal draws have no owners to find; audits stay below epsilon.
"""

import numpy as np
import pandas as pd
import pytest
import torch

from feddiff.data import tables
from feddiff.experiments import attack_gradients as gradients
from feddiff.experiments import attack_owners as owned
from feddiff.experiments import attack_updates as updates
from feddiff.experiments import figures_attacks_gradients as figures
from feddiff.experiments import findiff_study as study
from feddiff.experiments import records
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems import findiff


@pytest.fixture(scope="module")
def setting():
    return study.split(tables.load("adult"), clients=2, seed=0, partition="occupation", max_rows=700)


@pytest.fixture(scope="module")
def equal():
    return study.split(tables.load("adult"), clients=2, seed=0, partition="iid", max_rows=700)


CONFIG = findiff.ours(R=2, S=3, B=32, ema=0.0, hidden=(64,), T=50)


@pytest.fixture(scope="module")
def model(setting):
    return findiff.train(setting.clients, CONFIG, progress=False)


@pytest.fixture(scope="module")
def run():
    return records.start(notebook="45_gradient_leakage", scale="quick", parameters={}, seed=0)


@pytest.fixture(scope="module")
def found(run, model):
    return {name: gradients.attack(run, model, name, [1, 8], [None, 0.0, 1.0], trials=4, seed=0)
            for name in gradients.ATTACKS}


@pytest.fixture(scope="module")
def owners(run, model, setting):
    return asked(run, model, setting, "by_category")


@pytest.fixture(scope="module")
def control(run, equal):
    return asked(run, findiff.train(equal.clients, CONFIG, progress=False), equal, "iid")


def asked(run, model, setting, partition):
    held_out = owned.known_rows(setting.test.frame, setting.train.frame, setting.train.kinds)
    sent = owned.uploads(model, 10, seed=0)
    options = dict(rows=100, draws=4, seed=0, epsilon="inf", partition=partition)
    return owned.whose(run, model, sent, [1, 20], held_out, **options)


@pytest.fixture(scope="module")
def sent(run, model):
    return {(optimiser, noise): updates.invert(run, model, [1, 4, 40], trials={1: 4, 4: 4}, optimiser=optimiser,
                                               noise=noise, seed=0)
            for optimiser, noise in (("sgd", None), ("sgd", 1.0), ("adam", None))}


@pytest.fixture(scope="module")
def audited(run, model):
    return updates.audit_canaries(run, model, ["1", "inf"], number=150, updates=10, delta=1e-5, seed=0)


def test_the_audit_takes_the_smallest_client_whatever_its_place(model, monkeypatch):
    def watched(client, *given, **options):
        seen.append(client.rows)
        return update(client, *given, **options)

    update, rows = updates._canary_update, [client.rows for client in model.federation.clients]
    monkeypatch.setattr(updates, "_canary_update", watched)
    for clients in (model.federation.clients, model.federation.clients[::-1]):
        seen, run = [], records.start(notebook="45_gradient_leakage", scale="quick", parameters={}, seed=0)
        monkeypatch.setattr(model.federation, "clients", clients)
        updates.audit_canaries(run, model, ["inf"], number=20, updates=1, delta=1e-5, seed=0)
        assert set(seen) == {min(rows)} and min(rows) < max(rows)


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


def test_one_local_step_is_the_gradient_and_more_of_them_hide_more(model, sent):
    client = model.federation.clients[0]
    update = updates.update(model, 4, 1, optimiser="sgd", noise=None, seed=3)
    gradients.load_flat_weights(client.network, model.federation.weights())
    order = numpy_generator(3, "attack", "update", 4, 1, 0).permutation(client.rows)[:4]
    loss = client.draws(torch.from_numpy(np.sort(order)), torch_generator(3, "attack", "update draws", 4, 1, 0))
    gradients.PlainStep(client.network, 4).gradient(loss, 4)
    for name, p in client.network.named_parameters():
        assert torch.allclose(update.gradients[name].float(), p.grad, atol=1e-5), name
    plain = sent["sgd", None]
    assert plain["separation", 1]["records_recovered"] == 1 and plain["ratio", 1]["input_error"] < 1e-2
    assert plain["separation", 4]["inputs_recovered"] > 0.5 > plain["ratio", 4]["inputs_recovered"]
    errors = [plain["ratio", count]["input_error"] for count in (1, 4, 40)]
    assert errors == sorted(errors) and errors[-1] > 0.5
    assert plain["separation", 40]["inputs_recovered"] == 0, "more records than features of time and label"


def test_noise_or_adam_leaves_no_record_of_an_update(sent):
    for key in (("sgd", 1.0), ("adam", None)):
        for numbers in sent[key].values():
            assert numbers["inputs_recovered"] == numbers["records_recovered"] == 0, key
    assert abs(sent["sgd", 1.0]["ratio", 1]["correlation"]) < 0.4
    assert all(numbers["inputs_recovered_control"] == 0 for one in sent.values() for numbers in one.values())
    with pytest.raises(ValueError, match="optimiser"):
        updates._descent(None, "lion")


def test_audits_of_an_update_are_below_epsilon_and_have_power_without_noise(audited):
    for optimiser in updates.OPTIMISERS:
        private, open_ = audited["1", optimiser], audited["inf", optimiser]
        assert private["upload_epsilon"] == pytest.approx(1, abs=0.01) and "upload_epsilon" not in open_
        assert private["upload_epsilon_lower"] <= private["upload_epsilon"] < private["upload_epsilon_ceiling"]
        assert open_["canary_auc"] > 0.7 > private["canary_auc"]
        assert private["upload_epsilon"] < open_["upload_epsilon_lower"] <= open_["upload_epsilon_ceiling"]


def test_owners_are_found_better_by_groups_and_not_at_all_among_equal_draws(owners, control):
    assert owners[1].count == 200 and owners[20].count == 10
    assert owners[20].value > 0.7 and owners[1].low > 0.5
    assert all(found.low < 0.5 < found.high for found in control.values())


def test_the_noise_covers_the_upload_too(setting):
    config = owned.within(setting, findiff.ours(epsilon=1.0, R=2, S=3, B=32, ema=0.0, hidden=(64,), T=50), 10)
    model = findiff.train(setting.clients, config, progress=False)
    before = model.privacy["epsilon"]
    owned.uploads(model, 10, seed=0)
    assert before < 0.9 < 0.98 < model.privacy["epsilon"] <= 1.0


def test_unknown_categories_are_left_out_and_other_networks_refused(model):
    train, held = pd.DataFrame({"a": ["x", "y"], "b": [1, 2]}), pd.DataFrame({"a": ["x", "z"], "b": [5, 6]})
    kept = owned.known_rows(held, train, {"a": "categorical", "b": "integer"})
    assert kept.to_dict("list") == {"a": ["x"], "b": [5]}
    with pytest.raises(ValueError, match="attack"):
        gradients.inputs_found(model, gradients.step(model, 1, noise=None, seed=0), "guess")


def test_the_figures_draw_what_was_recorded(run, found, owners, control, sent, audited):
    frame = pd.DataFrame([
        {"notebook": "45", "scale": "quick", "dataset": "toy", "seed": 0, "key": "", "settings": "", "timing": False,
         "name": row["name"], "value": row["value"], "reason": "", **row["labels"]} for row in run._metrics.values()
    ]).fillna("")
    for draw, names in ((figures.steps, ("inputs_recovered", "records_recovered", "correlation")),
                        (figures.updates, tuple(figures.LEFT)), (figures.owners, ("source_accuracy",)),
                        (figures.canaries, ("upload_epsilon", "upload_epsilon_lower", "upload_epsilon_ceiling"))):
        drawn = {round(float(y), 5) for axes in draw(frame).axes for line in axes.get_lines() for y in line.get_ydata()}
        assert {round(value, 5) for value in frame.loc[frame["name"].isin(names), "value"]} <= drawn
