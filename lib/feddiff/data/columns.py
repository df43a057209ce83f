"""How one column crosses between a table and the diffusion space: numbers to N(0, 1), categories to codes.

A numeric column is a distribution function given by knots: `values[i]` takes the probabilities from `lower[i]` to
`upper[i]` (a tied value is a plateau of the inverse, a single value has lower = upper) and the function is linear in
between. One form serves scikit-learn's quantile transform, its tie-breaking version, differentially private quantiles
and public bounds.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

NUMERICS = ("quantile", "quantile-ties", "standard")
QUANTILES = 1000
MOST_DECIMALS = 6
# scikit-learn's QuantileTransformer keeps the normal output finite with this threshold: +-5.199.
EDGE = 1e-7
Z_LIMIT = float(-ndtri(EDGE - np.spacing(1)))
EXACT_INTEGERS = 2**53


def _probability(z: np.ndarray) -> np.ndarray:
    # The finite limits of z stand for the probabilities 0 and 1.
    limit = float(np.float32(Z_LIMIT))
    return np.where(z <= -limit, 0.0, np.where(z >= limit, 1.0, ndtr(z)))


def _tuple(values) -> tuple:
    return tuple(np.asarray(values, dtype=np.float64).tolist())


@dataclass(frozen=True, kw_only=True)
class NumericColumn:
    """A number column in the diffusion space.

    values, lower, upper: (m,) knots, values strictly rising, 0 <= lower <= upper <= 1 and both rising. With
    numerics="standard" they are the range (low, high) and `mean`, `scale` are used instead of probabilities.
    decimals: decoded numbers are rounded to so many places (0: whole numbers; None: not rounded).
    missing: the column has an extra two-level code "<name> is missing"; `fill` (default: the value at probability
    1/2) then stands in for the missing number.
    """

    name: str
    values: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    numerics: str = "quantile-ties"
    dtype: str = "float64"
    decimals: int | None = None
    missing: bool = False
    fill: float | None = None
    mean: float = 0.0
    scale: float = 1.0
    _grid: tuple = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        values, lower, upper = (np.asarray(part, dtype=np.float64) for part in (self.values, self.lower, self.upper))
        if self.numerics not in NUMERICS:
            raise ValueError(f"column {self.name!r}: numerics must be one of {NUMERICS}, got {self.numerics!r}")
        if values.ndim != 1 or not len(values) or not (values.shape == lower.shape == upper.shape):
            raise ValueError(f"column {self.name!r}: values, lower and upper must be non-empty and of equal length")
        if not np.isfinite(values).all() or (np.diff(values) <= 0).any():
            raise ValueError(f"column {self.name!r}: knot values must be finite and strictly rising")
        edges = np.column_stack([lower, upper]).ravel()
        if not np.isfinite(edges).all() or edges.min() < 0 or edges.max() > 1 or (np.diff(edges) < 0).any():
            raise ValueError(f"column {self.name!r}: knot probabilities must rise within [0, 1], lower before upper")
        if not (np.isfinite(self.mean) and np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"column {self.name!r}: mean must be finite and scale positive")
        _check_dtype(self)
        for name, part in (("values", values), ("lower", lower), ("upper", upper)):
            object.__setattr__(self, name, _tuple(part))
        # The edges are rounded to float32 in z, the precision of the encoded numbers, so that a code that was put
        # exactly on a knot decodes to exactly that knot.
        z_edges = np.clip(ndtri(edges), -Z_LIMIT, Z_LIMIT).astype(np.float32).reshape(-1, 2)
        inverse = (_probability(z_edges.astype(np.float64).ravel()), np.repeat(values, 2))
        object.__setattr__(self, "_grid", (values, lower, upper, z_edges, inverse))

    @classmethod
    def fit(cls, series: pd.Series, *, numerics: str = "quantile", integer: bool = False) -> "NumericColumn":
        """Return the column fitted on the non-missing numbers of `series`; ValueError if it holds none."""
        name, dtype = str(series.name), str(series.dtype)
        x = series.to_numpy(dtype=np.float64, na_value=np.nan)
        missing = bool(np.isnan(x).any())
        x = np.sort(x[~np.isnan(x)])
        if not len(x):
            raise ValueError(f"column {name!r}: every value is missing, nothing to fit")
        if not np.isfinite(x).all():
            raise ValueError(f"column {name!r}: holds infinite values; replace or drop them")
        integer = integer or series.dtype.kind in "iu"
        if integer and (np.abs(x) >= EXACT_INTEGERS).any():
            raise ValueError(f"column {name!r}: whole numbers beyond 2^53 cannot be held; is it an identifier?")
        if integer and (x != np.round(x)).any():
            raise ValueError(f"column {name!r}: kind is integer but it holds {x[x != np.round(x)][0]!r}")
        mean, scale = 0.0, 1.0
        if numerics == "quantile":
            values, lower, upper = sklearn_knots(x)
        elif numerics == "quantile-ties":
            values, lower, upper = tied_knots(x)
        else:
            values = np.unique(x[[0, -1]])
            lower = upper = np.linspace(0, 1, len(values))
            mean, scale = float(x.mean()), float(x.std()) or 1.0
        return cls(
            name=name, values=values, lower=lower, upper=upper, numerics=numerics, dtype=dtype, missing=missing,
            decimals=0 if integer else decimals_of(x), fill=float(x[len(x) // 2]), mean=mean, scale=scale,
        )

    @classmethod
    def from_quantiles(cls, name: str, values, probabilities, **options) -> "NumericColumn":
        """Return the column whose value at probability `probabilities[i]` is `values[i]`; equal values are one tie.

        Public bounds are the two quantiles (low, high) at (0, 1). `options` are the fields of the class.
        """
        values, probabilities = np.asarray(values, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
        if values.shape != probabilities.shape or values.ndim != 1 or (np.diff(values) < 0).any():
            raise ValueError(f"column {name!r}: quantile values must not fall and need one probability each")
        unique, first, count = np.unique(values, return_index=True, return_counts=True)
        lower, upper = probabilities[first], probabilities[first + count - 1]
        return cls(name=name, values=unique, lower=lower, upper=upper, **options)

    def encode(self, series: pd.Series, generator: np.random.Generator | None = None) -> np.ndarray:
        """Return the numbers of `series` in the diffusion space, float32 (n,); missing ones stand at `fill`.

        Numbers outside the fitted range are clipped to it. "quantile-ties" draws a rank inside every tie, so it
        needs `generator`; ValueError without one.
        """
        x = series.to_numpy(dtype=np.float64, na_value=np.nan)
        absent = np.isnan(x)
        if np.isinf(x).any():
            raise ValueError(f"column {self.name!r}: holds infinite values; replace or drop them")
        if absent.any():
            if not self.missing:
                raise ValueError(f"column {self.name!r}: missing values, but none were present when it was fitted")
            x = np.where(absent, self.middle, x)
        values, lower, upper, z_edges, (probabilities, knots) = self._grid
        x = np.clip(x, values[0], values[-1])
        if self.numerics == "standard":
            return ((x - self.mean) / self.scale).astype(np.float32)
        at = np.searchsorted(values, x)
        on_knot = values[at] == x
        if self.numerics == "quantile":
            between = np.interp(x, knots, np.column_stack([lower, upper]).ravel())
            u = np.where(on_knot, (lower[at] + upper[at]) / 2, between)
            u[x + EDGE > values[-1]] = 1.0
            u[x - EDGE < values[0]] = 0.0
            return np.clip(ndtri(u), -Z_LIMIT, Z_LIMIT).astype(np.float32)
        if generator is None:
            raise ValueError(f"column {self.name!r}: quantile-ties draws a rank inside ties; pass a numpy generator")
        rank = generator.random(len(x))
        u = np.where(on_knot, lower[at] + (upper[at] - lower[at]) * rank, np.interp(x, knots, probabilities))
        z = np.clip(ndtri(u), -Z_LIMIT, Z_LIMIT).astype(np.float32)
        # float32 rounding must not carry a tied value over the edge of its plateau, into its neighbour.
        tied = on_knot & (upper[at] > lower[at])
        inside = np.nextafter(z_edges, z_edges[:, ::-1])[at[tied]]
        z[tied] = np.clip(z[tied], inside[:, 0], inside[:, 1])
        return z

    def decode(self, numbers: np.ndarray, absent: np.ndarray | None = None) -> pd.Series:
        """Return the column's values for diffusion-space `numbers` (n,), rounded, in range, in the original dtype."""
        z = np.asarray(numbers, dtype=np.float32).astype(np.float64)
        if np.isnan(z).any():
            raise ValueError(f"column {self.name!r}: {int(np.isnan(z).sum())} numbers to decode are NaN; "
                             "the sampler diverged (smaller learning rate, clamped samples)")
        if self.numerics == "standard":
            x = z * self.scale + self.mean
        else:
            probabilities, knots = self._grid[-1]
            x = np.interp(_probability(z), probabilities, knots)
        if self.decimals is not None:
            x = np.round(x, self.decimals)
        x = np.clip(x, self.values[0], self.values[-1])
        if absent is not None:
            x[absent] = np.nan
        return pd.Series(x, name=self.name).astype(self.dtype)

    @property
    def middle(self) -> float:
        """The number that stands in for a missing one."""
        return float(np.interp(0.5, *self._grid[-1])) if self.fill is None else self.fill


