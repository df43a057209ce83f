"""Token space, heads, denoisers and the EMA."""

import math

import pytest
import torch
from torch import nn

from feddiff.diffusion.denoisers import MLPDenoiser, sinusoid
from feddiff.diffusion.ema import EMA
from feddiff.diffusion.schedules import linear
from feddiff.diffusion.segments import Segments
from feddiff.diffusion.table_head import TableHead
from feddiff.diffusion.table_space import table_space
from feddiff.seeds import torch_generator

LEVELS, NUMBERS = (3, 5, 2), 2


def space(embedding="circle", levels=LEVELS, numbers=NUMBERS):
    return table_space(levels, numbers, embedding=embedding, generator=torch_generator(0, "tokens"))


def rows(n=6):
    g = torch_generator(0, "rows")
    codes = torch.stack([torch.randint(k, (n,), generator=g) for k in LEVELS], dim=1)
    return codes, torch.randn(n, NUMBERS, generator=g), torch.randint(2, (n,), generator=g)


@pytest.mark.parametrize("embedding", ["circle", "normal"])
def test_nearest_token_inverts_the_embedding(embedding):
    codes, numbers, _ = rows(200)
    x = space(embedding).embed(codes, numbers)
    back, same = space(embedding).nearest(x)
    assert torch.equal(back, codes) and torch.equal(same, numbers)


def test_nearest_never_leaves_the_column_and_resolves_thousands_of_tokens():
    wide = space(levels=(5506, 2), numbers=0)
    codes = torch.stack([torch.arange(5506), torch.zeros(5506, dtype=torch.int64)], dim=1)
    assert torch.equal(wide.nearest(wide.embed(codes, torch.zeros(5506, 0)))[0], codes)
    drawn, _ = wide.nearest(10 * torch.randn(500, 4, generator=torch_generator(0, "far")))
    assert drawn[:, 1].max() <= 1 and drawn.min() >= 0


def test_circle_tokens_have_unit_variance_under_a_uniform_column():
    tokens = space().tokens[3:8]
    assert torch.allclose((tokens**2).mean(0), torch.ones(2), atol=1e-6)
    assert torch.allclose(tokens.norm(dim=1), torch.full((5,), math.sqrt(2)), atol=1e-6)


def test_draw_follows_the_softmax_of_each_column():
    logits = torch.log(torch.tensor([0.2, 0.3, 0.5, 0.1, 0.2, 0.3, 0.2, 0.2, 0.9, 0.1])).repeat(40_000, 1)
    drawn = space().draw(logits, torch_generator(0, "draw"))
    for j, expected in enumerate(([0.2, 0.3, 0.5], [0.1, 0.2, 0.3, 0.2, 0.2], [0.9, 0.1])):
        share = torch.bincount(drawn[:, j], minlength=len(expected)) / len(drawn)
        assert torch.allclose(share, torch.tensor(expected), atol=0.012)


@pytest.mark.parametrize("gap", [0.0, 300.0])
def test_blockwise_softmax_equals_the_loop_over_columns_even_when_a_block_is_far_below(gap):
    blocks, g = Segments((3, 1, 40)), torch_generator(0, "segments")
    logits = 5 * torch.randn(20, 44, generator=g)
    logits[:, :3] -= gap
    logits.requires_grad_()
    codes = torch.stack([torch.randint(k, (20,), generator=g) for k in (3, 1, 40)], dim=1)
    naive = torch.stack(
        [nn.functional.cross_entropy(b, codes[:, j], reduction="none") for j, b in enumerate(logits.split((3, 1, 40), 1))], 1
    )
    ours = blocks.cross_entropy(logits, codes)
    assert torch.allclose(ours, naive, atol=1e-4)
    wanted = torch.cat([b.softmax(1) for b in logits.split((3, 1, 40), 1)], 1)
    assert torch.allclose(blocks.probabilities(logits), wanted, atol=1e-5)
    one, two = (torch.autograd.grad(v.sum(), logits, retain_graph=True)[0] for v in (ours, naive))
    assert torch.allclose(one, two, atol=1e-5)


def _network(head, generator=None, **options):
    options = {"hidden": (16,), "classes": 2, "zero_output": False, **options}
    return MLPDenoiser(head.space.dim, head.d_out, generator=generator or torch_generator(0, "init"), **options)


@pytest.mark.parametrize("head", ["embedding", "logits"])
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_loss_per_record_equals_one_record_at_a_time_and_the_mean_over_draws(head, prediction):
    head = TableHead(space=space(), schedule=linear(100, scale_betas=True), head=head, prediction=prediction)
    network, (codes, numbers, label) = _network(head), rows()
    x0, g = head.space.embed(codes, numbers), torch_generator(0, "draws")
    t, noise = torch.randint(100, (6, 3), generator=g), torch.randn(6, 3, head.space.dim, generator=g)
    together = head.loss(network, x0, codes, label, t, noise).detach()
    for i in range(6):
        alone = [
            head.loss(network, x0[i : i + 1], codes[i : i + 1], label[i : i + 1], t[i, k].view(1, 1), noise[i, k].view(1, 1, -1))
            for k in range(3)
        ]
        assert float(together[i]) == pytest.approx(float(torch.stack(alone).detach().mean()), rel=1e-5)


