"""The analytic step equals one-record-at-a-time clipping, for every layer kind, shape and number of draws."""

import math

import pytest
import torch
from torch import nn

from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import torch_generator

C = 0.7
RECORDS = 5


class Labelled(nn.Module):
    """An MLP with a label embedding and a time branch that meet by addition, as the denoisers of this project."""

    def __init__(self, padding_idx=None, per_record_label=False):
        super().__init__()
        self.inner = nn.Linear(4, 7)
        self.label = nn.Embedding(3, 7, padding_idx=padding_idx)
        self.time = nn.Sequential(nn.Linear(2, 6, bias=False), nn.SiLU(), nn.Linear(6, 7))
        self.outer = nn.Linear(7, 3)
        self.per_record_label = per_record_label

    def forward(self, x):
        label = self.label((x[..., 0] > 0).long() + (x[..., 1] > 0).long())
        hidden = self.inner(x) + self.time(x[..., :2]) + label
        return self.outer(hidden + nn.functional.silu(hidden))


class Tokens(nn.Module):
    """Several looked-up entries per record, some of them equal, then a Linear over an inner dimension."""

    def __init__(self, rows=5):
        super().__init__()
        self.table = nn.Embedding(4, 6, padding_idx=1)
        self.inner = nn.Linear(6, 5)
        self.rows = rows

    def forward(self, x):
        tokens = (x[..., :1] * 10).long().abs() % 4
        tokens = (tokens + torch.arange(self.rows) // 2) % 4
        return self.inner(self.table(tokens)).tanh().sum(-2)


def mlp():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 3))


def wide_rows():
    return nn.Sequential(nn.Unflatten(-1, (2, 2)), nn.Linear(2, 3), nn.Tanh(), nn.Flatten(-2), nn.Linear(6, 2))


CONVOLUTIONS = {
    "conv": lambda: nn.Conv2d(2, 3, 3),
    "conv padded": lambda: nn.Conv2d(2, 3, 3, padding=1, bias=False),
    "conv strided": lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1),
    "conv grouped": lambda: nn.Conv2d(2, 6, 3, groups=2, padding=(1, 0)),
    "conv depthwise": lambda: nn.Conv2d(2, 2, (3, 2), groups=2, stride=(2, 1)),
    "conv dilated": lambda: nn.Conv2d(2, 3, 2, dilation=2),
    "conv pointwise": lambda: nn.Conv2d(2, 5, 1),
    "conv same": lambda: nn.Conv2d(2, 3, 4, padding="same"),
    "conv valid": lambda: nn.Conv2d(2, 3, 2, padding="valid"),
    "conv circular": lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
    "conv reflect": lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"),
}


def small_unet():
    """Norms, activations in place, down- and up-sampling; the last layers have few positions and many channels."""
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.GroupNorm(4, 8),
        nn.SiLU(inplace=True),
        nn.Conv2d(8, 40, 3, stride=4, padding=1, groups=2),
        nn.GroupNorm(2, 40),
        nn.SiLU(),
        nn.Conv2d(40, 40, 3, padding=1),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(40, 2, 1),
    )


MODELS = {
    "mlp": mlp,
    "no bias": lambda: nn.Sequential(nn.Linear(4, 6, bias=False), nn.SiLU(), nn.Linear(6, 3)),
    "inner dimension": wide_rows,
    "inner dimension, Gram": lambda: nn.Sequential(nn.Unflatten(-1, (2, 2)), nn.Linear(2, 64), nn.Linear(64, 64)),
    "labels and time": Labelled,
    "labels with padding": lambda: Labelled(padding_idx=1),
    "tokens": Tokens,
    "layer norm": lambda: nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.LayerNorm(6, bias=False)),
    "layer norm over two dimensions": lambda: nn.Sequential(nn.Unflatten(-1, (2, 2)), nn.LayerNorm((2, 2), eps=0.1)),
    "layer norm with an inner dimension": lambda: nn.Sequential(nn.Unflatten(-1, (2, 2)), nn.LayerNorm(2, eps=0.5)),
    "group norm": lambda: nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(3, 6), nn.Linear(6, 2)),
    "group norm over images": lambda: nn.GroupNorm(1, 2),
    "u-net": small_unet,
} | {name: (lambda first=first: nn.Sequential(first(), nn.Tanh())) for name, first in CONVOLUTIONS.items()}
IMAGES = {"group norm over images", "u-net", *CONVOLUTIONS}


