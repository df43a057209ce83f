"""What happens once before DP-Fed-FinDiff trains: codecs, label marginals, and the budget of the whole horizon."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import torch

from feddiff.data.cells import CellCodec
from feddiff.data.codec import Encoded, LabelCodec, TableCodec
from feddiff.data.columns import NumericColumn
from feddiff.data.tables import Table
from feddiff.federation.rounds import participation
from feddiff.privacy import accounting
from feddiff.privacy.calibration import remaining_noise_multiplier, share_of_budget
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.privacy.noise import GaussianNoise, SecureGaussianNoise
from feddiff.privacy.preprocessing import private_codec, private_label_marginals
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems.findiff_config import FinDiffConfig
from feddiff.systems.findiff_prior import Potentials, Releases, measure

CONDITION_KINDS = ("categorical", "boolean")
# Share of the squared budget that private label counts take: a few hundred rows a class need no more.
LABEL_SHARE = 0.02
# Share of delta that releasing unknown vocabularies takes.
VOCABULARY_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class PublicKnowledge:
    """What is known of a table without looking at it, for preprocessing="private".

    bounds: (low, high) of every numeric or integer column. vocabulary: labels of categorical columns; a column without
    one has its labels released by a stable histogram, inside epsilon and delta.
    """

    bounds: Mapping[str, tuple[float, float]]
    vocabulary: Mapping[str, Sequence] = field(default_factory=dict)


Public = TableCodec | PublicKnowledge | None


@dataclass(frozen=True)
class ClientRows:
    """A client's rows in the diffusion space: codes (n, m), numbers (n, k), label codes (n,)."""

    codes: torch.Tensor
    numbers: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that training needs beside the network.

    codecs: one a client (the same object unless preprocessing="client"); label_codec None: unconditional;
    marginals: label probabilities that sampling draws from; participation: who takes part in each round;
    noise_multipliers: None a client without DP; max_steps: where a client's budget ends; bias: prior of the logits;
    potentials: of the model that the untrained network is, with prior="given_label" or "tree".
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    codecs: tuple[TableCodec | CellCodec, ...]
    label_codec: LabelCodec | None
    marginals: np.ndarray
    rows: tuple[ClientRows, ...]
    participation: list[tuple[int, ...]]
    noise_multipliers: tuple[float | None, ...]
    max_steps: tuple[int | None, ...]
    ledger: PrivacyLedger
    bias: torch.Tensor | None
    potentials: Potentials | None = None

    def encode(self, frame: pd.DataFrame, generator: np.random.Generator) -> ClientRows:
        """Return rows of any frame with the training columns, by the first client's codec."""
        return encode(frame, self.codecs[0], self.label_codec, generator)

    def decode(
        self, codes: np.ndarray, numbers: np.ndarray, labels: np.ndarray, generator: np.random.Generator
    ) -> pd.DataFrame:
        """Return the table of sampled points, label included, in the original column order.

        With a codec per client each row is decoded by one client's quantiles, drawn by the clients' rows.
        """
        share = np.array([len(rows) for rows in self.rows], dtype=float)
        owner = generator.choice(len(self.codecs), len(codes), p=share / share.sum())
        if isinstance(self.codecs[0], CellCodec):
            frame = self.codecs[0].decode(Encoded(codes, numbers), generator)
        elif len({id(codec) for codec in self.codecs}) == 1:
            frame = self.codecs[0].decode(Encoded(codes, numbers))
        else:
            parts = []
            for k, codec in enumerate(self.codecs):
                mine = np.flatnonzero(owner == k)
                parts.append(codec.decode(Encoded(codes[mine], numbers[mine])).set_axis(mine))
            frame = pd.concat(parts).sort_index()
        if self.label_codec is not None:
            frame[self.label_codec.name] = self.label_codec.decode(labels).to_numpy()
        return frame[list(self.columns)]


def encode(
    frame: pd.DataFrame, codec: TableCodec | CellCodec, label_codec: LabelCodec | None, generator: np.random.Generator
) -> ClientRows:
    """Return a frame's rows in the diffusion space; label 0 for all when there is no condition."""
    encoded = codec.encode(frame, generator)
    if label_codec is None:
        labels = np.zeros(len(frame), dtype=np.int64)
    else:
        labels = label_codec.encode(frame[label_codec.name])
    return ClientRows(*(torch.from_numpy(part) for part in (encoded.codes, encoded.numbers, labels)))


