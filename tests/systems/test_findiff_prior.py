"""DP-Fed-FinDiff's private starts: sensitivity, shares of the budget, fits in closed form, and the untrained model."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from feddiff.data.partitions import iid
from feddiff.data.tables import Table
from feddiff.privacy.accounting import gaussian_noise
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.privacy.noise import GaussianNoise
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems import findiff
from feddiff.systems import findiff_prior as prior

LEVELS, ORDINAL, CLASSES = (4, 12, 2, 6), (False, True, False, False), 2
BUDGET = dict(target_epsilon=1.0, delta=1e-5, share=0.6)


class Silent:
    """Remembers the standard deviations that were asked for, and adds nothing."""

    def __init__(self):
        self.asked = []

    def fill_(self, tensor, std):
        self.asked.append(std)
        return tensor.zero_()


def rows(n, seed=0):
    """Columns 0 and 3 depend on each other given the label, and so do 1 and 2; the pairs are independent."""
    g = np.random.default_rng(seed)
    label = g.integers(0, 2, n)
    first = g.integers(0, 4, n)
    second = g.integers(0, 12, n)
    codes = np.column_stack([first, second, (second + g.integers(0, 3, n) > 6), (first + 2 * (g.random(n) < 0.2)) % 6])
    return torch.from_numpy(codes.astype(np.int64)), torch.from_numpy(label)


def releases(parts, noise=None):
    names = tuple(f"client-{k}" for k in range(len(parts)))
    silent = Silent()
    made = prior.Releases([c for c, _ in parts], [y for _, y in parts], PrivacyLedger(clients=names, delta=1e-5),
                          noise or (lambda name: silent))
    return made, silent


def recorded(monkeypatch, codes, labels):
    """Return every table (exact) that a tree is measured by, and how many tables each release has."""
    made, _ = releases([(codes, labels)])
    seen, sizes = [], []
    whole = prior.Releases.counts

    def counts(self, tables, ratio, what):
        seen.extend(prior.exact(codes, labels, cells, shape) for cells, shape in tables)
        sizes.append(len(tables))
        return whole(self, tables, ratio, what)

    monkeypatch.setattr(prior.Releases, "counts", counts)
    potentials = prior.measure(made, LEVELS, ORDINAL, CLASSES, tree=True, **BUDGET)
    monkeypatch.undo()
    return seen, sizes, potentials


def test_a_record_moves_one_cell_of_every_table_by_one(monkeypatch):
    codes, labels = rows(20_000)
    tables, sizes, potentials = recorded(monkeypatch, codes, labels)
    assert sizes == [4, 6, len(potentials.edges)] and potentials.edges
    one_way = [(lambda c, y, j=j: (y, c[:, j]), (CLASSES, k)) for j, k in enumerate(LEVELS)]
    for count in range(2, 30):
        moved = [
            prior.exact(codes[:count], labels[:count], cells, shape)
            - prior.exact(codes[: count - 1], labels[: count - 1], cells, shape)
            for cells, shape in one_way
        ]
        assert float(sum((m**2).sum() for m in moved)) == 4
    assert all(float(table.sum()) == 20_000 for table in tables), "every record is in one cell of every table"


def test_noise_of_every_release_covers_its_sensitivity_and_shares_add_up():
    parts = [rows(8000, seed) for seed in range(3)]
    made, silent = releases(parts)
    potentials = prior.measure(made, LEVELS, ORDINAL, CLASSES, tree=True, **BUDGET)
    base = gaussian_noise(target_epsilon=1.0, delta=1e-5)
    parts_of_share = (prior.HISTOGRAMS, prior.SELECTION, prior.EDGES)
    assert sum(parts_of_share) == pytest.approx(1)
    asked = iter(silent.asked)
    for tables, part in zip((4, 6, len(potentials.edges)), parts_of_share):
        std = base / (0.6 * part) ** 0.5 * tables**0.5
        assert all(next(asked) == pytest.approx(std) for _ in range(3 * tables))
    assert next(asked, None) is None
    spent = PrivacyLedger(clients=("one",), delta=1e-5)
    spent.spend_gaussian("one", noise_over_sensitivity=base / 0.6**0.5, what="the whole share at once")
    for client in made.ledger.clients:
        assert made.ledger.epsilon(client) == pytest.approx(spent.epsilon(), rel=2e-3)


def test_given_label_alone_takes_the_whole_share_once():
    made, silent = releases([rows(500)])
    potentials = prior.measure(made, LEVELS, ORDINAL, CLASSES, tree=False, **BUDGET)
    assert potentials.edges == () and len(silent.asked) == 4
    assert silent.asked[0] == pytest.approx(2 * gaussian_noise(target_epsilon=1.0, delta=1e-5) / 0.6**0.5)
    codes, labels = rows(500)
    counts = prior.exact(codes, labels, lambda c, y: (y, c[:, 0]), (2, 4))
    shares = (counts.sum(0) / counts.sum()).expand(2, 4)  # what differs between the classes is less than the noise
    assert torch.allclose(potentials.unary[:, :4].double().exp(), shares, atol=1e-6)


@pytest.mark.parametrize("ordinal", [True, False])
def test_dependence_on_the_label_is_shrunk_by_its_noise_alone(ordinal):
    table = torch.tensor([[300.0, 100, 50, 250, 300], [10, 190, 60, 140, 100]], dtype=torch.float64)
    assert torch.allclose(prior.smoothed(table, 0.0, ordinal=ordinal), table, rtol=1e-9)
    drowned = prior.smoothed(table, 1e6, ordinal=ordinal)
    assert torch.allclose(drowned, table.sum(1, keepdim=True) * table.sum(0) / table.sum())
    some = prior.smoothed(table, 20.0, ordinal=ordinal)
    assert torch.allclose(some.sum(1), table.sum(1)) and not torch.allclose(some, table)
    assert float((some - table).abs().sum()) < 0.5 * float((drowned - table).abs().sum())


@pytest.mark.parametrize("levels", [1, 2, 5, 8, 33])
def test_haar_basis_is_orthonormal_and_starts_constant(levels):
    basis = prior._haar(levels)
    assert torch.allclose(basis @ basis.T, torch.eye(levels, dtype=torch.float64), atol=1e-12)
    assert float(basis[0].std(unbiased=False)) < 1e-12


def test_every_client_adds_its_own_noise():
    parts = [rows(50), rows(50)]
    drawn = {}

    def noise(name):
        drawn[name] = drawn.get(name, 0) + 1
        return GaussianNoise(torch_generator(0, name))

    made, _ = releases(parts, noise)
    (noisy,), std = made.counts([(lambda c, y: (y, c[:, 1]), (40, 100))], 3.0, "wide")
    true = sum(prior.exact(c, y, lambda c, y: (y, c[:, 1]), (40, 100)) for c, y in parts)
    assert drawn == {"client-0": 1, "client-1": 1} and std == pytest.approx(3 * 2**0.5)
    assert float((noisy - true).std()) == pytest.approx(std, rel=0.05)


def test_tree_keeps_margins_given_the_label_and_the_strong_pairs(monkeypatch):
    codes, labels = rows(60_000)
    _, _, potentials = recorded(monkeypatch, codes, labels)
    assert {frozenset(edge) for edge in potentials.edges} == {frozenset((0, 3)), frozenset((1, 2))}
    (parent, child), pair = next((e, p) for e, p in zip(potentials.edges, potentials.pairs) if 0 in e)
    blocks = potentials.unary.double().exp().split(LEVELS, dim=1)
    for y in (0, 1):
        joint = blocks[parent][y][:, None] * pair.double() * blocks[child][y]
        joint = joint / joint.sum()
        own = codes[labels == y]
        true = prior.exact(own, own[:, 0], lambda c, _: (c[:, parent], c[:, child]), joint.shape)
        assert float((joint - true / true.sum()).abs().sum()) < 0.05


def test_without_third_has_the_three_margins():
    g = torch_generator(0, "margins")
    whole = torch.rand(3, 5, 4, generator=g, dtype=torch.float64) + 0.1
    one, two, pair = whole.sum(2), whole.sum(1), whole.sum(0)
    psi, alpha, beta = prior.without_third(pair, one, two)
    fitted = alpha[:, :, None] * psi * beta[:, None, :]
    for found, wanted in ((fitted.sum(2), one), (fitted.sum(1), two), (fitted.sum(0), pair)):
        assert torch.allclose(found, wanted, rtol=1e-3)


def test_margins_that_contradict_each_other_still_give_finite_potentials():
    pair = torch.tensor([[1e-3, 900.0], [900.0, 1e-3]], dtype=torch.float64)
    one = torch.tensor([[0.5, 1000.0], [900.0, 0.5]], dtype=torch.float64)
    two = torch.tensor([[0.5, 1000.0], [0.5, 900.0]], dtype=torch.float64)
    for part in prior.without_third(pair, one, two):
        assert bool(part.isfinite().all()) and float(part.min()) > 0


def test_consistent_tables_are_positive_and_agree_on_the_classes():
    g = torch_generator(0, "noisy")
    true = [torch.full((2, k), 600.0 / k, dtype=torch.float64) for k in LEVELS]
    noisy = [table + 40 * torch.randn(table.shape, generator=g, dtype=torch.float64) for table in true]
    fitted = prior.consistent(noisy)
    for table in fitted:
        assert float(table.min()) > 0 and torch.allclose(table.sum(1), fitted[0].sum(1))
    exact = prior.consistent(true)
    assert all(torch.allclose(a, b) for a, b in zip(exact, true))
    projected = prior._norm_sub(torch.tensor([5.0, -3.0, 2.0], dtype=torch.float64), 4.0)
    assert projected.tolist() == [3.5, 0.0, 0.5]


def test_groups():
    mass = torch.tensor([5.0, 50.0, 1.0, 30.0, 2.0])
    assert prior.groups(mass, ordinal=False, most=9).tolist() == [0, 1, 2, 3, 4]
    assert prior.groups(mass, ordinal=False, most=3).tolist() == [2, 0, 2, 1, 2]
    assert prior.groups(mass, ordinal=False, most=9, least=10.0).tolist() == [2, 0, 2, 1, 2]
    assert prior.groups(mass, ordinal=False, most=9, least=99.0).tolist() == [0] * 5
    cut = prior.groups(torch.ones(12), ordinal=True, most=4)
    assert cut.tolist() == sorted(cut.tolist()) and torch.bincount(cut).tolist() == [3, 3, 3, 3]


def test_spanning_tree_is_the_heaviest_of_all():
    g = np.random.default_rng(0)
    scored = [(float(g.random()), i, j) for i, j in itertools.combinations(range(5), 2)]
    weight = {frozenset((i, j)): s for s, i, j in scored}

    def is_tree(edges):
        joined = {0}
        for _ in edges:
            joined |= {k for e in edges if joined & set(e) for k in e}
        return len(joined) == 5

    best = max(sum(s for s, *_ in four) for four in itertools.combinations(scored, 4) if is_tree([e[1:] for e in four]))
    edges = prior.spanning(5, scored)
    assert sum(weight[frozenset(e)] for e in edges) == pytest.approx(best) and len(edges) == 4
    assert prior.spanning(4, [(1.0, 2, 3)]) == [(2, 3)]


def test_shrinkage_removes_noise_and_keeps_signal():
    expected = torch.full((2, 2), 1000.0, dtype=torch.float64)
    noisy = expected + torch.tensor([[5.0, -5.0], [400.0, -999.9]], dtype=torch.float64)
    found = prior.shrunk(noisy, expected, 10.0)
    assert found[0].tolist() == [1000.0, 1000.0] and found[1, 0] == pytest.approx(1400, rel=1e-3)
    assert found[1, 1] == pytest.approx(20)


KINDS = dict(amount="numeric", colour="categorical", shade="categorical", label="categorical")


def members(n=3, count=3000):
    g = numpy_generator(0, "toy")
    label = g.random(count) < 0.3
    colour = g.choice(["red", "green", "blue"], count)
    frame = pd.DataFrame({
        "amount": np.round(g.normal(10 + 5 * label, 2), 2),
        "colour": colour,
        "shade": np.where(g.random(count) < 0.9, colour, "none"),
        "label": np.where(label, "yes", "no"),
    })
    whole = Table(frame, "label", KINDS, name="toy", source="file", sha256="0" * 64)
    return [whole.select(part) for part in iid(count, n, numpy_generator(0, "partition"))]


def start(name):
    config = findiff.ours(epsilon=10.0, prior=name, prior_share=0.9, R=1, S=1, B=32, lr=1e-12, ema=0.0, T=40, cells=8)
    return findiff.train(members(), config, progress=False)


def test_untrained_start_given_label_is_private_naive_bayes():
    run = start("given_label")
    sample = run.sample(12_000, seed=0)
    codec, labels = run.prepared.codecs[0], run.prepared.label_codec
    encoded = codec.encode(sample, numpy_generator(0, "ranks")).codes
    y = labels.encode(sample["label"])
    for label in (0, 1):
        mine = encoded[y == label]
        for j, block in enumerate(run.prepared.potentials.unary[label].exp().split(codec.levels)):
            share = np.bincount(mine[:, j], minlength=len(block)) / len(mine)
            assert np.abs(share - block.numpy()).max() < 0.02 + 2 / len(mine) ** 0.5, codec.code_columns[j]
    for label, group in sample.groupby("label"):
        same = (group["shade"] == group["colour"]).mean()
        assert same < 0.4, "columns are independent given the label"


def test_untrained_start_of_a_tree_keeps_a_pair_inside_the_budget():
    run = start("tree")
    sample = run.sample(6000, seed=0)
    assert abs((sample["shade"] == sample["colour"]).mean() - 0.9) < 0.04
    assert list(sample.columns) == ["amount", "colour", "shade", "label"]
    assert 0.9 * 10 < run.privacy["epsilon"] <= 10.0
    assert run.sample(50, seed=0, steps=5, eta=1.0).notna().all().all()
    frame = members()[0].frame.iloc[:9]
    losses = run.loss_per_record(frame, np.full((9, 2), 10), np.zeros((9, 2, run.head.space.dim)))
    assert np.isfinite(losses).all()


def test_default_configuration_gives_the_numbers_from_before_the_option():
    config = findiff.ours(epsilon=2.0, T=30, R=3, S=2, B=32, hidden=(16,), prior_share=0.3)
    assert config.prior == "bias"
    run = findiff.train(members(), config, progress=False)
    assert run.prepared.potentials is None and run.head.tree is None and run.prepared.bias is not None
    assert type(run.prepared.codecs[0]).__name__ == "TableCodec"
    assert float(run.federation.weights().double().norm()) == pytest.approx(2.3311734394628214, rel=1e-6)


@pytest.mark.parametrize("changes, words", [
    (dict(prior="forest", prior_share=0.3), "prior must be one of"),
    (dict(prior="tree"), "prior_share > 0"),
    (dict(prior="tree", prior_share=0.3, preprocessing="client"), "one codec"),
    (dict(prior="given_label", prior_share=0.3, numerics="quantile"), "quantile-ties"),
    (dict(prior="tree", prior_share=0.3, cells=1), "cells"),
])
def test_bad_priors_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        findiff.ours(epsilon=1.0, **changes)


@pytest.mark.parametrize("epsilon", [0.2, 1.0, 10.0])
def test_strongest_spends_its_whole_budget_on_the_tree_the_labels_and_training(epsilon):
    config = findiff.strongest(epsilon=epsilon, B=32, R=2, S=2, T=40, hidden=(16,))
    assert config.prior == "tree" and config.label_marginals == "private"
    run = findiff.train(members(), config, progress=False)
    assert 0.97 * epsilon < run.privacy["epsilon"] <= epsilon
    told = " ".join(event["what"] for event in run.privacy["clients"]["client-0"]["events"] if "what" in event)
    assert "histograms given the label" in told and "to choose edges" in told and "label counts" in told
