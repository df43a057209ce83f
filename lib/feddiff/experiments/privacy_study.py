"""What the notebooks on accounting and pre-processing share: public knowledge, the leak of a codec, a refused formula.

The leak game (privacy.md 6.1, DF3) asks what a codec gives away although the generator behind it never saw a row.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from feddiff.data.codec import Encoded, TableCodec
from feddiff.data.tables import Table
from feddiff.privacy.accounting import gaussian_epsilon
from feddiff.privacy.arguments import count, delta_of, real
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.privacy.noise import GaussianNoise
from feddiff.privacy.preprocessing import private_codec, public_codec
from feddiff.seeds import numpy_generator, torch_generator

# Ranges that a codebook or common sense gives: round numbers, beyond every value of the data, found without a query.
_BANK = {
    "age": (0, 120), "balance": (-10_000, 200_000), "day": (1, 31), "duration": (0, 5_000), "campaign": (1, 100),
    "pdays": (-1, 1_000), "previous": (0, 300),
}
_ADULT = {
    "age": (0, 120), "fnlwgt": (0, 2_000_000), "capital-gain": (0, 100_000), "capital-loss": (0, 10_000),
    "hours-per-week": (0, 100),
}
_CREDIT = {"LIMIT_BAL": (0, 1_000_000), "AGE": (0, 120)}
_CREDIT |= {f"BILL_AMT{month}": (-500_000, 2_000_000) for month in range(1, 7)}
_CREDIT |= {f"PAY_AMT{month}": (0, 2_000_000) for month in range(1, 7)}
BOUNDS = {
    "bank-marketing": _BANK, "marketing-full": _BANK, "adult": _ADULT, "adult-full": _ADULT, "credit-default": _CREDIT,
}

CHANNELS = ("quantile_knots", "vocabulary")
CODECS = ("pooled", "pooled_ties", "client", "private", "public")
_CANARY_LABEL = "a label of one row"
_REACH = 10  # the outlier lies so many times the length of the column's range beyond it


def public_bounds(table: Table, own: Mapping[str, Sequence[float]] | None = None) -> dict[str, tuple[float, float]]:
    """Return (low, high) of every number column of `table`: BOUNDS by its name, `own` before them.

    ValueError names the columns without bounds: they must come from knowledge about the table, never from its rows.
    """
    known = {**BOUNDS.get(table.name, {}), **(own or {})}
    wanted = [name for name in table.features if table.kinds[name] in ("numeric", "integer")]
    absent = [name for name in wanted if name not in known]
    if absent:
        raise ValueError(
            f"{table.name} has no public bounds for {', '.join(absent)}: give bounds = {{'{absent[0]}': [low, high]}}, "
            "from a codebook and not from the rows"
        )
    return {name: tuple(float(end) for end in known[name]) for name in wanted}


def vocabulary(table: Table) -> dict[str, list]:
    """Return the labels of every categorical column of the whole table, which stand in for its published codebook."""
    names = [name for name in table.features if table.kinds[name] == "categorical"]
    return {name: sorted(table.frame[name].dropna().unique().tolist()) for name in names}


def leak(
    table: Table,
    column: str,
    codec: str,
    *,
    bounds: tuple[float, float] | None,
    rows: int,
    trials: int,
    seed: int,
    clients: int = 5,
    noise_over_sensitivity: float | None = None,
    delta: float = 1e-5,
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return scores (trials,), presence (trials,) and the privacy statement in the game "was the canary fitted?".

    Two neighbouring tables: `rows` rows of one `column`, spread over the clients, and the same with a canary: an
    outlier (`bounds` given), or a label of its own (None). In each trial a coin picks the table, a codec of CODECS is
    fitted on it, and a generator that knows nothing but the latent prior (N(0, 1), uniform codes) draws `rows` rows
    through the codec. The score counts released values beyond `bounds`, or canary labels. The statement is what a
    ledger says of the codec: only "private" spends; what the others but "public" read is listed as outside.
    """
    game = _Game(table, column, codec, bounds, noise_over_sensitivity, delta)
    draw = numpy_generator(seed, "leak", column, codec)
    parts = {there: game.parts(rows, clients, numpy_generator(seed, "leak", column), there) for there in (False, True)}
    noise = GaussianNoise(torch_generator(seed, "leak", column, codec))
    present = draw.random(count("trials", trials, low=1)) < 0.5
    scores = np.empty(len(present))
    if codec == "private":
        scores[:] = [game.scores(game.fit(parts[there], noise)[0], rows, draw)[0] for there in present.tolist()]
    else:
        for there, part in parts.items():
            # Without noise every trial of one table has the same codec.
            scores[present == there] = game.scores(game.fit(part, noise)[0], rows, draw, int((present == there).sum()))
    return scores, present, game.fit(parts[True], noise)[1].statement()


