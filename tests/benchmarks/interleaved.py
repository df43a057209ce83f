"""Interleaved timing: every round runs each variant once, so that a busy machine slows all of them alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tqdm import tqdm


@dataclass(frozen=True)
class Goal:
    """A ratio of two variants, numerator / denominator, paired by round, and the bound it should keep.

    at_most, at_least: the bound, or None where only the ratio is reported.
    """

    name: str
    numerator: str
    denominator: str
    at_most: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class Benchmark:
    """What is compared: variants by name, the goals, and remarks about the set-up.

    unit: of the measurements; repeats: timed calls in a row in one round, after one untimed call that brings the
    variant's own memory back into the cache; warm_up: rounds that are not counted; slow: variants that run only in
    the first `slow_rounds` rounds, once.
    """

    title: str
    variants: dict[str, Callable[[], float | None]]
    goals: list[Goal]
    rounds: int
    unit: str = "s"
    repeats: int = 1
    warm_up: int = 1
    slow: frozenset[str] = frozenset()
    slow_rounds: int = 3
    facts: dict[str, object] = field(default_factory=dict)


def run(benchmark: Benchmark) -> dict:
    """Return measurements and ratios, each as median, minimum, maximum and number of rounds.

    A variant is timed, unless it returns a number itself (peak memory).
    """
    values: dict[str, list[float]] = {name: [] for name in benchmark.variants}
    for turn in tqdm(range(-benchmark.warm_up, benchmark.rounds), desc=benchmark.title, leave=False):
        for name, variant in benchmark.variants.items():
            if name in benchmark.slow and turn >= benchmark.slow_rounds:
                continue
            repeats = 1 if name in benchmark.slow else benchmark.repeats
            if repeats > 1:
                variant()
            start = time.perf_counter()
            for _ in range(repeats):
                own = variant()
            value = (time.perf_counter() - start) / repeats if own is None else own
            if turn >= 0:
                values[name].append(value)
    return {
        "title": benchmark.title,
        "unit": benchmark.unit,
        "measured": {name: _summary(numbers) for name, numbers in values.items()},
        "ratios": [_ratio(goal, values) for goal in benchmark.goals],
        "facts": benchmark.facts,
    }


def _ratio(goal: Goal, values: dict[str, list[float]]) -> dict:
    pairs = zip(values[goal.numerator], values[goal.denominator])
    summary = _summary([above / below for above, below in pairs])
    bound = goal.at_most if goal.at_most is not None else goal.at_least
    met = None
    if bound is not None:
        met = summary["median"] <= bound if goal.at_most is not None else summary["median"] >= bound
    return {
        "name": goal.name,
        "numerator": goal.numerator,
        "denominator": goal.denominator,
        **summary,
        "at_most": goal.at_most,
        "at_least": goal.at_least,
        "met": met,
    }


def _summary(numbers: list[float]) -> dict:
    return {
        "median": statistics.median(numbers),
        "min": min(numbers),
        "max": max(numbers),
        "rounds": len(numbers),
    }
