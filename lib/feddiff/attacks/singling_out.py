"""Singling out: from the release alone, write a description that fits exactly one person of the original table.

Threat model (Giomi et al., 2023, section 4.1; Cohen and Nissim, 2020): the attacker holds only the synthetic table and
writes predicates that match exactly one of its distinct rows: a value that occurs once, an extreme, a missing value
(univariate), or a conjunction of several columns of one synthetic row, numbers taken towards the extreme
(multivariate). A predicate wins where it matches exactly one distinct row of the original. The blind attacker combines
random columns, operators and values of the release.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from feddiff.attacks.games import Counts
from feddiff.attacks.mixed_rows import CONTROL, ORIGINAL, SYNTHETIC, MixedRows
from feddiff.attacks.predicates import BATCH, EMPTY, MISSING, Predicates, RowSets, joined, positive

def univariate(rows: MixedRows, generator: np.random.Generator, attacks: int, stratify: bool = False) -> Predicates:
    """Return at most `attacks` predicates on one column that match one distinct synthetic row, in random order.

    Every value that occurs once, <= the minimum and >= the maximum of a number, and "is missing".
    stratify: take them evenly from the columns instead of in proportion to their number.
    """
    codes = rows.distinct(SYNTHETIC)
    parts = []
    for column, line in enumerate(codes):
        known, counts = np.unique(line, return_counts=True)
        # A value missing once is described by "is missing", the same condition: code -1.
        low, high = [known[counts == 1]], [known[counts == 1]]
        present = known[known != MISSING]
        if rows.continuous[column] and len(present):
            low.append([0, present[-1]])
            high.append([present[0], rows.levels[column] - 1])
        low, high = np.concatenate(low), np.concatenate(high)
        parts.append(positive(np.full((len(low), 1), column), low[:, None], high[:, None]))
    found = joined(parts)
    found = found.take(generator.permutation(len(found)))
    found = found.take(_sets(rows, codes).count(found) == 1)
    if stratify:
        order = np.argsort(found.columns[:, 0], kind="stable")
        sorted_columns = found.columns[order, 0]
        turn = np.arange(len(found)) - np.searchsorted(sorted_columns, sorted_columns)
        found = found.take(order[np.argsort(turn, kind="stable")])
    return found.take(slice(attacks))


def multivariate(
    rows: MixedRows, generator: np.random.Generator, attacks: int, columns: int, max_attempts: int
) -> Predicates:
    """Return at most `attacks` different predicates on `columns` columns that match one distinct synthetic row.

    Each attempt takes a random synthetic row and random columns: equal to a category or a missing value, at least a
    number above the column's median, at most one that is not. Stops after `max_attempts` attempts.
    """
    codes = rows.distinct(SYNTHETIC)
    middle = np.array([_median(rows, column, line) for column, line in enumerate(codes)])
    sets, found, tried = _sets(rows, codes), None, 0
    while tried < max_attempts and (found is None or len(found) < attacks):
        batch = min(BATCH, max_attempts - tried)
        tried += batch
        person = generator.integers(codes.shape[1], size=batch)
        chosen = _column_sets(len(codes), columns, batch, generator)
        code = codes[chosen, person[:, None]]
        ordered = rows.continuous[chosen] & (code != MISSING)
        above = ordered & (code > middle[chosen])
        high = np.where(above, rows.levels[chosen] - 1, code)
        fresh = positive(chosen, np.where(ordered & ~above, 0, code), high)
        fresh = fresh.take(sets.count(fresh) == 1)
        found = (fresh if found is None else joined([found, fresh])).distinct()
    return found.take(slice(attacks))


def _median(rows: MixedRows, column: int, line: np.ndarray) -> float:
    """Return the column's median as a bound on codes: a code above it has a value above the median."""
    line = line[line != MISSING]
    if not rows.continuous[column] or not len(line):
        return np.inf
    median = np.median(rows.values[column][line])
    return np.searchsorted(rows.values[column], median, side="right") - 1


