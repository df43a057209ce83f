"""The private step against Opacus, on neighbouring data sets, its noise, and everything it must refuse."""

import copy
import math
import warnings

import pytest
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import nn

from feddiff.privacy.noise import GaussianNoise, SecureGaussianNoise
from feddiff.privacy.step import PrivateStep
from feddiff.seeds import torch_generator

C = 0.8


class Denoiser(nn.Module):
    """Linear, Embedding, LayerNorm with a shared hidden sum."""

    def __init__(self):
        super().__init__()
        self.inner, self.label, self.time = nn.Linear(6, 16), nn.Embedding(3, 16), nn.Linear(2, 16)
        self.norm, self.outer = nn.LayerNorm(16), nn.Linear(16, 6)

    def forward(self, x):
        hidden = self.inner(x) + self.time(x[:, :2]) + self.label((x[:, 0] > 0).long())
        return self.outer(nn.functional.silu(self.norm(hidden)))


def conv_net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.Conv2d(8, 32, 3, stride=4, groups=2),
        nn.SiLU(),
        nn.Conv2d(32, 32, 2),
    )


def seeded(model, seed=0):
    generator = torch_generator(seed, "parameters")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return model


def batch(*shape, seed=1):
    return torch.randn(*shape, generator=torch_generator(seed, "x"))


def step_on(model, noise=None, **options):
    settings = {"clip_norm": C, "noise_multiplier": 0.0, "expected_batch": 1.0} | options
    return PrivateStep(model, noise=noise or GaussianNoise(torch_generator(0, "noise")), **settings)


def losses_of(model, x):
    return model(x).flatten(1).square().mean(1)


def flat_gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


CASES = {
    "denoiser": (Denoiser, (32, 6)),
    "inner dimension": (lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 2)), (8, 5, 6)),
    "images": (conv_net, (8, 1, 10, 10)),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_opacus_to_float32_precision(case):
    build, shape = CASES[case]
    model, x = seeded(build()), batch(*shape)
    theirs = GradSampleModule(copy.deepcopy(model), loss_reduction="sum")
    optimiser = DPOptimizer(
        torch.optim.SGD(theirs.parameters(), lr=0.0),
        noise_multiplier=0.0,
        max_grad_norm=C,
        expected_batch_size=20,
        loss_reduction="sum",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "full backward hook is firing when gradients are not computed"
        losses_of(theirs, x).sum().backward()
    norms = torch.stack([p.grad_sample.flatten(1).norm(dim=1) for p in theirs.parameters()]).norm(dim=0)
    optimiser.pre_step()
    # with a summed loss Opacus leaves the division to the caller
    expected = torch.cat([p.grad.flatten() for p in theirs.parameters()]) / 20
    report = step_on(model, expected_batch=20).gradient(lambda part: losses_of(model, x[part]), len(x))
    assert torch.allclose(report.norms, norms, rtol=2e-5, atol=0)
    assert 0 < report.clipped_fraction == (norms > C).float().mean().item()
    assert (flat_gradient(model) - expected).norm() <= 5e-6 * expected.norm()


def neighbours(clipping, model, x, loss):
    sums = []
    for rows in (len(x), len(x) - 1):
        with step_on(model, clipping=clipping) as step:
            step.gradient(lambda part, rows=rows: loss(model, x[:rows][part]), rows)
            sums.append(flat_gradient(model).double().clone())
    return (sums[0] - sums[1]).norm().item()


@pytest.mark.parametrize("clipping", ["flat", "per-layer"])
@pytest.mark.parametrize("case", CASES)
def test_one_adversarial_record_moves_the_sum_by_at_most_the_clip_norm(case, clipping):
    build, shape = CASES[case]
    model, x = seeded(build()), batch(*shape)
    for factor in (1e4, -1e4, 1.0):
        x[-1] = batch(*shape[1:], seed=7) * factor
        assert neighbours(clipping, model, x, losses_of) <= C * (1 + 1e-5)
    assert neighbours(clipping, model, x, lambda m, rows: losses_of(m, rows) * 1e4) > 0.5 * C


def test_a_record_whose_draws_nearly_cancel_is_still_clipped():
    """Two draws with opposite gradients of size 1e4 C: float32 Gram sums would lose the remainder entirely."""
    model = nn.Linear(64, 64, bias=False)
    x = batch(2, 64)
    x[1] = x[0] + 1e-5 * batch(64, seed=3)
    sign = torch.tensor([1.0, -1.0]).unsqueeze(1)
    target = batch(2, 64, seed=4)[:1] * 3e5
    with step_on(model, clip_norm=1.0) as step:
        report = step.gradient(lambda part: (model(x) * target * sign).sum().reshape(1), 1)
        true = (target.double() * sign).T @ x.double()
        assert true.norm() > 1.0
        assert report.norms.item() == pytest.approx(true.norm().item(), rel=1e-4)
        assert flat_gradient(model).norm() <= 1.0 + 1e-2


@pytest.mark.parametrize("noise", ["seeded", "secure"])
@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_the_noise_has_standard_deviation_sigma_times_clip_norm(noise, sigma):
    model, x = seeded(nn.Sequential(nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 2))), batch(16, 200)
    step_on(model, expected_batch=10.0).gradient(lambda part: losses_of(model, x[part]), 16)
    signal = flat_gradient(model).clone()
    source = GaussianNoise(torch_generator(1, "noise")) if noise == "seeded" else SecureGaussianNoise()
    step = step_on(model, source, noise_multiplier=sigma, expected_batch=10.0)
    seen = []
    for _ in range(2):
        step.gradient(lambda part: losses_of(model, x[part]), 16)
        seen.append((flat_gradient(model) - signal) * 10.0)
        width = 5.0 / math.sqrt(2 * len(signal))
        assert seen[-1].std().item() == pytest.approx(sigma * C, rel=width)
        assert abs(seen[-1].mean().item()) < 5 * sigma * C / math.sqrt(len(signal))
        for parameter in model.parameters():
            own = parameter.numel()
            if own > 1000:
                part = (parameter.grad * 10.0).std().item()
                assert part == pytest.approx(sigma * C, rel=0.1)
    correlation = torch.corrcoef(torch.stack(seen))[0, 1].item()
    assert abs(correlation) < 5 / math.sqrt(len(signal)), "the noise must be drawn anew at every step"


