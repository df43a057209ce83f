"""Switches that copy the authors' code: frozen condition, torch's default output layer."""

import pandas as pd
import pytest
import torch

from feddiff.data.partitions import iid
from feddiff.data.tables import Table
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
