"""Poisson sampling by its definition, and the same statistics rejecting what is not Poisson sampling."""

import math

import pytest
import torch
from scipy import stats

from feddiff.privacy.sampling import poisson_batch, secure_poisson_batch
from feddiff.seeds import torch_generator

ROWS, RATE, TRIALS = 40, 0.15, 6000
LEVEL = 1e-6


def poisson():
    generator = torch_generator(3, "batches")
    return [poisson_batch(ROWS, RATE, generator) for _ in range(TRIALS)]


def secure():
    return [secure_poisson_batch(ROWS, RATE) for _ in range(TRIALS)]


def fixed_size():
    """Mutant: batches of exactly q n records without replacement."""
    generator = torch_generator(3, "batches")
    return [torch.randperm(ROWS, generator=generator)[: round(ROWS * RATE)] for _ in range(TRIALS)]


def shuffled():
    """Mutant: epochs of a shuffled loader."""
    generator, batches = torch_generator(3, "batches"), []
    while len(batches) < TRIALS:
        batches += torch.randperm(ROWS, generator=generator).split(round(ROWS * RATE))
    return batches[:TRIALS]


def wrong_rate():
    """Mutant: Poisson at 1 / ceil(1 / q), as a loader's length would give."""
    generator = torch_generator(3, "batches")
    return [poisson_batch(ROWS, 1 / math.ceil(1 / RATE), generator) for _ in range(TRIALS)]


def one_coin_for_pairs():
    """Mutant: right marginals, but neighbours enter together."""
    generator = torch_generator(3, "batches")
    return [
        (2 * poisson_batch(ROWS // 2, RATE, generator).unsqueeze(1) + torch.arange(2)).flatten() for _ in range(TRIALS)
    ]


def repeated():
    """Mutant: each batch is used for two steps."""
    generator = torch_generator(3, "batches")
    return [batch for _ in range(TRIALS // 2) for batch in [poisson_batch(ROWS, RATE, generator)] * 2]


def violations(batches):
    """Name the properties of Poisson sampling that the batches lack, each tested two-sided at `LEVEL`."""
    member = torch.zeros(len(batches), ROWS, dtype=torch.float64)
    for row, batch in zip(member, batches, strict=True):
        row[batch] = 1.0
    trials, found = len(batches), set()

    def deviates(counts, total, probability):
        tails = stats.binom.sf(counts - 1, total, probability), stats.binom.cdf(counts, total, probability)
        return (2 * torch.minimum(*map(torch.as_tensor, tails)) * counts.numel()).min().item() < LEVEL

    if deviates(member.sum(0), trials, RATE):
        found.add("marginal inclusion")
    if deviates(member.sum(), trials * ROWS, RATE):
        found.add("mean batch size")
    together = (member.T @ member)[tuple(torch.triu_indices(ROWS, ROWS, 1))]
    if deviates(together, trials, RATE**2):
        found.add("pairwise inclusion")
    following = (member[1:] * member[:-1]).sum(0)
    if deviates(following, trials - 1, RATE**2):
        found.add("independence between steps")
    variance = member.sum(1).var().item() / (ROWS * RATE * (1 - RATE))
    low, high = (stats.chi2.ppf(p, trials - 1) / (trials - 1) for p in (LEVEL / 2, 1 - LEVEL / 2))
    if not 0.95 * low <= variance <= 1.05 * high:
        found.add("variance of the batch size")
    return found


@pytest.mark.parametrize("source", [poisson, secure])
def test_poisson_sampling_has_every_property(source):
    batches = source()
    assert violations(batches) == set()
    for batch in batches[:200]:
        assert batch.dtype == torch.int64 and (batch.diff() > 0).all()


@pytest.mark.parametrize(
    ("mutant", "named"),
    [
        (fixed_size, {"variance of the batch size"}),
        (shuffled, {"variance of the batch size", "independence between steps"}),
        (wrong_rate, {"mean batch size"}),
        (one_coin_for_pairs, {"pairwise inclusion", "variance of the batch size"}),
        (repeated, {"independence between steps"}),
    ],
)
def test_what_is_not_poisson_sampling_is_rejected(mutant, named):
    assert violations(mutant()) >= named


def test_the_variance_is_that_of_the_binomial_at_a_million_rows():
    generator = torch_generator(9, "batches")
    sizes = torch.tensor([len(poisson_batch(1_000_000, 0.0005, generator)) for _ in range(2000)]).double()
    assert sizes.mean().item() == pytest.approx(500, abs=5 * math.sqrt(500 / 2000))
    assert sizes.var().item() == pytest.approx(500 * (1 - 0.0005), rel=5 * math.sqrt(2 / 2000))


def test_first_and_last_rows_are_drawn_as_often_as_the_rest():
    """A waiting-time sampler may miss the ends: rate near 1 and few rows make them frequent."""
    generator = torch_generator(4, "batches")
    counts = torch.zeros(3)
    for _ in range(4000):
        counts[poisson_batch(3, 0.9, generator)] += 1
    assert counts.tolist() == pytest.approx([3600] * 3, abs=5 * math.sqrt(4000 * 0.09))


@pytest.mark.parametrize("draw", [poisson_batch, lambda rows, rate, generator: secure_poisson_batch(rows, rate)])
def test_degenerate_cases(draw):
    generator = torch_generator(0, "batches")
    assert draw(0, 0.5, generator).shape == (0,)
    assert draw(10, 0.0, generator).shape == (0,)
    assert draw(5, 1.0, generator).tolist() == [0, 1, 2, 3, 4]
    assert draw(10, 1e-300, generator).shape == (0,)
    assert len(draw(1000, 1 - 1e-12, generator)) >= 999
    assert any(len(draw(4, 0.1, generator)) == 0 for _ in range(100)), "empty batches are part of Poisson sampling"


def test_the_same_generator_state_gives_the_same_batch():
    first, second = (poisson_batch(1000, 0.1, torch_generator(1, "batches")) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_outside_the_unit_interval_is_named(rate):
    with pytest.raises(ValueError, match="sample_rate"):
        poisson_batch(10, rate, torch_generator(0, "batches"))


def test_other_bad_arguments_are_named():
    for rows in (-1, 2.5, True):
        with pytest.raises(ValueError, match="rows"):
            poisson_batch(rows, 0.1, torch_generator(0, "batches"))
    with pytest.raises(TypeError, match="generator"):
        poisson_batch(10, 0.1, None)
