"""How pictures fall to clients by class: many of some classes, few of the others (PFDM's heterogeneous clients)."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class ClientClasses:
    """One client's part: rows int64 (sorted, disjoint between clients), and its classes of many and of few pictures."""

    rows: np.ndarray
    majority: tuple[int, ...]
    minority: tuple[int, ...]


def clusters(
    labels: np.ndarray, *, classes: int, clients: int = 2, majority: int, minority: int,
    generator: np.random.Generator, groups: int = 2,
) -> list[ClientClasses]:
    """Deal every client `majority` pictures of each class of its own group and `minority` of each other class.

    Classes 0..classes-1 are cut into `groups` contiguous groups (sizes differ by at most one, the larger first); client
    k has group k mod groups. Pictures are drawn without replacement, none goes to two clients. ValueError names a
    class with too few pictures, how many are needed and how many there are.
    """
    owners = _owners(classes, clients, groups)
    _check_counts(majority, minority)
    counts = np.where(owners, majority, minority)
    return _deal(np.asarray(labels), owners, counts, generator)


def at_fixed_total(
    labels: np.ndarray, *, classes: int, clients: int, majority: int, minority: int,
    generator: np.random.Generator, groups: int = 2,
) -> list[ClientClasses]:
    """Deal as `clusters` does, but `majority` and `minority` are totals that the clients share, whatever their number.

    Of each class, `majority` pictures are divided over the clients of its group and `minority` over all other
    clients. What does not divide goes out one picture a client in turn, and the turn goes on from class to class: with
    two groups, the clients of one differ by at most one picture in either kind. The share of a minority class may be
    0, of a majority class it may not (ValueError). With two clients this is `clusters`.
    """
    owners = _owners(classes, clients, groups)
    _check_counts(majority, minority)
    if clients < groups:
        raise ValueError(f"{groups} groups of classes need at least as many clients, got {clients}")
    most = -(-clients // groups)
    if majority < most:
        raise ValueError(f"{majority} pictures of a class cannot be shared by the {most} clients of its group; "
                         "raise majority or take fewer clients")
    counts = np.zeros((clients, classes), dtype=np.int64)
    for total, kind in ((majority, owners), (minority, ~owners)):
        # The clients of one group share their classes, so each such circle keeps its own turn.
        turns: dict[tuple[int, ...], int] = {}
        for label in range(classes):
            circle = tuple(np.flatnonzero(kind[:, label]))
            turn = turns.get(circle, 0)
            whole, rest = divmod(total, len(circle))
            counts[list(circle), label] = whole
            for place in range(turn, turn + rest):
                counts[circle[place % len(circle)], label] += 1
            turns[circle] = turn + rest
    return _deal(np.asarray(labels), owners, counts, generator)


def _owners(classes: int, clients: int, groups: int) -> np.ndarray:
    """Return (clients, classes): whether the class is in the client's own group."""
    for name, value, least in (("classes", classes, 2), ("clients", clients, 1), ("groups", groups, 2)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    if groups > classes:
        raise ValueError(f"{classes} classes cannot be cut into {groups} groups")
    group = np.concatenate([np.full(len(part), number)
                            for number, part in enumerate(np.array_split(np.arange(classes), groups))])
    return group[None, :] == (np.arange(clients) % groups)[:, None]


def _check_counts(majority: int, minority: int) -> None:
    whole = all(isinstance(count, (int, np.integer)) and not isinstance(count, bool) for count in (majority, minority))
    if not (whole and majority >= 1 and 0 <= minority <= majority):
        raise ValueError("majority and minority must be whole numbers of pictures with majority >= 1 and "
                         f"0 <= minority <= majority, got {majority!r} and {minority!r}")


def _deal(
    labels: np.ndarray, owners: np.ndarray, counts: np.ndarray, generator: np.random.Generator
) -> list[ClientClasses]:
    classes = counts.shape[1]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be whole numbers (n,), got {labels.dtype} {labels.shape}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels must lie in [0, {classes}), got {labels.min()} to {labels.max()}")
    available = np.bincount(labels, minlength=classes)
    short = np.flatnonzero(counts.sum(axis=0) > available)
    if len(short):
        label = short[0]
        raise ValueError(f"class {label}: {counts[:, label].sum():,} pictures are needed for {len(counts)} clients, "
                         f"{available[label]:,} are available ({len(short)} of {classes} classes have too few); "
                         "lower majority or minority, or take fewer clients")
    rows: list[list[np.ndarray]] = [[] for _ in counts]
    for label in range(classes):
        members = generator.permutation(np.flatnonzero(labels == label))
        pieces = np.split(members[: counts[:, label].sum()], np.cumsum(counts[:, label])[:-1])
        for part, piece in zip(rows, pieces):
            part.append(piece)
    return [
        ClientClasses(np.sort(np.concatenate(part)).astype(np.int64), tuple(np.flatnonzero(own).tolist()),
                      tuple(np.flatnonzero(~own).tolist()))
        for part, own in zip(rows, owners)
    ]
