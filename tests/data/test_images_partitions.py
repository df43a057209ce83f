"""Clients with majority and minority classes: exact counts, disjoint, deterministic, and totals that do not grow."""

import numpy as np
import pytest

from feddiff.data.image_partitions import at_fixed_total, clusters
from feddiff.seeds import numpy_generator

LABELS = numpy_generator(1, "labels").permutation(np.repeat(np.arange(10), 200))
DEALERS = {"clusters": clusters, "at_fixed_total": at_fixed_total}


def table(parts, labels=LABELS, classes=10):
    return np.stack([np.bincount(labels[part.rows], minlength=classes) for part in parts])


def disjoint(parts):
    rows = np.concatenate([part.rows for part in parts])
    return len(np.unique(rows)) == len(rows)


def test_two_clusters_hold_what_the_paper_gives_them():
    parts = clusters(LABELS, classes=10, majority=150, minority=5, generator=numpy_generator(1, "partition"))
    assert np.array_equal(table(parts), [[150] * 5 + [5] * 5, [5] * 5 + [150] * 5])
    assert [part.majority for part in parts] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]
    assert [part.minority for part in parts] == [(5, 6, 7, 8, 9), (0, 1, 2, 3, 4)]
    assert disjoint(parts) and all(part.rows.dtype == np.int64 and (np.diff(part.rows) > 0).all() for part in parts)


def test_more_groups_than_two_and_uneven_ones():
    parts = clusters(LABELS, classes=10, clients=5, majority=60, minority=2, groups=3, generator=numpy_generator(1))
    assert [part.majority for part in parts] == [
        (0, 1, 2, 3), (4, 5, 6), (7, 8, 9), (0, 1, 2, 3), (4, 5, 6)]
    assert disjoint(parts)
    for row, part in zip(table(parts), parts):
        assert set(row[list(part.majority)]) == {60} and set(row[list(part.minority)]) == {2}
        assert sorted((*part.majority, *part.minority)) == list(range(10))


def test_absent_minorities_and_a_client_alone():
    parts = clusters(LABELS, classes=10, majority=200, minority=0, generator=numpy_generator(1))
    assert np.array_equal(table(parts), [[200] * 5 + [0] * 5, [0] * 5 + [200] * 5])
    alone = clusters(LABELS, classes=10, clients=1, majority=200, minority=200, generator=numpy_generator(1))
    assert np.array_equal(alone[0].rows, np.arange(2000)) and alone[0].majority == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("deal", DEALERS.values(), ids=DEALERS)
def test_the_generator_decides_which_pictures(deal):
    first, again, other = (
        deal(LABELS, classes=10, clients=4, majority=40, minority=4, generator=numpy_generator(seed))
        for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(first, again))
    assert not any(np.array_equal(a.rows, b.rows) for a, b in zip(first, other))


def test_every_picture_of_a_class_is_as_likely():
    labels = np.repeat([0, 1], 20)
    seen = np.zeros(40)
    for seed in range(400):
        seen[clusters(labels, classes=2, majority=5, minority=1, generator=numpy_generator(seed))[0].rows] += 1
    # Binomial(400, 1/4) and Binomial(400, 1/20): five standard deviations.
    assert np.abs(seen[:20] - 100).max() < 5 * np.sqrt(75) and np.abs(seen[20:] - 20).max() < 5 * np.sqrt(19)


@pytest.mark.parametrize("clients", [2, 4, 7, 16, 30])
def test_a_fixed_total_does_not_grow_with_the_clients(clients):
    parts = at_fixed_total(LABELS, classes=10, clients=clients, majority=150, minority=11, generator=numpy_generator(1))
    counts = table(parts)
    assert disjoint(parts) and (counts.sum(axis=0) == 161).all() and len(parts) == clients
    many = np.array([[label in part.majority for label in range(10)] for part in parts])
    assert (np.where(many, counts, 0).sum(axis=0) == 150).all()
    for group in (0, 1):
        for kind in (many, ~many):
            held = np.where(kind, counts, 0)[group::2]
            # Even shares of every class, and even totals over the classes.
            assert np.ptp(held, axis=0).max() <= 1 and np.ptp(held.sum(axis=1)) <= 1


def test_a_fixed_total_for_two_is_clusters():
    options = dict(classes=10, clients=2, majority=150, minority=11)
    both = [deal(LABELS, **options, generator=numpy_generator(1)) for deal in (clusters, at_fixed_total)]
    assert all(np.array_equal(a.rows, b.rows) and a.majority == b.majority for a, b in zip(*both, strict=True))


def test_what_does_not_divide_goes_round():
    labels = np.repeat([0, 1, 2, 3], 50)
    parts = at_fixed_total(labels, classes=4, clients=6, majority=10, minority=1, generator=numpy_generator(1))
    assert np.array_equal(table(parts, labels, 4)[::2], [[4, 3, 1, 0], [3, 4, 0, 1], [3, 3, 0, 0]])


@pytest.mark.parametrize(("change", "message"), [
    (dict(majority=199, minority=2), r"class 0: 201 pictures are needed for 2 clients, 200 are available \(10 of 10"),
    (dict(labels=LABELS[LABELS != 7], majority=5), r"class 7: 6 pictures .* 0 are available \(1 of 10"),
    (dict(majority=0, minority=0), "majority >= 1"),
    (dict(majority=5, minority=6), "minority <= majority"),
    (dict(minority=-1), "0 <= minority"),
    (dict(majority=5.5), "whole numbers.*5.5"),
    (dict(majority=True), "whole numbers"),
    (dict(clients=0), "clients must be an integer >= 1"),
    (dict(clients=2.0), "clients must be"),
    (dict(groups=1), "groups must be an integer >= 2"),
    (dict(groups=11), "10 classes cannot be cut into 11 groups"),
    (dict(classes=9), r"labels must lie in \[0, 9\), got 0 to 9"),
    (dict(labels=LABELS.astype(float)), "whole numbers.*float64"),
    (dict(labels=LABELS[:, None]), "labels must be"),
])
@pytest.mark.parametrize("deal", DEALERS.values(), ids=DEALERS)
def test_refused_before_anything_is_drawn(deal, change, message):
    options = dict(labels=LABELS, classes=10, clients=2, majority=10, minority=1) | change
    generator = numpy_generator(1)
    state = generator.bit_generator.state
    with pytest.raises(ValueError, match=message):
        deal(options.pop("labels"), **options, generator=generator)
    assert generator.bit_generator.state == state


def test_totals_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="3 pictures of a class cannot be shared by the 4 clients"):
        at_fixed_total(LABELS, classes=10, clients=7, majority=3, minority=1, generator=numpy_generator(1))
    with pytest.raises(ValueError, match="2 groups .* at least as many clients, got 1"):
        at_fixed_total(LABELS, classes=10, clients=1, majority=3, minority=1, generator=numpy_generator(1))