def prepare(clients: Sequence[Table], config: FinDiffConfig, public: Public) -> Prepared:
    """Check the clients, fit or take the codecs, and calibrate each client's noise on its whole horizon."""
    _check(clients, config, public)
    names = tuple(f"client-{k}" for k in range(len(clients)))
    ledger = PrivacyLedger(clients=names, delta=config.delta)
    schedule = participation(len(clients), config.R, config.participation, config.seed)
    label_codec, marginals = _labels(clients, config, ledger)
    codecs: tuple = _codecs(clients, config, public, label_codec, ledger)
    if config.prior != "bias":
        codecs = (CellCodec(codecs[0], config.cells),) * len(clients)
    rows = tuple(
        encode(client.frame, own, label_codec, numpy_generator(config.seed, "ties", name))
        for client, own, name in zip(clients, codecs, names)
    )
    bias, potentials = None, None
    if config.prior != "bias":
        potentials = _potentials(rows, codecs[0], len(marginals), config, ledger)
    elif config.prior_share:
        bias = _prior(rows, codecs[0].levels, len(marginals), config, ledger)
    multipliers, limits = [], []
    for k, client in enumerate(clients):
        steps = config.S * sum(k in chosen for chosen in schedule)
        sigma, limit = _calibrate(config, ledger, names[k], rows=len(client), steps=steps)
        multipliers.append(sigma)
        limits.append(limit)
    if config.private:
        ledger.declare_outside("training history (losses, clipped shares): diagnostics computed on private rows")
    return Prepared(
        names=names,
        columns=tuple(clients[0].frame.columns),
        codecs=codecs,
        label_codec=label_codec,
        marginals=marginals,
        rows=rows,
        participation=schedule,
        noise_multipliers=tuple(multipliers),
        max_steps=tuple(limits),
        ledger=ledger,
        bias=bias,
        potentials=potentials,
    )


def _check(clients: Sequence[Table], config: FinDiffConfig, public: Public) -> None:
    if not clients:
        raise ValueError("train needs at least one client, got an empty list")
    first = clients[0]
    for k, client in enumerate(clients):
        if list(client.frame.columns) != list(first.frame.columns) or client.kinds != first.kinds:
            raise ValueError(f"client-{k} differs from client-0 in columns or kinds; align the tables first")
        if client.target != first.target:
            raise ValueError(f"client-{k} has target {client.target!r}, client-0 {first.target!r}; use one target")
        if len(client) < config.B:
            raise ValueError(f"client-{k} has {len(client)} rows, fewer than B={config.B}; lower B or merge clients")
    wanted = {"public": TableCodec, "private": PublicKnowledge}.get(config.preprocessing, type(None))
    if not isinstance(public, wanted):
        raise ValueError(
            f"preprocessing={config.preprocessing!r} takes public={wanted.__name__}, got {type(public).__name__}: "
            "a public codec goes with 'public', PublicKnowledge (bounds, vocabulary) with 'private', nothing otherwise"
        )


def _noise(config: FinDiffConfig, *names: str) -> GaussianNoise | SecureGaussianNoise:
    """Return the source of noise of one release."""
    return SecureGaussianNoise() if config.secure else GaussianNoise(torch_generator(config.seed, "dp-noise", *names))


def _labels(
    clients: Sequence[Table], config: FinDiffConfig, ledger: PrivacyLedger
) -> tuple[LabelCodec | None, np.ndarray]:
    target = clients[0].target
    if target is None or clients[0].kinds[target] not in CONDITION_KINDS:
        return None, np.ones(1)
    labels = [client.frame[target] for client in clients]
    pooled = pd.concat(labels, ignore_index=True)
    codec = LabelCodec.fit(pooled)
    if config.label_marginals == "pooled":
        counts = np.bincount(codec.encode(pooled), minlength=len(codec.classes))
        ledger.declare_outside(f"label marginals and classes of {target!r}: counts of the training rows of all clients")
        return codec, counts / counts.sum()
    ledger.declare_outside(f"names of the classes of {target!r}")
    marginals = private_label_marginals(
        labels,
        codec.classes,
        noise_over_sensitivity=share_of_budget(target_epsilon=config.epsilon, delta=config.delta, share=LABEL_SHARE),
        ledger=ledger,
        noise=_noise(config, "label marginals"),
    )
    return codec, marginals


def _prior(
    rows: Sequence[ClientRows], levels: tuple[int, ...], classes: int, config: FinDiffConfig, ledger: PrivacyLedger
) -> torch.Tensor:
    """Return log-probabilities (classes, sum(levels)) of every category given the label, from DP histograms.

    A record counts once in each of the m histograms (column x label), so together they have L2 sensitivity sqrt(m).
    """
    ratio = share_of_budget(target_epsilon=config.epsilon, delta=config.delta, share=config.prior_share)
    offsets = torch.tensor([0, *levels]).cumsum(0)[:-1]
    total = torch.zeros(classes, sum(levels), dtype=torch.float64)
    for name, own in zip(ledger.clients, rows):
        cells = own.labels[:, None] * sum(levels) + own.codes + offsets
        counts = torch.bincount(cells.flatten(), minlength=total.numel()).double().view_as(total)
        noise = _noise(config, "prior", name)
        total += counts + noise.fill_(torch.empty_like(total), ratio * math.sqrt(len(levels)))
        ledger.spend_gaussian(
            name, noise_over_sensitivity=ratio, what=f"{len(levels)} histograms given the label: prior of the logits"
        )
    # Half a row per cell: a category that the noise hid stays possible, and the network can correct it.
    parts = [torch.log(block / block.sum(1, keepdim=True)) for block in total.clamp(min=0.5).split(levels, dim=1)]
    return torch.cat(parts, dim=1).float()