def test_the_same_seed_gives_the_same_update_and_the_divisor_is_public():
    x = batch(16, 6)
    found = []
    for divisor in (8.0, 8.0, 16.0):
        model = seeded(Denoiser())
        noise = GaussianNoise(torch_generator(3, "noise"))
        step = step_on(model, noise, noise_multiplier=1.0, expected_batch=divisor)
        step.gradient(lambda part, model=model: losses_of(model, x[part]), 16)
        found.append(flat_gradient(model))
    assert torch.equal(found[0], found[1])
    assert torch.allclose(found[0], 2 * found[2], rtol=1e-5, atol=1e-8)


def test_microbatches_share_one_noise():
    x, found = batch(16, 6), []
    for microbatch in (None, 5):
        model = seeded(Denoiser())
        step = step_on(model, noise_multiplier=1.0, microbatch=microbatch)
        step.gradient(lambda part, model=model: losses_of(model, x[part]), 16)
        found.append(flat_gradient(model))
    assert torch.allclose(*found, rtol=1e-5, atol=1e-6)


def test_a_record_without_gradient_leaves_no_trace():
    """A divisor that counts records would tell neighbours apart (meta-pytorch/opacus#571)."""
    x, weights, found = batch(9, 6), torch.ones(9), []
    weights[8] = 0.0
    for rows in (8, 9):
        model = seeded(Denoiser())
        step_on(model, noise_multiplier=1.0, expected_batch=4).gradient(
            lambda part, model=model: losses_of(model, x[part]) * weights[part], rows
        )
        found.append(flat_gradient(model))
    assert torch.allclose(*found, rtol=1e-5, atol=1e-6)


def test_a_parameter_that_the_loss_never_reaches_still_gets_noise():
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "idle": nn.Linear(50, 50), "after": nn.Linear(3, 60)})
    x = batch(5, 4)
    step = step_on(model, noise_multiplier=2.0)

    def loss(part):
        hidden = model["used"](x[part])
        model["after"](hidden)
        return hidden.square().sum(1)

    step.gradient(loss, 5)
    assert model["idle"].weight.grad.std().item() == pytest.approx(2 * C, rel=0.1)
    assert model["after"].weight.grad.std().item() == pytest.approx(2 * C, rel=0.25)


def test_optimisers_apply_the_gradient_and_zero_grad_does_no_harm():
    model, x = seeded(Denoiser()), batch(16, 6)
    step = step_on(model, expected_batch=16)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2, fused=True)
    first = None
    for _ in range(60):
        optimiser.zero_grad()
        report = step.gradient(lambda part: losses_of(model, x[part]), 16)
        optimiser.step()
        first = report.losses.mean() if first is None else first
    assert report.losses.mean() < 0.7 * first
    assert not report.losses.requires_grad and not report.norms.requires_grad