def _column_sets(available: int, size: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return `count` random sets of `size` of the available columns, each increasing, (count, size)."""
    return np.sort(generator.random((count, available)).argsort(axis=1)[:, :size], axis=1)


def blind(rows: MixedRows, generator: np.random.Generator, attacks: int, columns: int) -> Predicates:
    """Return `attacks` random conjunctions: random columns, values of the release and operators.

    Operators: =, !=, and for numbers also <, <=, >, >=; a missing value is compared by "is" or "is not missing".
    """
    chosen = _column_sets(len(rows.names), columns, attacks, generator)
    known = [np.unique(line) for line in rows.codes[SYNTHETIC]]
    draw = generator.random(chosen.shape)
    code = np.zeros(chosen.shape, dtype=np.int64)
    for column, values in enumerate(known):
        here = chosen == column
        code[here] = values[(draw[here] * len(values)).astype(np.int64)]
    last = rows.levels[chosen] - 1
    ordered = rows.continuous[chosen] & (code != MISSING)
    operator = np.where(ordered, generator.integers(6, size=chosen.shape), generator.integers(2, size=chosen.shape))
    # =, !=, <, <=, >, >=.
    low = np.choose(operator, [code, code, 0 * code, 0 * code, code + 1, code])
    high = np.choose(operator, [code, code, code - 1, code, last, last])
    low, high = np.where(high < low, EMPTY, low), np.where(high < low, EMPTY, high)
    negated = operator == 1
    # "is not missing" is every value there is; negating "is missing" would do the same, but missing never fits !=.
    whole = negated & (code == MISSING)
    return Predicates(chosen, np.where(whole, 0, low), np.where(whole, last, high), negated & ~whole)


def play(
    rows: MixedRows,
    *,
    generator: np.random.Generator,
    attacks: int,
    columns: int,
    max_attempts: int,
    stratify: bool = False,
) -> Counts:
    """Play the game with predicates on `columns` columns (1: univariate) and return its counts.

    Repeated rows count once in every table. At most `attacks` predicates; fewer where no more were found.
    A control with another number of distinct rows gives the count expected at the original's number (`at_size`).
    """
    if columns == 1:
        predicates = univariate(rows, generator, attacks, stratify)
    else:
        predicates = multivariate(rows, generator, attacks, columns, max_attempts)
    guesses = blind(rows, generator, len(predicates), columns)
    original, control = rows.distinct(ORIGINAL), rows.distinct(CONTROL)
    sets = _sets(rows, original)
    control_attacks, control_successes = at_size(
        _sets(rows, control).count(predicates), control.shape[1], original.shape[1]
    )
    return Counts(
        attacks=len(predicates),
        successes=int(np.count_nonzero(sets.count(predicates) == 1)),
        control_attacks=control_attacks,
        control_successes=control_successes,
        baseline_attacks=len(guesses),
        baseline_successes=int(np.count_nonzero(sets.count(guesses) == 1)),
    )


def _sets(rows: MixedRows, codes: np.ndarray) -> RowSets:
    return RowSets(codes, int(rows.levels.max()))


def at_size(counts: np.ndarray, rows: int, size: int) -> tuple[float, float]:
    """Return (attacks, successes) of predicates that fit `counts` of `rows` control rows, as with `size` such rows.

    size < rows: the exact expectation over random subsets of the control. size > rows: successes are what was seen,
    attacks are fewer by the factor by which the model of Giomi et al. (2023, appendix A: weights of predicates spread
    evenly up to some w) makes successes grow; w is fitted to the expectations at smaller sizes. So the rate is
    corrected and the interval stays as wide as the evidence allows.
    """
    attacks, seen = len(counts), float(np.count_nonzero(counts == 1))
    if size == rows or not seen:
        return float(attacks), seen
    if size < rows:
        return float(attacks), _expected(counts, rows, size)
    sizes = np.unique(np.linspace(max(1, rows // 10), rows, 10).astype(int))
    shape = np.array([_expected(counts, rows, part) for part in sizes]) / seen

    def misfit(log_weight: float) -> float:
        return float(np.sum((_growth(sizes, log_weight) / _growth(rows, log_weight) - shape) ** 2))

    best = minimize_scalar(misfit, bounds=(np.log(1e-3 / size), 0.0), method="bounded").x
    growth = float(_growth(size, best) / _growth(rows, best))
    return max(attacks / growth, seen), seen


def _expected(counts: np.ndarray, rows: int, size: int) -> float:
    """Return how many predicates are expected to fit exactly one of `size` rows drawn without replacement."""
    fitting = counts[(counts > 0) & (rows - counts >= size - 1)].astype(float)
    ways = _log_choose(rows - fitting, size - 1) - _log_choose(float(rows), size)
    return float(np.sum(fitting * np.exp(ways)))


def _log_choose(whole: np.ndarray | float, part: int) -> np.ndarray | float:
    return gammaln(whole + 1) - gammaln(part + 1) - gammaln(whole - part + 1)


def _growth(size: np.ndarray | int, log_weight: float) -> np.ndarray | float:
    """Return, up to a factor, the chance of one match among `size` rows for a weight uniform on [0, w]."""
    weight = np.exp(log_weight)
    remaining = np.exp(size * np.log1p(-min(weight, 1 - 1e-12)))
    return (1 - (size * weight + 1) * remaining) / (np.asarray(size) + 1)