def _potentials(
    rows: Sequence[ClientRows], codec: CellCodec, classes: int, config: FinDiffConfig, ledger: PrivacyLedger
) -> Potentials:
    sources = {name: _noise(config, "prior", name) for name in ledger.clients}
    return measure(
        Releases([own.codes for own in rows], [own.labels for own in rows], ledger, sources.__getitem__),
        codec.levels,
        codec.ordinal,
        classes,
        tree=config.prior == "tree",
        target_epsilon=config.epsilon,
        delta=config.delta,
        share=config.prior_share,
    )


def _codecs(
    clients: Sequence[Table],
    config: FinDiffConfig,
    public: Public,
    label_codec: LabelCodec | None,
    ledger: PrivacyLedger,
) -> tuple[TableCodec, ...]:
    if isinstance(public, TableCodec):
        return (public,) * len(clients)
    columns = [c for c in clients[0].frame.columns if label_codec is None or c != label_codec.name]
    kinds = clients[0].kinds
    if isinstance(public, PublicKnowledge):
        return (_private_codec(clients, config, public, columns, ledger),) * len(clients)
    pooled = TableCodec.fit(
        pd.concat([client.frame for client in clients], ignore_index=True),
        kinds,
        columns=columns,
        numerics=config.numerics,
        provenance="pooled",
    )
    if config.preprocessing == "pooled":
        ledger.declare_outside(f"codec ({config.numerics}): quantiles and vocabulary of the pooled training rows")
        return (pooled,) * len(clients)
    own = tuple(_own_quantiles(pooled, client.frame, config.numerics) for client in clients)
    ledger.declare_outside(f"codec ({config.numerics}): quantiles of each client's rows, vocabulary of their union")
    return own


def _private_codec(
    clients: Sequence[Table], config: FinDiffConfig, public: PublicKnowledge, columns: list[str], ledger: PrivacyLedger
) -> TableCodec:
    missing = [c for c in columns if any(client.frame[c].isna().any() for client in clients)]
    if missing:
        ledger.declare_outside(f"which columns have missing values: {', '.join(missing)}")
    released = [c for c in columns if clients[0].kinds[c] == "categorical" and c not in public.vocabulary]
    return private_codec(
        [client.frame for client in clients],
        clients[0].kinds,
        noise_over_sensitivity=share_of_budget(
            target_epsilon=config.epsilon, delta=config.delta, share=config.preprocessing_share
        ),
        bounds=public.bounds,
        vocabulary=public.vocabulary,
        vocabulary_delta=VOCABULARY_SHARE * config.delta if released else 0.0,
        columns=columns,
        missing=missing,
        numerics=config.numerics,
        ledger=ledger,
        noise=_noise(config, "codec"),
    )


def _own_quantiles(pooled: TableCodec, frame: pd.DataFrame, numerics: str) -> TableCodec:
    """Return `pooled` with its numeric columns fitted on one client's rows; all clients keep the same code columns."""
    columns = []
    for column in pooled.columns:
        if isinstance(column, NumericColumn):
            fitted = NumericColumn.fit(frame[column.name], numerics=numerics)
            column = replace(fitted, missing=column.missing, dtype=column.dtype, decimals=column.decimals)
        columns.append(column)
    return TableCodec(tuple(columns), "client")


def _calibrate(
    config: FinDiffConfig, ledger: PrivacyLedger, name: str, *, rows: int, steps: int
) -> tuple[float | None, int | None]:
    """Return the client's noise multiplier and the local step at which its budget ends (None: never)."""
    if not config.private:
        return None, None
    if steps == 0:
        return 0.0, 0
    rate = config.B / rows
    if config.noise_multiplier is None:
        sigma = remaining_noise_multiplier(
            ledger, name, target_epsilon=config.epsilon, sample_rate=rate, steps=steps
        )
        return sigma, steps
    if config.epsilon is None:
        return config.noise_multiplier, None
    limit = accounting.max_steps(
        target_epsilon=config.epsilon,
        sample_rate=rate,
        noise_multiplier=config.noise_multiplier,
        steps=steps,
        delta=config.delta,
    )
    return config.noise_multiplier, limit
