"""The U-Net: its sizes, what its output depends on, where its weights come from, and what it refuses."""

import copy

import pytest
import torch
from torch import nn

from feddiff.diffusion.schedules import cosine, linear
from feddiff.diffusion.unet import SIZES, UNet, unet
from feddiff.diffusion.unet_blocks import Attention, Dropout, ResidualBlock, Upsample, conv_layer
from feddiff.seeds import torch_generator

SCHEDULE = linear(50, scale_betas=True)
SHAPES = {
    "level": {},
    "all": dict(skips="all", blocks=2),
    "patches": dict(patch=2),
    "attention": dict(attention=(4,), skips="all"),
    "flag": dict(flag=True),
    "three levels": dict(widths=(8, 8, 16)),
    "no input skip": dict(input_skip=False),
    "shift only": dict(modulation="shift"),
}


def network(seed=0, channels=1, size=8, classes=4, **options):
    options = {"widths": (8, 16), "groups": 4, "condition_dim": 12} | options
    return UNet(channels, size, classes=classes, schedule=SCHEDULE, generator=torch_generator(seed, "init"), **options)


def awake(model, seed=1):
    """Give every parameter a random value: layers that start at zero hide what lies behind them."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=torch_generator(seed, "weights", p.numel())) * 0.3)
    return model


def inputs(n=3, channels=1, size=8, flag=False):
    g = torch_generator(0, "inputs")
    x, t = torch.randn(n, channels, size, size, generator=g), torch.randint(50, (n,), generator=g)
    given = (x, t, torch.arange(n) % 4)
    return (*given, torch.arange(n) % 2 == 0) if flag else given


def parameters_of(model):
    return sum(p.numel() for p in model.parameters())


def test_ddpm_size_has_the_published_number_of_parameters():
    model = unet("ddpm", channels=3, size=32, classes=10, schedule=SCHEDULE, generator=torch_generator(0, "init"))
    # 35,746,307 is the unconditional network of Ho et al. (2020) for CIFAR-10; ours has a label table beside it.
    assert parameters_of(model) - model.label.weight.numel() == 35_746_307


@pytest.mark.parametrize(
    ("name", "size", "least", "most"),
    [("tiny", 16, 0.15e6, 0.25e6), ("patch", 16, 0.45e6, 0.6e6), ("mnist", 28, 5e6, 7e6)],
)
def test_named_sizes_have_the_parameters_that_they_promise(name, size, least, most):
    model = unet(name, channels=1, size=size, classes=10, schedule=SCHEDULE, generator=torch_generator(0, "init"))
    assert least < parameters_of(model) < most
    with pytest.raises(ValueError, match="multiple of"):
        unet(name, channels=1, size=9, classes=10, schedule=SCHEDULE, generator=torch_generator(0, "init"))


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'huge'.*tiny, patch, mnist, ddpm"):
        unet("huge", channels=1, size=8, classes=2, schedule=SCHEDULE, generator=torch_generator(0, "init"))
    assert list(SIZES) == ["tiny", "patch", "mnist", "ddpm"]


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_output_has_the_shape_of_the_input_and_needs_every_argument(options, channels):
    model = awake(network(channels=channels, **options))
    given = inputs(channels=channels, flag="flag" in options)
    out = model(*given)
    assert out.shape == given[0].shape and out.dtype == given[0].dtype
    for i in range(len(given)):
        changed = list(given)
        changed[i] = [given[0] + 1, (given[1] + 20) % 50, (given[2] + 1) % 4, ~given[3] if len(given) > 3 else None][i]
        difference = (model(*changed) - out).abs().flatten(1).amax(1)
        assert (difference > 1e-6).all(), f"argument {i} does not reach the output"


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_every_parameter_has_a_part_in_the_output(options):
    model = awake(network(**options))
    model(*inputs(n=8, flag="flag" in options)).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert silent == []


@pytest.mark.parametrize("options", SHAPES.values(), ids=SHAPES)
def test_a_record_is_denoised_alone_as_in_a_batch_and_with_a_shared_timestep(options):
    model, given = awake(network(**options)).double(), inputs(n=5, flag="flag" in options)
    given = (given[0].double(), *given[1:])
    together = model(*given)
    alone = torch.cat([model(*(value[i : i + 1] for value in given)) for i in range(5)])
    assert torch.allclose(together, alone, atol=1e-12)
    shared = model(given[0], torch.tensor([7]), *given[2:])
    assert torch.allclose(shared, model(given[0], torch.full((5,), 7), *given[2:]), atol=1e-12)


def test_weights_come_from_the_generator_alone():
    before = torch.random.get_rng_state()
    one, two, other = network(3, attention=(4,), flag=True), network(3, attention=(4,), flag=True), network(4)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was drawn from"
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
    assert not torch.equal(one.enter.weight, other.enter.weight)


def test_the_start_is_the_exact_optimum_for_white_data_with_the_input_skip_and_zero_without():
    x, t, label = inputs()
    noise = (1 - SCHEDULE.alpha_bar).sqrt()[t].float().view(-1, 1, 1, 1)
    # For white x_0 of variance 1, E[noise | x_t] = sqrt(1 - alpha_bar_t) x_t.
    assert torch.allclose(network()(x, t, label), noise * x, atol=1e-6)
    assert bool((network(input_skip=False)(x, t, label) == 0).all())


def test_body_predicts_the_velocity():
    model, (x, t, label) = awake(network()).double(), inputs()
    x = x.double()
    plain = copy.deepcopy(model)
    plain.input_skip = False
    bar = SCHEDULE.alpha_bar[t].view(-1, 1, 1, 1)
    v = plain(x, t, label)
    # Salimans & Ho (2022): eps = sqrt(1 - alpha_bar) x_t + sqrt(alpha_bar) v.
    assert torch.allclose(model(x, t, label), (1 - bar).sqrt() * x + bar.sqrt() * v, atol=1e-12)


def test_channels_last_and_bfloat16_change_rounding_only():
    model, given = awake(network(attention=(4,))), inputs()
    plain = model(*given)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    assert torch.allclose(last(given[0].contiguous(memory_format=torch.channels_last), *given[1:]), plain, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(*given)
    difference = float((rounded - plain).detach().abs().max())
    assert rounded.dtype == torch.float32 and 0 < difference < 0.1 * float(plain.detach().abs().max())


def test_follows_only_its_own_schedule():
    assert network().follows(linear(50, scale_betas=True))
    assert not network().follows(cosine(50)) and not network().follows(linear(51, scale_betas=True))


def test_attention_is_softmax_attention_over_the_positions_of_each_picture():
    block = awake(Attention(8, torch_generator(0, "init"), groups=2))
    h = torch.randn(2, 8, 3, 3, generator=torch_generator(0, "h"))
    rows = block.norm(h).flatten(2).transpose(1, 2)
    q, k, v = (rows @ part.T + bias for part, bias in zip(block.inputs.weight.split(8), block.inputs.bias.split(8)))
    wanted = block.output(nn.functional.scaled_dot_product_attention(q, k, v)).transpose(1, 2).reshape(h.shape) + h
    assert torch.allclose(block(h), wanted, atol=1e-5)


def test_residual_block_starts_as_its_skip_and_upsampling_repeats():
    h, condition = torch.randn(2, 8, 4, 4, generator=torch_generator(0, "h")), torch.ones(2, 6)
    same = ResidualBlock(8, 8, 6, torch_generator(0, "init"), groups=4)
    assert torch.equal(same(h, condition), h)
    up = Upsample(8, torch_generator(0, "init"), conv=False)(h)
    assert up.shape == (2, 8, 8, 8) and torch.equal(up[:, :, ::2, 1::2], h)
    assert conv_layer(8, 4, torch_generator(0, "init"), stride=2)(h).shape == (2, 4, 2, 2)


def test_dropout_keeps_the_mean_repeats_from_its_seed_and_is_silent_in_evaluation():
    layer, x = Dropout(0.25), torch.ones(40_000)
    with pytest.raises(ValueError, match="set_dropout_generator"):
        layer(x)
    before = torch.random.get_rng_state()
    layer.generator = torch_generator(0, "dropout")
    first = layer(x)
    layer.generator = torch_generator(0, "dropout")
    assert torch.equal(layer(x), first) and not torch.equal(layer(x), first)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was drawn from"
    share = float((first == 0).float().mean())
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / len(x)) ** 0.5 and float(first.max()) == pytest.approx(4 / 3)
    assert torch.equal(layer.eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


def test_dropout_of_the_network_reaches_every_block():
    model = awake(network(dropout=0.5))
    model.set_dropout_generator(torch_generator(0, "dropout"))
    assert not torch.equal(model(*inputs()), model(*inputs()))
    assert torch.equal(model.eval()(*inputs()), model(*inputs()))
    assert sum(isinstance(m, Dropout) and m.generator is not None for m in model.modules()) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(size=10, widths=(8, 8, 8)), "size 10 do not fit.*3 levels.*multiple of 4; resize them to 8 or 12"),
        (dict(size=3, patch=2), "multiple of 4; resize them to 4"),
        (dict(size=0), "size must be an integer >= 1, got 0"),
        (dict(widths=()), "widths must be even multiples of groups=4"),
        (dict(widths=(8, 10)), "widths must be even multiples of groups=4.*10"),
        (dict(attention=(5,)), r"attention=\(5,\).*side 5.*sides 8, 4"),
        (dict(skips="some"), "skips must be one of.*'some'"),
        (dict(modulation="both"), "modulation must be one of.*'both'"),
        (dict(dropout=1.0), r"dropout must lie in \[0, 1\)"),
        (dict(classes=0), "classes must be an integer >= 1, got 0"),
        (dict(blocks=True), "blocks must be an integer >= 1, got True"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        network(**options)


def test_a_flag_must_be_given_exactly_to_a_network_that_has_one():
    with pytest.raises(ValueError, match="built with a flag, but none was given"):
        network(flag=True)(*inputs())
    with pytest.raises(ValueError, match="built with no flag, but one was given"):
        network()(*inputs(flag=True))