def test_epsilon_loss_is_zero_for_the_true_noise_and_one_for_zero_output():
    head = TableHead(space=space(), schedule=linear(100, scale_betas=True), head="embedding", prediction="epsilon")
    codes, numbers, label = rows(4000)
    x0, g = head.space.embed(codes, numbers), torch_generator(0, "draws")
    t, noise = torch.randint(100, (4000, 1), generator=g), torch.randn(4000, 1, head.space.dim, generator=g)
    assert head.loss(lambda x, t, y: noise[:, 0], x0, codes, label, t, noise).max() < 1e-10
    silent = head.loss(lambda x, t, y: torch.zeros_like(x), x0, codes, label, t, noise)
    assert float(silent.mean()) == pytest.approx(1.0, abs=0.03)


def test_logits_loss_of_uniform_logits_is_the_entropy_and_the_bias_shifts_it():
    schedule = linear(100, scale_betas=True)
    head = TableHead(space=space(numbers=0), schedule=schedule)
    codes, _, label = rows(50)
    x0 = head.space.embed(codes, torch.zeros(50, 0))
    t, noise = torch.zeros(50, 1, dtype=torch.int64), torch.zeros(50, 1, head.space.dim)
    silent = head.loss(lambda x, t, y: torch.zeros(len(x), head.d_out), x0, codes, label, t, noise)
    assert torch.allclose(silent, torch.full((50,), math.log(3 * 5 * 2) / 3), atol=1e-6)
    certain = torch.full((2, 10), -30.0)
    certain[:, [0, 3, 8]] = 0.0
    biased = TableHead(space=head.space, schedule=schedule, bias=certain)
    zeros = torch.zeros_like(codes)
    loss = biased.loss(lambda x, t, y: torch.zeros(len(x), head.d_out), x0, zeros, label, t, noise)
    assert loss.max() < 1e-5


def test_last_step_of_the_logits_head_returns_exact_tokens():
    head = TableHead(space=space(), schedule=linear(10, beta_T=0.5))
    network = _network(head)
    x = torch.randn(100, head.space.dim, generator=torch_generator(0, "x"))
    label = torch.zeros(100, dtype=torch.int64)
    point = head.predict_x0(network, label, torch_generator(0, "draw"))(x, 0)
    codes, numbers = head.space.nearest(point)
    assert torch.allclose(head.space.embed(codes, numbers), point)


@pytest.mark.parametrize("conditioning", ["added", "concatenated", "features"])
@pytest.mark.parametrize("body", ["plain", "residual"])
def test_denoiser_depends_on_every_input_and_only_on_its_generator(conditioning, body):
    head = TableHead(space=space(), schedule=linear(100, scale_betas=True))
    before = torch.random.get_rng_state()
    build = lambda: _network(head, torch_generator(3, "init"), conditioning=conditioning, body=body, hidden=(16, 16))
    one, two = build(), build()
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator was drawn from"
    x, t, y = torch.randn(4, head.space.dim, generator=torch_generator(0, "x")), torch.arange(4), torch.tensor([0, 1, 0, 1])
    assert torch.equal(one(x, t, y), two(x, t, y))
    for changed in (one(x + 1, t, y), one(x, t + 50, y), one(x, t, 1 - y)):
        assert not torch.allclose(changed, one(x, t, y))


@pytest.mark.parametrize("conditioning", ["added", "concatenated", "features"])
def test_one_shared_timestep_gives_what_a_timestep_a_row_gives(conditioning):
    head = TableHead(space=space(), schedule=linear(100, scale_betas=True))
    network = _network(head, conditioning=conditioning)
    x, y = torch.randn(5, head.space.dim, generator=torch_generator(0, "x")), torch.tensor([0, 1, 0, 1, 1])
    assert torch.allclose(network(x, torch.tensor([7]), y), network(x, torch.full((5,), 7), y), atol=1e-6)


def test_zero_output_starts_at_zero_and_bad_options_are_refused():
    head = TableHead(space=space(), schedule=linear(100, scale_betas=True))
    out = _network(head, zero_output=True)(torch.ones(2, head.space.dim), torch.zeros(2).long(), torch.zeros(2).long())
    assert float(out.detach().abs().max()) == 0
    for options, match in (({"body": "mlp"}, "body"), ({"conditioning": "film"}, "conditioning"), ({"body": "residual", "hidden": (8, 16)}, "equal widths")):
        with pytest.raises(ValueError, match=match):
            _network(head, **options)
    with pytest.raises(ValueError, match="head must be"):
        TableHead(space=space(), schedule=linear(10, beta_T=0.5), head="softmax")
    with pytest.raises(ValueError, match="bias needs head='logits'"):
        TableHead(space=space(), schedule=linear(10, beta_T=0.5), head="embedding", bias=torch.zeros(2, 10))


def test_sinusoid_is_cosine_then_sine():
    features = sinusoid(torch.tensor([0, 7]), 8)
    assert torch.allclose(features[0], torch.tensor([1.0] * 4 + [0.0] * 4))
    assert float(features[1, 0]) == pytest.approx(math.cos(7)) and float(features[1, 4]) == pytest.approx(math.sin(7))


def test_ema_of_a_constant_is_the_constant_and_lags_a_jump():
    ema = EMA(0.9)
    for _ in range(30):
        ema.update(torch.ones(3))
    assert torch.allclose(ema.average, torch.ones(3))
    ema.update(torch.full((3,), 11.0))
    assert torch.allclose(ema.average, torch.full((3,), 1 + 10 * (1 - min(0.9, 31 / 40))), atol=1e-5)
    with pytest.raises(ValueError, match="ema"):
        EMA(1.0)