def test_no_hook_is_left_and_steps_do_not_disturb_each_other():
    model, x = seeded(Denoiser()), batch(8, 6)

    def hooks():
        return sum(len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in model.modules())

    first, second = step_on(model), step_on(model, clip_norm=0.1)
    first.gradient(lambda part: losses_of(model, x[part]), 8)
    expected = flat_gradient(model).clone()
    second.gradient(lambda part: losses_of(model, x[part]), 8)
    assert flat_gradient(model).norm() <= 8 * 0.1 + 1e-6
    first.close()
    assert all(p.grad is not None for p in model.parameters()), "closing one step keeps another's gradients"
    with pytest.raises(ValueError, match="layer|not finite"):
        second.gradient(lambda part: losses_of(model, x[part] * float("nan")), 8)
    assert hooks() == 0
    with step_on(model) as third:
        third.gradient(lambda part: losses_of(model, x[part]), 8)
        assert torch.equal(flat_gradient(model), expected)
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="closed"):
        third.gradient(lambda part: losses_of(model, x[part]), 8)
    copy.deepcopy(model)


class Tied(nn.Module):
    """Uses the weight of one layer a second time, past the layer."""

    def __init__(self, through_layer, through_function):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.through_layer, self.through_function = through_layer, through_function

    def forward(self, x):
        if self.through_layer:
            x = self.layer(x)
        if self.through_function:
            x = nn.functional.linear(x, self.layer.weight)
        return x


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(self.layer(x))


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(x * self.scale)


class OwnLinear(nn.Linear):
    def forward(self, x):
        return super().forward(x) + x @ self.weight


def shared_weights():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    return model


REFUSED = {
    "batch norm": (lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)), r"'1' \(BatchNorm1d\).*GroupNorm"),
    "batch norm without weights": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, affine=False)),
        r"'1' \(BatchNorm1d\).*GroupNorm",
    ),
    "running statistics": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 1), nn.InstanceNorm2d(2, track_running_stats=True)),
        r"'1' \(InstanceNorm2d\).*GroupNorm",
    ),
    "lstm": (lambda: nn.Sequential(nn.LSTM(6, 6)), r"'0' \(LSTM\).*MLP"),
    "attention": (
        lambda: nn.TransformerEncoderLayer(8, 2, 8),
        r"'self_attn' \(MultiheadAttention\).*query, key, value",
    ),
    "bare parameter": (Bare, r"\(the model itself\).*Bare.*requires_grad_\(False\)"),
    "subclass": (lambda: nn.Sequential(OwnLinear(6, 6)), r"'0' \(OwnLinear\)"),
    "shared weights": (shared_weights, r"'1' \(Linear\) shares a parameter with '0' \(Linear\)"),
    "max_norm": (lambda: nn.Sequential(nn.Embedding(3, 4, max_norm=1.0)), r"'0' \(Embedding\).*max_norm"),
    "frequency": (lambda: nn.Sequential(nn.Embedding(3, 4, scale_grad_by_freq=True)), r"scale_grad_by_freq"),
    "sparse": (lambda: nn.Sequential(nn.Embedding(3, 4, sparse=True)), r"sparse=False"),
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(1, 1, 2)), r"'0' \(ConvTranspose2d\)"),
    "half precision": (lambda: nn.Linear(3, 3).bfloat16(), r"float32.*bfloat16"),
    "mixed precision": (lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3).double()), r"float32.*float64"),
    "nothing to train": (lambda: nn.Linear(3, 3).requires_grad_(False), r"no trainable parameter"),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)), r"parametrizations"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_layers_it_cannot_handle_are_refused_by_name_with_the_way_out(case):
    build, message = REFUSED[case]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        step_on(build())


def test_every_problem_is_named_at_once_and_frozen_layers_are_none():
    model = nn.Sequential(nn.LSTM(6, 6), nn.Linear(6, 6), nn.ConvTranspose1d(6, 6, 2))
    with pytest.raises(ValueError, match="(?s)'0' .LSTM.*'2' .ConvTranspose1d"):
        step_on(model)
    model[0].requires_grad_(False)
    model[2].requires_grad_(False)
    step_on(model)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Twice, r"'layer' \(Linear\) is used twice"),
        (lambda: Tied(True, True), r"'layer' \(Linear\) is used outside that layer's forward"),
        (lambda: Tied(False, True), r"'layer' \(Linear\) is used outside that layer's forward"),
    ],
)
def test_a_second_use_of_a_layer_is_refused_in_the_forward_pass(build, message):
    model, x = build(), batch(4, 6)
    with pytest.raises(ValueError, match=message):
        step_on(model).gradient(lambda part: losses_of(model, x[part]), 4)


