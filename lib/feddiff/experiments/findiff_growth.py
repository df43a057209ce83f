"""What a run costs as rows, clients and parameters grow: CPU time and peak memory, each point in a process of its own.

The peak of a process never falls, so two points in one process would share the larger. A server that has imported the
library and done nothing else forks a child for each point (where there is no fork, a new process is started). Times are
CPU seconds of the child on one thread, so that a busy machine does not count; memory is the child's largest resident
size beyond what it held after a tiny warm-up run, when the library itself is in memory.
"""

import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import torch

from feddiff.data import partitions, tables
from feddiff.experiments import provenance, records
from feddiff.seeds import numpy_generator
from feddiff.systems import findiff

SAMPLED = 200
START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
MEGABYTE = 1e6
COSTS = ("prepare_cpu_ms", "round_cpu_ms", "step_cpu_ms", "sample_cpu_ms", "table_megabytes", "peak_megabytes")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measured configuration: `rows` of a table (with replacement beyond its size), `clients`, `width`.

    recipe: "ours" (a logit for each category) or "paper" (two coordinates for each categorical column). rounds of
    `updates` local updates are timed; the noise multiplier is fixed, for the accountant's time is not the question.
    """

    rows: int
    clients: int = 5
    width: int = 128
    recipe: str = "ours"
    rounds: int = 2
    updates: int = 5
    seed: int = 0

    def config(self) -> findiff.FinDiffConfig:
        """Return the run's configuration: our recipe at epsilon 1, or the authors' parts, at this width."""
        recipe = {"ours": findiff.ours, "paper": findiff.paper}[self.recipe]
        config = recipe(epsilon=1.0, T=100, R=self.rounds, S=self.updates, hidden=(self.width,), seed=self.seed)
        return replace(config, epsilon=None, noise_multiplier=1.0)


def axes(base: Point, *, rows: Sequence[int], clients: Sequence[int], widths: Sequence[int]) -> list[tuple[str, Point]]:
    """Return (axis, point) along each axis from `base`; the base itself belongs to all of them."""
    along = [("rows", replace(base, rows=n)) for n in rows]
    along += [("clients", replace(base, clients=k)) for k in clients]
    return along + [("width", replace(base, width=w)) for w in widths]


def resampled(table: tables.Table, rows: int, seed: int) -> tables.Table:
    """Return `rows` rows: without replacement up to the table's own number, with replacement beyond."""
    generator = numpy_generator(seed, "resampling")
    if rows <= len(table):
        return table.select(np.sort(generator.permutation(len(table))[:rows]))
    return table.select(np.sort(generator.integers(len(table), size=rows)))


def cost(point: Point, rows: tables.Table, file: Path) -> dict[str, float]:
    """Return COSTS and sizes of one point, measured in this process (see `measure` for one of its own).

    file: the point's rows as Parquet, read here so that their memory counts; rows: what they are, an empty Table.
    """
    _warm_up(point.config(), file.with_name("warm-up.parquet"))
    before = provenance.peak_memory_bytes()
    table = replace(rows, frame=pd.read_parquet(file))
    members = [table.select(part) for part in
               partitions.iid(len(table), point.clients, numpy_generator(point.seed, "partition"))]
    found = {"table_megabytes": (provenance.peak_memory_bytes() - before) / MEGABYTE}
    config, start = point.config(), process_time()
    run = findiff.train(members, replace(config, R=1, S=1), progress=False)
    first = process_time() - start
    parties, weights, start = run.federation.clients, run.federation.weights(), process_time()
    for _ in range(point.rounds):
        for client in parties:
            client.update(weights, point.updates)
    steps = process_time() - start
    found["round_cpu_ms"] = 1e3 * steps / point.rounds
    found["step_cpu_ms"] = 1e3 * steps / (point.rounds * point.clients * point.updates)
    found["prepare_cpu_ms"] = max(0.0, 1e3 * first - point.clients * found["step_cpu_ms"])
    start = process_time()
    run.sample(SAMPLED, seed=point.seed)
    found["sample_cpu_ms"] = 1e3 * (process_time() - start) / SAMPLED
    return found | {
        "peak_megabytes": (provenance.peak_memory_bytes() - before) / MEGABYTE,
        "parameters": float(len(weights)),
        "outputs": float(run.head.d_out),
        "megabytes_a_round": run.nbytes / MEGABYTE,
    }


def _warm_up(config: findiff.FinDiffConfig, file: Path) -> None:
    """Read, train and sample once on a table of 150 rows, so that the pages of the libraries count for no point."""
    table = tables.load("iris")
    table.frame.to_parquet(file)
    tiny = replace(config, R=1, S=1, B=32, hidden=(8,), T=30)
    findiff.train([replace(table, frame=pd.read_parquet(file))], tiny, progress=False).sample(10, seed=0)


def _alone(point: Point, rows: tables.Table, file: Path) -> dict[str, float]:
    torch.set_num_threads(1)
    return cost(point, rows, file)


def measure(
    run: records.Run, table: tables.Table, point: Point, *, axis: str, known: dict[str, float] | None = None
) -> dict[str, float]:
    """Measure a point in a process of its own and record it under an axis; `known`: what it cost, measured before."""
    found = _in_own_process(table, point) if known is None else known
    labels = dict(axis=axis, rows=point.rows, clients=point.clients, width=point.width, recipe=point.recipe)
    for name, value in found.items():
        run.metric(name, value, **labels)
    return found


def _in_own_process(table: tables.Table, point: Point) -> dict[str, float]:
    context = multiprocessing.get_context(START)
    if START == "forkserver":
        context.set_forkserver_preload([__name__])
    with tempfile.TemporaryDirectory() as folder:
        file, own = Path(folder) / "rows.parquet", resampled(table, point.rows, point.seed)
        own.frame.to_parquet(file)
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_alone, point, own.select(np.arange(0)), file).result()


def growth(run: records.Run, axis: str, sizes: Sequence[float], found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Record each cost's growth exponent along an axis: the log-log slope between smallest and largest size."""
    low, high = int(np.argmin(sizes)), int(np.argmax(sizes))
    exponents = {}
    for name in (*COSTS, "megabytes_a_round", "parameters"):
        small, large = found[low][name], found[high][name]
        if small > 0 and large > 0:
            exponents[name] = float(np.log(large / small) / np.log(sizes[high] / sizes[low]))
            run.metric("growth_exponent", exponents[name], axis=axis, cost=name)
    return exponents


def line(sizes: Sequence[float], costs: Sequence[float], at: float) -> float:
    """Return the least-squares straight line through (size, cost) at another size, not below 0: an extrapolation."""
    slope, level = np.polyfit(np.asarray(sizes, dtype=float), np.asarray(costs, dtype=float), 1)
    return float(max(0.0, level + slope * at))

