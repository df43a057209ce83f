"""Switches that copy the authors' code: frozen condition, torch's default output layer, moving law of timesteps."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from feddiff.data.partitions import iid
from feddiff.data.tables import Table
from feddiff.diffusion import timesteps
from feddiff.diffusion.denoisers import MLPDenoiser
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems import findiff

SMALL = dict(T=30, R=2, S=2, B=32, hidden=(16, 16))


@pytest.fixture(scope="module")
def members():
    g = numpy_generator(0, "table")
    frame = pd.DataFrame({"x": g.normal(size=200), "c": g.choice(["a", "b"], 200), "y": g.choice(["no", "yes"], 200)})
    kinds = dict(x="numeric", c="categorical", y="categorical")
    whole = Table(frame, "y", kinds, name="toy", source="file", sha256="0" * 64)
    return [whole.select(part) for part in iid(200, 2, numpy_generator(0, "partition"))]


@pytest.mark.parametrize("epsilon", [None, 5.0])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("conditioning", ["added", "concatenated"])
def test_a_frozen_condition_stays_as_drawn_and_the_rest_learns(members, epsilon, frozen, conditioning):
    config = findiff.paper(epsilon=epsilon, conditioning=conditioning, freeze_condition=frozen, **SMALL)
    run = findiff.train(members, config, progress=False)
    start = findiff._model(run.config, run.prepared)[1]
    for (name, p), q in zip(run._trained().named_parameters(), start.parameters()):
        kept = frozen and name.split(".")[0] in ("label", "time")
        assert torch.equal(p, q) == kept, name


def test_freezing_what_is_not_there_is_refused():
    with pytest.raises(ValueError, match="freeze_condition needs conditioning"):
        findiff.ours(freeze_condition=True)


def test_the_output_layer_has_the_law_asked_for():
    def largest(**options):
        network = MLPDenoiser(4, 8, hidden=(64,), classes=2, generator=torch_generator(0, "init"), **options)
        return float(network.output.weight.detach().abs().max()), float(network.output.bias.detach().abs().max())

    assert largest() == (0, 0)
    weight, bias = largest(zero_output=False)
    assert weight == pytest.approx((6 / 72) ** 0.5, rel=0.05) and bias == 0
    weight, bias = largest(zero_output=False, uniform_output=True)
    assert weight == pytest.approx(1 / 8, rel=0.05) and 0 < bias <= 1 / 8


# Norms of the weights before there was a choice of timesteps (K = 2 draws a record).
BEFORE = {
    ("ours", None): 3.3195814412162323, ("ours", 5.0): 3.3170577905062246,
    ("paper", None): 15.925120320996438, ("paper", 5.0): 15.925929985957136,
}


@pytest.mark.parametrize("recipe, epsilon", BEFORE)
def test_uniform_timesteps_give_the_numbers_from_before_the_option(members, recipe, epsilon):
    config = getattr(findiff, recipe)(epsilon=epsilon, K=2, **SMALL)
    assert config.timesteps == "uniform"
    weights = findiff.train(members, config, progress=False).federation.weights().double()
    assert float(weights.norm()) == pytest.approx(BEFORE[recipe, epsilon], rel=1e-7)
    other = findiff.train(members, replace(config, timesteps="adaptive"), progress=False).federation.weights()
    assert float(other.double().norm()) != pytest.approx(BEFORE[recipe, epsilon], rel=1e-7)


def _seen(run_on, config, monkeypatch):
    """Return the run and the (rows, law's progress, t) of every draw."""
    seen, draw = [], timesteps.draw

    def watch(law, T, shape, progress, generator):
        t = draw(law, T, shape, progress, generator)
        seen.append((shape, progress, t))
        return t

    with monkeypatch.context() as patch:
        patch.setattr(timesteps, "draw", watch)
        return findiff.train(run_on, config, progress=False), seen


def test_adaptive_timesteps_depend_on_the_step_alone_and_cost_no_epsilon(members, monkeypatch):
    config = findiff.paper(epsilon=5.0, timesteps="adaptive", **SMALL | dict(R=3))
    run, seen = _seen(members, config, monkeypatch)
    assert [progress for _, progress, _ in seen] == [step / 6 for step in (0, 1, 0, 1, 2, 3, 2, 3, 4, 5, 4, 5)]
    turned = [replace(table, frame=table.frame.assign(x=-table.frame["x"] ** 3, c=table.frame["c"][::-1].to_numpy(),
                                                      y=table.frame["y"][::-1].to_numpy())) for table in members]
    other, again = _seen(turned, config, monkeypatch)
    assert not torch.equal(run.federation.weights(), other.federation.weights())
    assert all(torch.equal(a[2], b[2]) for a, b in zip(seen, again, strict=True)), "t saw the rows"
    uniform = findiff.train(members, replace(config, timesteps="uniform"), progress=False)
    assert run.privacy == uniform.privacy == other.privacy and 4.9 < run.privacy["epsilon"] <= 5.0
    assert run.prepared.noise_multipliers == uniform.prepared.noise_multipliers


def test_a_resumed_run_goes_on_with_the_law_of_its_step(members):
    config = findiff.paper(epsilon=5.0, timesteps="adaptive", **SMALL | dict(R=4))
    whole = findiff.train(members, config, progress=False)
    half, rest = (findiff._untrained(members, config, None) for _ in range(2))
    half.federation.run(half.prepared.participation[:2], config.S, progress=False)
    rest.federation.load(half.federation.state())
    rest.federation.run(rest.prepared.participation, config.S, progress=False)
    assert torch.equal(whole.federation.weights(), rest.federation.weights())