def test_a_first_pass_without_gradients_is_not_a_use():
    model, x = seeded(Denoiser()), batch(4, 6)

    def loss(part):
        with torch.no_grad():
            guess = model(x[part])
        return losses_of(model, x[part] + guess)

    assert step_on(model).gradient(loss, 4).norms.shape == (4,)


def test_activations_overwritten_in_place_are_refused_where_they_would_mislead():
    model, x = nn.Linear(6, 6), batch(4, 6)

    def overwrite_input(part):
        rows = x[part].clone()
        out = model(rows)
        rows.zero_()
        return out.square().sum(1)

    with pytest.raises(ValueError, match="input of layer .* overwritten in place"):
        step_on(model).gradient(overwrite_input, 4)


@pytest.mark.parametrize("rows", [(4, 6), (4, 3, 6)])
def test_outputs_overwritten_in_place_are_clipped_by_the_gradient_before_the_overwriting(rows):
    model, x = seeded(nn.Linear(6, 6)), batch(*rows)
    found = []
    for activation in (torch.relu, torch.relu_, lambda out: out.clamp_(min=0)):
        report = step_on(model).gradient(
            lambda part, activation=activation: activation(model(x[part])).flatten(1).square().sum(1), 4
        )
        found.append((flat_gradient(model).clone(), report.norms))
    for gradient, norms in found[1:]:
        assert torch.allclose(gradient, found[0][0]) and torch.allclose(norms, found[0][1])


def test_autocast_is_refused_outside_and_inside_the_loss():
    model, x = seeded(Denoiser()), batch(4, 6)
    step = step_on(model)
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="autocast"):
        step.gradient(lambda part: losses_of(model, x[part]), 4)

    def loss(part):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return losses_of(model, x[part]).float()

    with pytest.raises(ValueError, match="autocast"):
        step.gradient(loss, 4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_record(bad):
    model, x = seeded(Denoiser()), batch(6, 6)
    weights = torch.ones(6)
    weights[4] = bad
    for microbatch in (None, 2):
        with pytest.raises(ValueError, match="loss of record 4 .* not finite"):
            step_on(model, microbatch=microbatch).gradient(lambda part: losses_of(model, x[part]) * weights[part], 6)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda model, x: losses_of(model, x).mean(), "one loss per record"),
        (lambda model, x: losses_of(model, x).unsqueeze(1), "one loss per record"),
        (lambda model, x: losses_of(model, x).detach(), "do not depend on a trainable parameter"),
        (lambda model, x: x.clone().requires_grad_().sum(1), "do not depend on a trainable parameter"),
        (lambda model, x: losses_of(model, x[:1]).expand(len(x)), "records \\* draws in record-major order"),
    ],
)
def test_losses_of_the_wrong_form_are_refused(loss, message):
    model, x = seeded(Denoiser()), batch(4, 6)
    with pytest.raises(ValueError, match=message):
        step_on(model).gradient(lambda part: loss(model, x[part]), 4)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"clip_norm": float("nan")}, "clip_norm"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"noise_multiplier": math.inf}, "noise_multiplier"),
        ({"noise_multiplier": 1.0, "clip_norm": math.inf}, "finite clip_norm"),
        ({"expected_batch": 0.0}, "expected_batch"),
        ({"clipping": "batch"}, "clipping"),
        ({"microbatch": 0}, "microbatch"),
    ],
)
def test_numbers_out_of_range_are_named(options, name):
    with pytest.raises(ValueError, match=name):
        step_on(Denoiser(), **options)


def test_other_bad_arguments_are_named():
    with pytest.raises(TypeError, match="noise must be"):
        step_on(Denoiser(), noise=torch_generator(0, "noise"))
    with pytest.raises(TypeError, match="torch_generator"):
        GaussianNoise(7)
    for records in (-1, 2.0, True):
        with pytest.raises(ValueError, match="records"):
            step_on(Denoiser()).gradient(lambda part: None, records)


@pytest.mark.gpu
def test_the_step_on_a_gpu_equals_the_step_on_the_cpu():
    for build, shape in CASES.values():
        model, x = seeded(build()).double(), batch(*shape).double()
        step_on(model).gradient(lambda part, model=model, x=x: losses_of(model, x[part]), len(x))
        expected = flat_gradient(model).clone()
        model, x = copy.deepcopy(model).cuda(), x.cuda()
        step_on(model).gradient(lambda part, model=model, x=x: losses_of(model, x[part]), len(x))
        assert torch.allclose(flat_gradient(model).cpu(), expected, rtol=1e-9, atol=1e-11)
