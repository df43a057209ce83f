"""Nearest-record search that is exact where it matters: a copy is at distance exactly 0.

Expanding |q - r|^2 into a matrix product (as torch.cdist does by default) is fast but cancels: it puts exact copies at
distances up to .005. Here the float32 product only proposes candidates, every record within its rounding bound of the
best, and their distances are recomputed in float64 from differences.
"""

import numpy as np
import torch

# One tile of the distance matrix (512 records x 512 queries, 1 MiB) stays in the cache between product and minimum;
# its minima are kept for blocks of 32 records, few enough to be measured in full.
QUERY_CHUNK = 512
TILE = 512
BLOCK = 32
CANDIDATES = 256
WIDEST_ONE_HOT = 64


class NearestRecord:
    """Records to search: numbers (m, p) float64 and codes (m, c) int64 with `levels[j]` values in column j.

    The squared distance is the sum of squared differences of numbers plus 1 for every code that differs. Memory stays
    at a few blocks of the distance matrix, whatever the number of queries and records.
    """

    def __init__(self, numbers: np.ndarray, codes: np.ndarray, levels: list[int]):
        # Equal records would all be candidates; one of each kind is enough.
        joined = np.ascontiguousarray(np.column_stack([numbers, codes]) + 0.0)
        keys = joined.view(np.dtype((np.void, joined.dtype.itemsize * joined.shape[1]))).ravel()
        _, first = np.unique(keys, return_index=True)
        self._numbers, self._codes = numbers[first], codes[first]
        self._centre = self._numbers.mean(axis=0)
        self._narrow = [(column, count) for column, count in enumerate(levels) if count <= WIDEST_ONE_HOT]
        self._wide = [column for column, count in enumerate(levels) if count > WIDEST_ONE_HOT]
        embedded = self._embed(self._numbers, self._codes)
        squares = embedded.square().sum(1)
        self._longest = squares.max().sqrt()
        # The squared norm rides along as one more column of the product; padding records are infinitely far.
        padding = -len(embedded) % TILE
        self._right = torch.nn.functional.pad(torch.cat([embedded, squares[:, None]], 1), (0, 0, 0, padding))
        self._right[len(embedded) :, -1] = torch.finfo(torch.float32).max
        self._right_codes = torch.nn.functional.pad(torch.from_numpy(self._codes[:, self._wide]), (0, 0, 0, padding))
        self._numbers = np.pad(self._numbers, ((0, padding), (0, 0)), constant_values=np.inf)
        self._codes = np.pad(self._codes, ((0, padding), (0, 0)), constant_values=-1)

    def distances(self, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return the distance of each query to its nearest record, float64 (n,)."""
        squared = [
            self._chunk(numbers[start : start + QUERY_CHUNK], codes[start : start + QUERY_CHUNK])
            for start in range(0, len(numbers), QUERY_CHUNK)
        ]
        return np.sqrt(np.concatenate(squared))

    def _embed(self, numbers: np.ndarray, codes: np.ndarray) -> torch.Tensor:
        """Return numbers and one-hot codes / sqrt 2 as float32 (n, width), numbers centred to keep norms small."""
        parts = [torch.from_numpy((numbers - self._centre).astype(np.float32))]
        for column, count in self._narrow:
            one_hot = torch.from_numpy(codes[:, column, None] == np.arange(count))
            parts.append(one_hot.float() * 0.5**0.5)
        return torch.cat(parts, 1)

    def _chunk(self, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        embedded = self._embed(numbers, codes)
        left = torch.cat([-2 * embedded, torch.ones(len(embedded), 1)], 1)
        left_codes = torch.from_numpy(codes[:, self._wide])
        tile = torch.empty(TILE, len(left))
        minima = torch.empty(len(self._right) // BLOCK, len(left))
        for start in range(0, len(self._right), TILE):
            part = slice(start, start + TILE)
            torch.mm(self._right[part], left.T, out=tile)
            for column in range(left_codes.shape[1]):
                tile += self._right_codes[part, column, None] != left_codes[:, column]
            lowest = minima[start // BLOCK : (start + TILE) // BLOCK]
            torch.amin(tile.view(-1, BLOCK, len(left)), 1, out=lowest)
        # |computed - exact| <= terms u (|q| + |r|)^2 for a sum of so many products in float32, u = 2^-24. The true
        # nearest record lies within two such errors of the best; the factor 4 leaves room for the embedding's own.
        terms = left.shape[1] + left_codes.shape[1] + 2
        reach = (embedded.norm(dim=1) + self._longest).square() + left_codes.shape[1]
        limit = minima.amin(0) + 4 * terms * 2.0**-24 * reach
        if not torch.isfinite(limit).all():
            raise ValueError("records are more than 1e18 apart: rescale the numbers")
        block, query = (side.numpy() for side in torch.nonzero(minima <= limit, as_tuple=True))
        return self._measured(numbers, codes, query, block)

    def _measured(self, numbers: np.ndarray, codes: np.ndarray, query: np.ndarray, block: np.ndarray) -> np.ndarray:
        """Return the least exact squared distance of each query over the records of its candidate blocks."""
        best = np.full(len(numbers), np.inf)
        blocks = [array.reshape(len(array) // BLOCK, BLOCK, array.shape[1]) for array in (self._numbers, self._codes)]
        for start in range(0, len(query), CANDIDATES):
            q, b = query[start : start + CANDIDATES], block[start : start + CANDIDATES]
            difference = blocks[0][b] - numbers[q][:, None]
            squared = np.einsum("cbd,cbd->cb", difference, difference)
            if codes.shape[1]:
                squared += (blocks[1][b] != codes[q][:, None]).sum(2)
            np.minimum.at(best, q, squared.min(1))
        return best


def nearest_distances(queries: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return each query's Euclidean distance to its nearest reference point, float64 (n,); copies exactly 0.

    queries (n, d) and reference (m, d), finite; ValueError otherwise.
    """
    points = [np.asarray(array, dtype=float) for array in (queries, reference)]
    for array, name in zip(points, ("queries", "reference")):
        if array.ndim != 2 or array.size == 0 or array.shape[1] != points[0].shape[1]:
            raise ValueError(f"queries and reference must be non-empty (n, d) and (m, d); {name} is {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds values that are not finite")
    none = [np.empty((len(array), 0), dtype=np.int64) for array in points]
    return NearestRecord(points[1], none[1], []).distances(points[0], none[0])