def build(name, seed=0):
    """Return the named model in float64 with parameters from `seed`."""
    model = MODELS[name]().double()
    generator = torch_generator(seed, "parameters")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5)
    return model


def inputs(name, draws, records=RECORDS, seed=1):
    shape = (2, 5, 6) if name in IMAGES else (4,)
    return torch.randn(records * draws, *shape, generator=torch_generator(seed, "x"), dtype=torch.float64) * 2


def losses_of(model, x, draws, weights=None):
    """Return per-record losses: the mean over a record's draws, times the record's weight."""
    values = model(x).flatten(1).square().sum(1).reshape(-1, draws).mean(1)
    return values if weights is None else values * weights


def layers_of(model):
    return [m for m in model.modules() if any(p.requires_grad for p in m.parameters(recurse=False))]


def naive(model, x, draws, clipping="flat", clip_norm=C, weights=None):
    """Return clipped sum by parameter and the norms, from one ordinary backward pass per record."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    layers = layers_of(model)
    sums, norms = [torch.zeros_like(p) for p in parameters], []
    for record in range(len(x) // draws):
        rows = slice(record * draws, (record + 1) * draws)
        loss = losses_of(model, x[rows], draws, None if weights is None else weights[record : record + 1])
        grads = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
        grads = {id(p): torch.zeros_like(p) if g is None else g for p, g in zip(parameters, grads, strict=True)}
        norms.append(math.sqrt(sum(g.square().sum().item() for g in grads.values())))
        for layer in layers:
            own = [id(p) for p in layer.parameters(recurse=False) if p.requires_grad]
            norm = norms[-1] if clipping == "flat" else math.sqrt(sum(grads[k].square().sum().item() for k in own))
            bound = clip_norm if clipping == "flat" else clip_norm / math.sqrt(len(layers))
            for key in own:
                grads[key] = grads[key] * (min(1.0, bound / norm) if norm > 0 else 1.0)
        for total, parameter in zip(sums, parameters, strict=True):
            total += grads[id(parameter)]
    return sums, norms


def private(model, x, draws, weights=None, records=RECORDS, divisor=4.0, **options):
    """Return the gradient of a noiseless step times its divisor, by parameter, and the report."""
    settings = {"clip_norm": C, "noise_multiplier": 0.0, "expected_batch": divisor} | options
    with PrivateStep(model, noise=GaussianNoise(torch_generator(0, "noise")), **settings) as step:

        def loss(part):
            rows = slice(part.start * draws, part.stop * draws)
            return losses_of(model, x[rows], draws, None if weights is None else weights[part])

        report = step.gradient(loss, records)
        return [p.grad * divisor for p in model.parameters() if p.requires_grad], report


def assert_equal(found, expected, tolerance=1e-12):
    for a, b in zip(found, expected, strict=True):
        assert torch.isfinite(a).all()
        assert (a - b).abs().max() <= tolerance * max(1.0, b.abs().max().item())


@pytest.mark.parametrize("clipping", ["flat", "per-layer"])
@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_equals_one_record_at_a_time(name, draws, clipping):
    model, x = build(name), inputs(name, draws)
    expected, norms = naive(model, x, draws, clipping)
    found, report = private(model, x, draws, clipping=clipping)
    assert_equal(found, expected)
    assert report.norms.tolist() == pytest.approx(norms, rel=1e-12)
    assert max(norms) > C, "the case must clip something"


@pytest.mark.parametrize("name", MODELS)
def test_records_of_zero_gradient_add_nothing_and_break_nothing(name):
    model, x = build(name), inputs(name, 1)
    weights = torch.tensor([1.0, 0.0, 0.01, 0.0, 1.0], dtype=torch.float64)
    expected, norms = naive(model, x, 1, weights=weights)
    found, report = private(model, x, 1, weights=weights)
    assert_equal(found, expected)
    assert report.norms[1] == 0 and report.norms[3] == 0
    assert report.clipped_fraction == sum(n > C for n in norms) / RECORDS
    only_zero, _ = private(model, x, 1, weights=torch.zeros(RECORDS, dtype=torch.float64), clipping="per-layer")
    assert all((g == 0).all() for g in only_zero)


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_without_bound_and_noise_it_is_the_ordinary_mean_gradient(name, draws):
    model, x = build(name), inputs(name, draws)
    losses_of(model, x, draws).mean().backward()
    expected = [p.grad.clone() * RECORDS for p in model.parameters()]
    found, report = private(model, x, draws, clip_norm=math.inf, divisor=float(RECORDS))
    assert_equal(found, expected)
    assert report.clipped_fraction == 0


@pytest.mark.parametrize("clipping", ["flat", "per-layer"])
@pytest.mark.parametrize("name", MODELS)
def test_microbatches_do_not_change_the_update(name, clipping):
    model, x = build(name), inputs(name, 3)
    whole, report = private(model, x, 3, clipping=clipping)
    for size in (1, 2, 5, 9):
        parts, again = private(model, x, 3, clipping=clipping, microbatch=size)
        assert_equal(parts, whole)
        assert torch.allclose(again.norms, report.norms, rtol=1e-12, atol=0)
        assert torch.allclose(again.losses, report.losses, rtol=1e-12, atol=0)
        assert again.clipped_fraction == report.clipped_fraction


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize("name", MODELS)
def test_frozen_parameters_are_left_alone_and_do_not_count(name, frozen):
    model, x = build(name), inputs(name, 3)
    first = layers_of(model)[0]
    if getattr(first, "bias", None) is None:
        frozen = "weight"
    getattr(first, frozen).requires_grad_(False)
    if not layers_of(model):
        with pytest.raises(ValueError, match="no trainable parameter"):
            private(model, x, 3)
        return
    expected, norms = naive(model, x, 3)
    found, report = private(model, x, 3)
    assert_equal(found, expected)
    assert report.norms.tolist() == pytest.approx(norms, rel=1e-12)
    assert getattr(first, frozen).grad is None


@pytest.mark.parametrize("draws", [1, 3])
@pytest.mark.parametrize("name", ["tokens", "inner dimension, Gram", "u-net", "conv grouped"])
def test_bounded_memory_does_not_change_the_sum(name, draws, monkeypatch):
    monkeypatch.setattr("feddiff.privacy.clipping._CHUNK", 1)
    monkeypatch.setattr("feddiff.privacy.clipping_conv._KEEP", 0)
    model, x = build(name), inputs(name, draws)
    expected, norms = naive(model, x, draws)
    found, report = private(model, x, draws)
    assert_equal(found, expected)
    assert report.norms.tolist() == pytest.approx(norms, rel=1e-12)


@pytest.mark.parametrize("name", ["u-net", "conv"])
def test_channels_last_weights_get_gradients_in_their_own_layout(name):
    model, x = build(name), inputs(name, 1)
    expected, _ = naive(model, x, 1)
    model = model.to(memory_format=torch.channels_last)
    found, _ = private(model, x.to(memory_format=torch.channels_last), 1)
    assert_equal(found, expected)
    assert all(p.grad is None for p in model.parameters())
    with PrivateStep(
        model, clip_norm=C, noise_multiplier=0, expected_batch=1, noise=GaussianNoise(torch_generator(0, "n"))
    ) as step:
        step.gradient(lambda part: losses_of(model, x[part], 1), RECORDS)
        assert all(p.grad.stride() == p.stride() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_an_empty_batch_gives_noise_alone(name):
    model = build(name)
    found, report = private(model, None, 1, records=0, noise_multiplier=2.0)
    flat = torch.cat([g.flatten() for g in found])
    assert report.losses.shape == report.norms.shape == (0,) and report.clipped_fraction == 0
    assert flat.abs().min() > 0 and flat.std() == pytest.approx(2.0 * C, rel=5 / math.sqrt(2 * len(flat)))
    silent, _ = private(model, None, 1, records=0)
    assert all((g == 0).all() for g in silent)
