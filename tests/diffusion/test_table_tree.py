"""The tree prior: posteriors against enumeration, naive Bayes without edges, draws, bad forests."""

import itertools

import pytest
import torch

from feddiff.diffusion import samplers
from feddiff.diffusion.schedules import linear
from feddiff.diffusion.table_head import TableHead
from feddiff.diffusion.table_space import table_space
from feddiff.diffusion.table_tree import TreePrior
from feddiff.seeds import torch_generator

LEVELS, CLASSES = (3, 2, 4), 2
SCHEDULE = linear(40, scale_betas=True)


def space(levels=LEVELS):
    ordinal = (False,) * (len(levels) - 1) + (True,)
    return table_space(levels, 0, embedding="circle", generator=torch_generator(0, "tokens"), ordinal=ordinal)


def tree(edges=((1, 0), (1, 2))):
    g = torch_generator(1, "potentials")
    pairs = tuple(torch.rand(LEVELS[i], LEVELS[j], generator=g) + 0.05 for i, j in edges)
    return TreePrior(space(), SCHEDULE, torch.randn(CLASSES, sum(LEVELS), generator=g), edges, pairs)


def enumerated(prior, label, x=None, t=0):
    """Return the marginals (sum(levels),) by the sum over all 24 rows of codes, given x_t (none: without x_t)."""
    total = torch.zeros(sum(LEVELS), dtype=torch.float64)
    offsets = [0, LEVELS[0], LEVELS[0] + LEVELS[1]]
    for codes in itertools.product(*map(range, LEVELS)):
        at = [o + c for o, c in zip(offsets, codes)]
        log = sum(prior.unary[label, k].double() for k in at)
        log = log + sum(pair[codes[i], codes[j]].double().log() for (i, j), pair in zip(prior.edges, prior.pairs))
        if x is not None:
            mean = SCHEDULE.alpha_bar[t].sqrt() * prior.space.embed(torch.tensor([codes]), torch.zeros(1, 0))[0]
            log = log - ((x - mean) ** 2).sum() / (2 * (1 - SCHEDULE.alpha_bar[t]))
        total[at] += log.exp()
    return total / total[: LEVELS[0]].sum()


@pytest.mark.parametrize("edges", [((1, 0), (1, 2)), ((0, 1), (1, 2)), ((2, 0),), ()])
def test_logits_are_the_posteriors_of_the_enumerated_model(edges):
    prior = tree(edges)
    x = torch.randn(6, prior.space.dim, generator=torch_generator(2, "x"))
    label = torch.tensor([0, 1, 0, 1, 0, 1])
    for t in (3, 20, 39):
        found = prior.logits(x, torch.full((6,), t), label).exp()
        for row in range(6):
            expected = enumerated(prior, label[row], x[row].double(), t)
            assert torch.allclose(found[row].double(), expected, atol=2e-5), (edges, t, row)
        assert torch.allclose(prior.logits(x, torch.tensor([t]), label).exp(), found)


def test_an_edge_changes_the_neighbours_and_its_absence_does_not():
    x = torch.randn(1, space().dim, generator=torch_generator(3, "x"))
    moved = x.clone()
    moved[:, 2:4] += 0.7  # the coordinates of column 1
    t, label = torch.tensor([20]), torch.tensor([0])
    joined, apart = tree(((1, 0),)), tree(())
    first = slice(0, LEVELS[0])
    assert not torch.allclose(joined.logits(x, t, label)[:, first], joined.logits(moved, t, label)[:, first], atol=1e-3)
    assert torch.allclose(apart.logits(x, t, label)[:, first], apart.logits(moved, t, label)[:, first])


def zeros(x, t, label):
    return torch.zeros(len(x), sum(LEVELS))


def sampled(prior, label, rows=12_000):
    head = TableHead(space=prior.space, schedule=SCHEDULE, tree=prior)
    g = torch_generator(4, "sampling")
    predict = head.predict_x0(zeros, torch.full((rows,), label), g, drawn=True)
    x = samplers.ancestral(predict, torch.randn(rows, prior.space.dim, generator=g), SCHEDULE, g, variance="posterior")
    return prior.space.nearest(x)[0]


@pytest.mark.parametrize("label", [0, 1])
def test_untrained_sampler_draws_naive_bayes_exactly(label):
    prior = tree(())
    codes, expected = sampled(prior, label), enumerated(prior, label)
    for column, (k, block) in enumerate(zip(LEVELS, expected.split(LEVELS))):
        share = torch.bincount(codes[:, column], minlength=k) / len(codes)
        assert float((share - block).abs().max()) < 4 * 0.5 / len(codes) ** 0.5


def test_untrained_sampler_draws_the_tree():
    prior = tree(((1, 0),))
    codes = sampled(prior, 0)
    found = torch.bincount(codes[:, 1] * 3 + codes[:, 0], minlength=6).double().view(2, 3) / len(codes)
    joint = prior.pairs[0].double() * (prior.unary[0, 3:5, None] + prior.unary[0, None, :3]).double().exp()
    joint = joint / joint.sum()
    product = joint.sum(1, keepdim=True) * joint.sum(0)
    error = float((found - joint).abs().sum())
    assert error < 0.03 and error < 0.35 * float((product - joint).abs().sum())


def test_many_neighbours_and_far_points_stay_finite():
    levels = (2,) * 40
    wide = table_space(levels, 0, embedding="circle", generator=torch_generator(0, "tokens"))
    pairs = (torch.tensor([[1.0, 1e-9], [1e-9, 1.0]]),) * 39
    prior = TreePrior(wide, SCHEDULE, torch.zeros(1, 80), tuple((0, j) for j in range(1, 40)), pairs)
    g = torch_generator(5, "far")
    x, t = 8 * torch.randn(64, 80, generator=g), torch.randint(40, (64,), generator=g)
    logits = prior.logits(x, t, torch.zeros(64).long())
    assert bool(logits.isfinite().all())
    assert torch.allclose(logits.exp().view(64, 40, 2).sum(2), torch.ones(64, 40), atol=1e-4)


def test_draws_at_once_follow_the_softmax():
    logits = torch.randn(1, sum(LEVELS), generator=torch_generator(6, "logits"))
    codes = space().draw_at_once(logits.expand(20_000, -1), torch_generator(7, "draw"))
    for column, block in enumerate(logits[0].split(LEVELS)):
        share = torch.bincount(codes[:, column], minlength=len(block)) / 20_000
        assert torch.allclose(share, block.softmax(0), atol=0.015)


@pytest.mark.parametrize("edges", [((0, 1), (2, 1)), ((1, 2), (0, 1)), ((0, 0),)])
def test_edges_that_are_no_forest_from_its_roots_are_refused(edges):
    with pytest.raises(ValueError, match="forest"):
        tree(edges)


def test_numbers_and_a_second_bias_are_refused():
    mixed = table_space(LEVELS, 1, embedding="circle", generator=torch_generator(0, "tokens"))
    with pytest.raises(ValueError, match="numeric"):
        TreePrior(mixed, SCHEDULE, torch.zeros(2, 9))
    with pytest.raises(ValueError, match="tree"):
        TableHead(space=space(), schedule=SCHEDULE, tree=tree(), bias=torch.zeros(2, 9))
