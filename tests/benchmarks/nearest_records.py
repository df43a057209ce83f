"""Nearest records: our exact search against chunked torch.cdist, in time and on exact copies, and its memory."""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from interleaved import Benchmark, Goal

from feddiff.evaluation.nearest import nearest_distances
from feddiff.experiments.provenance import peak_memory_bytes
from feddiff.seeds import numpy_generator

QUERIES, REFERENCE, COLUMNS, COPIES, CHUNK = 10_000, 30_000, 30, 500, 1000


def nearest(rounds: int) -> Benchmark:
    generator = numpy_generator(0, "nearest")
    reference = generator.standard_normal((REFERENCE, COLUMNS)).astype(np.float32) * 3 + 20
    queries = generator.standard_normal((QUERIES, COLUMNS)).astype(np.float32) * 3 + 20
    queries[:COPIES] = reference[:COPIES]

    def cdist() -> torch.Tensor:
        right = torch.from_numpy(reference)
        return torch.cat([torch.cdist(part, right).amin(1) for part in torch.from_numpy(queries).split(CHUNK)])

    def run_ours() -> None:
        nearest_distances(queries, reference)

    def run_cdist() -> None:
        cdist()

    return Benchmark(
        title=f"nearest of {REFERENCE} records for {QUERIES}, {COLUMNS} columns",
        variants={"our search": run_ours, "chunked cdist": run_cdist},
        goals=[Goal("speed against chunked cdist", "chunked cdist", "our search", at_least=5.0)],
        rounds=rounds,
        facts={
            "largest distance of an exact copy": {
                "our search": float(nearest_distances(queries[:COPIES], reference).max()),
                "chunked cdist": float(cdist()[:COPIES].max()),
            }
        },
    )


def memory(rounds: int, records: int = 100_000) -> Benchmark:
    """Compare peak memory at `records` x `records`, a tenth of the queries and a tenth of both; a process each."""
    few = records // 10
    sizes = {_size(few, few): (few, few), _size(few, records): (few, records), _size(records, records): (records,) * 2}

    def fresh(queries: int, reference: int) -> Callable[[], float]:
        def measure() -> float:
            command = [sys.executable, str(Path(__file__).resolve()), str(queries), str(reference)]
            return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

        return measure

    variants: dict[str, Callable[[], float]] = {name: fresh(*size) for name, size in sizes.items()}
    whole = "the whole matrix, by calculation"
    variants[whole] = lambda: 4 * records * records / 2**20
    least, fewer, all_of_them = sizes
    return Benchmark(
        title=f"peak memory of nearest records, up to {records} x {records}, {COLUMNS} columns",
        variants=variants,
        goals=[
            Goal("ten times the queries", all_of_them, fewer, at_most=1.2),
            Goal("ten times queries and records", all_of_them, least),
            Goal("the whole matrix against our search", whole, all_of_them, at_least=50.0),
        ],
        rounds=rounds,
        unit="MiB",
        warm_up=0,
        facts={"measured": "largest resident size less that before the search, with the tables in memory",
               "tables in memory, MiB": {name: 8 * COLUMNS * sum(size) / 2**20 for name, size in sizes.items()}},
    )


def _size(queries: int, reference: int) -> str:
    return f"{queries} queries, {reference} records"


def _peak(queries: int, reference: int) -> float:
    """Return the MiB that one search adds to a process that holds both tables and has searched a small one."""
    torch.set_num_threads(1)
    generator = numpy_generator(0, "nearest")
    sides = [generator.standard_normal((rows, COLUMNS)) for rows in (queries, reference)]
    nearest_distances(sides[0][:600], sides[1][:600])
    before = peak_memory_bytes()
    nearest_distances(*sides)
    return (peak_memory_bytes() - before) / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=_peak.__doc__)
    parser.add_argument("queries", type=int)
    parser.add_argument("reference", type=int)
    given = parser.parse_args()
    print(_peak(given.queries, given.reference))
