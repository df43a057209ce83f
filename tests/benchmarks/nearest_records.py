"""Nearest records: our exact search against chunked torch.cdist, in time and on exact copies."""

import numpy as np
import torch
from interleaved import Benchmark, Goal

from feddiff.evaluation.nearest import nearest_distances
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
