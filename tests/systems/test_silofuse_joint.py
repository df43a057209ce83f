"""End-to-end training of SiloFuse's parts: split over parties it equals one graph, and sends four messages a step."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from feddiff.data.silos import Silo
from feddiff.seeds import numpy_generator
from feddiff.systems import silofuse, silofuse_joint
from feddiff.systems.silofuse_config import distributed_nbytes
from feddiff.systems.silofuse_joint import _SiloEnd, e2e, e2e_distributed
from feddiff.systems.silofuse_parties import COORDINATOR

KINDS = {"height": "numeric", "bracket": "categorical", "score": "numeric"}
CONFIG = silofuse.SiloFuseConfig(
    hidden=16, dm_width=16, dm_blocks=1, dm_batch=32, dm_lr=3e-3, T=20, sample_steps=5, joint_steps=27, dropout=0.1,
    alarm=-1e9,
)
FRAMING = 300


def silos(n=100, parts=(["height", "bracket"], ["score"])):
    g = numpy_generator(0, "joint table")
    a = g.normal(size=n)
    frame = pd.DataFrame({"height": a, "bracket": np.where(a > 0, "up", "down"), "score": a + 0.2 * g.normal(size=n)})
    return [Silo(f"silo {i}", frame[part], {name: KINDS[name] for name in part}) for i, part in enumerate(parts)]


def states(run):
    return {c.name: c.model.state_dict() for c in run.clients} | {COORDINATOR: run.coordinator.model.state_dict()}


def furthest(one, other):
    one, other = states(one), states(other)
    return max(float((one[p][k] - other[p][k]).abs().max()) for p in one for k in one[p] if one[p][k].numel())


@pytest.fixture(scope="module")
def together():
    return e2e(silos(), CONFIG, progress=False)


@pytest.fixture(scope="module")
def split():
    return e2e_distributed(silos(), CONFIG, progress=False)


def test_split_over_parties_it_is_the_same_training(together, split):
    assert furthest(together, split) < 1e-4
    untrained = silofuse.parties(silos(), CONFIG)
    untrained.coordinator.expect({c.name: c.width for c in untrained.clients})
    assert furthest(together, replace_prediction(untrained)) > 0.01
    np.testing.assert_allclose(together.history["loss"], split.history["loss"], rtol=1e-4)
    pd.testing.assert_frame_equal(together.sample(20, seed=1), split.sample(20, seed=1), rtol=1e-3)


def replace_prediction(run):
    """Return the run with a network that has the range of latents of a trained one, so that weights are compared."""
    run.coordinator.model.low.fill_(0)
    run.coordinator.model.high.fill_(0)
    return run


@pytest.mark.parametrize("message", ["gradients up", "gradients down"])
def test_without_a_message_it_is_another_training(message, together, monkeypatch):
    if message == "gradients up":
        whole = _SiloEnd.decoder_gradient
        monkeypatch.setattr(_SiloEnd, "decoder_gradient",
                            lambda self, *given: {"z": np.zeros_like(whole(self, *given)["z"])})
    else:
        whole = _SiloEnd.backward
        monkeypatch.setattr(_SiloEnd, "backward",
                            lambda self, told, step: whole(self, {"z": np.zeros_like(told["z"])}, step))
    assert furthest(together, e2e_distributed(silos(), CONFIG, progress=False)) > 1e-3


def test_four_messages_of_batch_times_width_floats_a_step(split):
    steps, batch = CONFIG.joint_training.steps, CONFIG.dm_batch
    log = [m for m in split.channel.log if m.kind != "latents"]
    assert len(log) == 4 * 2 * steps and split.rounds == steps
    for silo, width in (("silo 0", 2), ("silo 1", 1)):
        for kind, up in (("latents up", True), ("denoised down", False), ("gradients up", True),
                         ("gradients down", False)):
            ends = dict(sender=silo, receiver=COORDINATOR) if up else dict(sender=COORDINATOR, receiver=silo)
            sent = split.channel.nbytes(kind=kind, **ends)
            assert 0 < sent - 4 * batch * width * steps <= FRAMING * steps
    total = sum(m.nbytes for m in log)
    assert 0 < total - distributed_nbytes(batch, 3, steps) <= FRAMING * len(log)


def test_joint_training_in_one_place_sends_nothing(together):
    assert [m.kind for m in together.channel.log if m.kind != "latents"] == [] and together.rounds == 0


def test_latents_end_standardised_and_decoders_understand_them(together):
    for client in together.clients:
        with torch.no_grad():
            z = client.model.encode(client.codes, client.numbers)
        torch.testing.assert_close(z.mean(0), torch.zeros(client.width), atol=1e-4, rtol=0)
        torch.testing.assert_close(z.std(0, correction=0), torch.ones(client.width), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="uploads no set of latents"):
        together.latents


@pytest.mark.parametrize("method", [e2e, e2e_distributed])
def test_a_joint_run_survives_its_state(method, together, split):
    run = together if method is e2e else split
    again = silofuse.from_state(run.to_state(), silos(), run.config)
    assert again.method == run.method and again.channel.log == run.channel.log
    pd.testing.assert_frame_equal(again.sample(10, seed=0), run.sample(10, seed=0))


def test_joint_training_learns_columns_and_what_silos_have_in_common():
    config = replace(CONFIG, hidden=32, dm_width=64, dm_blocks=2, dm_batch=128, joint_steps=350, T=50, sample_steps=25,
                     dropout=0.0)
    run = e2e(silos(400), config, progress=False)
    fake = run.sample(400, seed=0)
    assert np.corrcoef(fake["height"], fake["score"])[0, 1] > 0.7
    assert (run.reconstruction()["score"] > 0.8).all()


@pytest.mark.parametrize(("changes", "message"), [
    (dict(variant="vae"), "plain autoencoders"), (dict(alternations=1), "set alternations=0"),
])
def test_what_has_no_joint_form_is_refused(changes, message):
    for method in (e2e, e2e_distributed):
        with pytest.raises(ValueError, match=message):
            method(silos(), replace(CONFIG, **changes), progress=False)


@pytest.mark.parametrize("method", [e2e, e2e_distributed])
def test_a_loss_that_is_not_finite_stops_at_its_step_and_names_silo_and_column(method, monkeypatch):
    true = silofuse_joint._decoding_loss
    steps = []

    def poisoned(client, z, rows, step):
        steps.append(step)
        if client.name == "silo 1" and step == 3:
            with torch.no_grad():
                client.model.decoder[-1].bias.fill_(math.nan)
        return true(client, z, rows, step)

    monkeypatch.setattr(silofuse_joint, "_decoding_loss", poisoned)
    column = silos()[1].frame.columns[0]
    with pytest.raises(FloatingPointError, match=rf"silo 1: the loss is not finite at step 3, in column '{column}'"):
        method(silos(), CONFIG, progress=False)
    assert max(steps) == 3
    with pytest.raises(FloatingPointError, match=r"not finite at step [2-4]\b"):
        method(silos(), replace(CONFIG, dm_lr=1e30), progress=False)