def _check_dtype(column: "NumericColumn | CategoryColumn") -> None:
    dtype = pd.api.types.pandas_dtype(column.dtype)
    if column.missing and isinstance(dtype, np.dtype) and dtype.kind in "biu":
        raise ValueError(f"column {column.name!r}: dtype {column.dtype} cannot hold missing values; "
                         "use a nullable dtype (Int64, boolean) or float64")


def sklearn_knots(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the knots of scikit-learn's QuantileTransformer (at most 1000 quantiles, no subsampling) of sorted `x`."""
    references = np.linspace(0, 1, min(QUANTILES, len(x)))
    quantiles = np.maximum.accumulate(np.percentile(x, references * 100))
    values, first, count = np.unique(quantiles, return_index=True, return_counts=True)
    return values, references[first], references[first + count - 1]


def tied_knots(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every distinct value of sorted `x` with its share of probability; a single value sits in mid-share."""
    values, count = np.unique(x, return_counts=True)
    upper = np.cumsum(count) / len(x)
    lower = np.concatenate([[0.0], upper[:-1]])
    middle = (lower + upper) / 2
    return values, np.where(count > 1, lower, middle), np.where(count > 1, upper, middle)


def decimals_of(x: np.ndarray) -> int | None:
    """Return the fewest decimal places (at most 6) that write every number of `x` exactly, else None."""
    return next((places for places in range(MOST_DECIMALS + 1) if (np.round(x, places) == x).all()), None)


@dataclass(frozen=True, kw_only=True)
class CategoryColumn:
    """A category column: label `vocabulary[k]` has code k; a missing value, where `missing`, has the last code.

    vocabulary: distinct labels (str, int, float or bool), in order. ordered: only for dtype "category".
    other: what a label outside the vocabulary becomes: a label of the vocabulary, or None for a ValueError.
    """

    name: str
    vocabulary: tuple
    dtype: str = "object"
    ordered: bool = False
    missing: bool = False
    other: str | int | float | bool | None = None

    def __post_init__(self):
        labels = tuple(label.item() if isinstance(label, np.generic) else label for label in self.vocabulary)
        if not labels:
            raise ValueError(f"column {self.name!r}: the vocabulary is empty")
        wrong = [label for label in labels if not isinstance(label, (str, int, float, bool)) or label != label]
        if wrong:
            raise ValueError(f"column {self.name!r}: labels must be text, numbers or booleans, got {wrong[0]!r}")
        _check_dtype(self)
        if len(set(labels)) < len(labels):
            raise ValueError(f"column {self.name!r}: the vocabulary names a label twice")
        if self.other is not None and self.other not in labels:
            raise ValueError(f"column {self.name!r}: other={self.other!r} is not in the vocabulary")
        object.__setattr__(self, "vocabulary", labels)

    @classmethod
    def fit(cls, series: pd.Series, *, unseen: str = "error") -> "CategoryColumn":
        """Return the column with the labels of `series`: declared categories in their order, else sorted.

        unseen="other" says where labels that were not fitted will go: in a text column to the extra label "other",
        in a column of numbers or booleans to the most frequent label.
        """
        name, dtype = str(series.name), series.dtype
        if isinstance(dtype, pd.CategoricalDtype):
            labels, ordered = list(dtype.categories), bool(dtype.ordered)
        else:
            labels, ordered = sorted_labels(series.dropna().unique()), False
        if series.isna().all():
            raise ValueError(f"column {name!r}: every value is missing, nothing to fit")
        other = None
        if unseen == "other" and all(isinstance(label, str) for label in labels):
            other = "other"
            labels = labels if other in labels else [*labels, other]
        elif unseen == "other":
            other = sorted_labels(series.mode())[0]
        return cls(name=name, vocabulary=tuple(labels), dtype=str(dtype), ordered=ordered, other=other,
                   missing=bool(series.isna().any()))

    @property
    def levels(self) -> int:
        """Number of codes, the one for missing values included."""
        return len(self.vocabulary) + self.missing

    def encode(self, series: pd.Series) -> np.ndarray:
        """Return the codes of `series`, int64 (n,); ValueError naming column and label for one that is not known."""
        codes = pd.Index(self.vocabulary).get_indexer(series.astype(object)).astype(np.int64)
        absent = series.isna().to_numpy()
        if absent.any():
            if not self.missing:
                raise ValueError(f"column {self.name!r}: missing values, but none were present when it was fitted")
            codes[absent] = len(self.vocabulary)
        unknown = (codes < 0) & ~absent
        if unknown.any():
            if self.other is None:
                raise ValueError(f"column {self.name!r}: the value {series[unknown].iloc[0]!r} was not present when it "
                                 "was fitted; fit on a public vocabulary, or with unseen='other'")
            codes[unknown] = self.vocabulary.index(self.other)
        return codes

    def decode(self, codes: np.ndarray) -> pd.Series:
        """Return the labels of `codes` in the original dtype; ValueError for a code out of range."""
        codes = np.asarray(codes)
        if len(codes) and (codes.min() < 0 or codes.max() >= self.levels):
            raise ValueError(f"column {self.name!r}: codes must lie in [0, {self.levels}), "
                             f"got {codes.min()} to {codes.max()}")
        dtype = pd.CategoricalDtype(self.vocabulary, self.ordered) if self.dtype == "category" else self.dtype
        labels = pd.Series([*self.vocabulary, *([np.nan] if self.missing else [])], dtype=object)
        if self.dtype == "object":
            return pd.Series(labels.to_numpy()[codes], name=self.name, dtype=object)
        return labels.astype(dtype).take(codes).reset_index(drop=True).rename(self.name)


def sorted_labels(labels) -> list:
    """Return distinct labels sorted; labels of mixed types by type name, then by text."""
    labels = [label.item() if isinstance(label, np.generic) else label for label in labels]
    kinds = {type(label) for label in labels}
    return sorted(labels) if len(kinds) == 1 else sorted(labels, key=lambda label: (type(label).__name__, str(label)))
