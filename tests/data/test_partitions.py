"""Partitions: disjoint, exhaustive, deterministic, skewed as asked, and no empty client."""

import numpy as np
import pandas as pd
import pytest

from feddiff.data import partitions
from feddiff.seeds import numpy_generator

LABELS = pd.Series(np.repeat(["a", "b", "c", None], [500, 300, 150, 50]), name="label")
PARTITIONS = {
    "iid": lambda g: partitions.iid(1000, 7, g),
    "by_category": lambda g: partitions.by_category(LABELS, 4),
    "by_category, fewer clients": lambda g: partitions.by_category(LABELS, 2),
    "dirichlet": lambda g: partitions.dirichlet(LABELS, 5, 0.5, g),
    "quantity_skew": lambda g: partitions.quantity_skew(1000, 5, 1.0, g),
}


@pytest.mark.parametrize("name", PARTITIONS)
def test_disjoint_exhaustive_deterministic(name):
    parts = PARTITIONS[name](numpy_generator(1, "partition"))
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1000))
    assert all(part.dtype == np.int64 and len(part) and (np.diff(part) > 0).all() for part in parts)
    again = PARTITIONS[name](numpy_generator(1, "partition"))
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    if "category" not in name:
        other = PARTITIONS[name](numpy_generator(2, "partition"))
        assert not all(np.array_equal(a, b) for a, b in zip(parts, other, strict=True))


def test_iid_parts_are_equal_and_random():
    parts = partitions.iid(10_003, 5, numpy_generator(1))
    assert sorted(len(part) for part in parts) == [2000, 2000, 2001, 2001, 2001]
    # The mean row number of a random part of n from N has standard deviation sqrt((N - n)(N + 1) / 12 n), about 58.
    assert all(abs(part.mean() - 5001) < 290 for part in parts)


def test_by_category_keeps_values_together_and_balances():
    parts = partitions.by_category(LABELS, 4)
    assert [len(part) for part in parts] == [500, 300, 150, 50]
    assert all(LABELS.iloc[part].nunique(dropna=False) == 1 for part in parts)
    assert [len(part) for part in partitions.by_category(LABELS, 2)] == [500, 500]
    assert [len(part) for part in partitions.by_category(LABELS, 3)] == [500, 300, 200]


def test_dirichlet_is_skewed_for_small_alpha_and_even_for_large():
    labels = np.repeat([0, 1], 5000)

    def spread(alpha):
        parts = partitions.dirichlet(labels, 4, alpha, numpy_generator(3), redraws=50)
        return np.std([labels[part].mean() for part in parts])

    assert spread(0.2) > 0.15 and spread(10_000.0) < 0.02


def test_dirichlet_shares_follow_the_dirichlet_law():
    rng = numpy_generator(4)
    first = [len(partitions.dirichlet(np.zeros(1000, int), 3, 2.0, rng)[0]) / 1000 for _ in range(400)]
    # Beta(2, 4): mean 1/3, variance 2 * 4 / (36 * 7).
    assert np.mean(first) == pytest.approx(1 / 3, abs=0.035) and np.var(first) == pytest.approx(8 / 252, rel=0.25)


def test_skewed_parts_are_drawn_at_random():
    for parts in (
        partitions.dirichlet(np.zeros(1000, int), 3, 50.0, numpy_generator(1)),
        partitions.quantity_skew(1000, 3, 50.0, numpy_generator(1)),
    ):
        assert all(abs(part.mean() - 500) < 75 and len(part) > 150 for part in parts)


def test_quantity_skew_sizes_vary_with_alpha():
    def spread(alpha):
        return np.std([len(part) for part in partitions.quantity_skew(10_000, 4, alpha, numpy_generator(5))])

    assert spread(0.5) > 500 > 100 > spread(10_000.0)


def test_shares_are_largest_remainders():
    assert partitions.shares(10, np.array([1, 1, 1])).tolist() == [4, 3, 3]
    assert partitions.shares(7, np.array([0.5, 0.3, 0.2])).tolist() == [4, 2, 1]
    rng = numpy_generator(6)
    for total in (0, 1, 5, 1000):
        counts = partitions.shares(total, weights := rng.random(6))
        assert counts.sum() == total and (np.abs(counts - total * weights / weights.sum()) < 1).all()


def test_columns_blocks_and_permutation():
    names = list("abcdefghij")
    assert partitions.columns(names, 4) == [["a", "b"], ["c", "d"], ["e", "f"], ["g", "h", "i", "j"]]
    shuffled = partitions.columns(names, 4, "random", numpy_generator(1))
    assert sorted(sum(shuffled, [])) == names and shuffled != partitions.columns(names, 4)
    assert shuffled == partitions.columns(names, 4, "random", numpy_generator(1))


REFUSED = {
    "more clients than rows": (lambda g: partitions.iid(3, 5, g), "client 3 "),
    "no clients": (lambda g: partitions.iid(3, 0, g), "got 0"),
    "clients not a number": (lambda g: partitions.iid(3, 1.5, g), "got 1.5"),
    "more clients than values": (lambda g: partitions.by_category(LABELS, 5), "client 4 .*'label'"),
    "empty Dirichlet client": (lambda g: partitions.dirichlet(np.zeros(50), 10, 0.01, g), r"client \d+ has no rows"),
    "empty skewed client": (lambda g: partitions.quantity_skew(50, 10, 0.01, g), r"client \d+ has no rows"),
    "alpha zero": (lambda g: partitions.dirichlet(LABELS, 2, 0.0, g), "alpha"),
    "alpha NaN": (lambda g: partitions.quantity_skew(50, 2, float("nan"), g), "alpha"),
    "more silos than columns": (lambda g: partitions.columns(["a"], 2), "client 1 "),
    "unknown order": (lambda g: partitions.columns(["a", "b"], 2, "sorted"), "'sorted'"),
    "random without generator": (lambda g: partitions.columns(["a", "b"], 2, "random"), "generator"),
    "names twice": (lambda g: partitions.columns(["a", "a"], 2), "distinct"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call(numpy_generator(1))


def test_redraws_find_a_partition_without_empty_clients():
    labels = np.repeat([0, 1], 500)
    empty = 0
    for seed in range(30):
        try:
            partitions.dirichlet(labels, 5, 0.1, numpy_generator(seed))
        except ValueError:
            empty += 1
        assert min(map(len, partitions.dirichlet(labels, 5, 0.1, numpy_generator(seed), redraws=500))) > 0
    assert empty > 0