class _Game:
    """One column of a table as a game: the parts of the clients, a codec of them, and the score of its release."""

    def __init__(self, table, column, codec, bounds, noise_over_sensitivity, delta):
        if codec not in CODECS:
            raise ValueError(f"codec must be one of {CODECS}, got {codec!r}")
        if column not in table.frame.columns or (table.kinds[column] in ("numeric", "integer")) != (bounds is not None):
            raise ValueError(
                f"column must be a number of {table.name} with bounds, or a category without; got {column!r}"
            )
        if (codec == "private") != (noise_over_sensitivity is not None):
            raise ValueError("noise_over_sensitivity belongs to codec 'private', and only to it")
        self.column, self.codec, self.bounds = column, codec, bounds
        self.ratio, self.delta = noise_over_sensitivity, delta
        self.values, self.kinds = table.frame[column].dropna().to_numpy(), {column: table.kinds[column]}
        if bounds is None:
            self.values = self.values.astype(object)
            self.canary = _CANARY_LABEL
            self.labels = [*sorted(set(self.values.tolist())), self.canary]
        else:
            low, high = bounds
            self.canary = high + _REACH * (high - low)

    def parts(self, rows: int, clients: int, draw: np.random.Generator, there: bool) -> list[pd.DataFrame]:
        """Return each client's rows; the canary, if there, is one row more at the first client."""
        if not 0 < clients <= count("rows", rows) <= len(self.values):
            raise ValueError(f"rows must lie between the clients and the {len(self.values)} known values, got {rows}")
        split = np.array_split(self.values[draw.choice(len(self.values), rows, replace=False)], clients)
        if there:
            split[0] = np.append(split[0], np.array([self.canary], dtype=split[0].dtype))
        return [pd.DataFrame({self.column: part}) for part in split]

    def fit(self, parts: list[pd.DataFrame], noise: GaussianNoise) -> tuple[list[TableCodec], PrivacyLedger]:
        """Return one codec for all clients, or one a client, and the ledger of what it spent."""
        ledger = PrivacyLedger(clients=[f"client-{k}" for k in range(len(parts))], delta=self.delta)
        # The public range holds the canary: bounds that cut it off would hide it from any codec.
        known = {
            "bounds": {} if self.bounds is None else {self.column: (self.bounds[0], float(self.canary))},
            "numerics": "quantile-ties",
        }
        if self.codec == "public":
            domain = {self.column: self.labels} if self.bounds is None else {}
            return [public_codec(parts[0], self.kinds, vocabulary=domain, **known)], ledger
        if self.codec == "private":
            share = self.delta / 10 if self.bounds is None else 0.0
            spent = dict(noise_over_sensitivity=self.ratio, vocabulary_delta=share, ledger=ledger, noise=noise)
            return [private_codec(parts, self.kinds, **spent, **known)], ledger
        numerics = "quantile-ties" if self.codec == "pooled_ties" else "quantile"
        # Of a category the clients share the union of their labels, as the network needs one width.
        own = parts if self.codec == "client" and self.bounds is not None else [pd.concat(parts, ignore_index=True)]
        ledger.declare_outside(f"codec ({numerics}): quantiles and vocabulary of the rows")
        return [TableCodec.fit(part, self.kinds, numerics=numerics) for part in own], ledger

    def scores(
        self, codecs: list[TableCodec], rows: int, draw: np.random.Generator, trials: int = 1
    ) -> np.ndarray:
        """Return for each trial how many of `rows` released rows, spread over the codecs, show the canary."""
        shown, size = np.zeros(trials), rows // len(codecs)
        for codec in codecs:
            codes = np.empty((trials * size, len(codec.levels)), dtype=np.int64)
            for place, levels in enumerate(codec.levels):
                codes[:, place] = draw.integers(levels, size=len(codes))
            numbers = draw.standard_normal((len(codes), len(codec.number_columns))).astype(np.float32)
            released = codec.decode(Encoded(codes, numbers))[self.column]
            hits = released == self.canary if self.bounds is None else released > self.bounds[1]
            shown += hits.to_numpy().reshape(trials, size).sum(axis=1)
        return shown


def central_limit_epsilon(*, sample_rate: float, noise_multiplier: float, steps: int, delta: float) -> float:
    """Return what the refused central-limit ("GDP") accountant would report: a demonstration, no upper bound.

    Bu, Dong, Long, Su 2020, "Deep Learning with Gaussian Differential Privacy": one Gaussian release with
    mu = q sqrt(T (exp(1 / sigma^2) - 1)).
    """
    rate = real("sample_rate", sample_rate, high=1.0)
    noise = real("noise_multiplier", noise_multiplier, open_low=True)
    mu = rate * math.sqrt(count("steps", steps) * math.expm1(1 / noise**2))
    return gaussian_epsilon(noise_over_sensitivity=1 / mu if mu > 0 else math.inf, delta=delta_of(delta))
