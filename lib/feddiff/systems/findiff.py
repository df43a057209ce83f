"""DP-Fed-FinDiff: federated DP-SGD diffusion for tables (Sattarov, Schreyer & Borth, arXiv 2412.16083).

The algorithm, with the equation numbers of the authors' code map (their eq. 5 is the definition of DP):

    codec, label marginals, optional prior         once, before training             systems.findiff_privacy
    for round r = 1..R:
        server -> client k: weights                                                  federation.rounds
        for local update s = 1..S at client k:                                       federation.client
            batch  ~ Poisson(q_k = B / n_k)                                          privacy.sampling
            x_t    = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps                  eq. 1  diffusion.process
            loss_i = || eps - eps_theta(x_t, t, label) ||^2, one a record     eq. 3  diffusion.table_head
            g      = (sum_i clip(grad loss_i, C) + N(0, sigma^2 C^2)) / B     eq. 6  privacy.step
            theta <- Adam(theta, g)
        client k -> server: weights
        weights = sum_k n_k / n * weights_k                                   eq. 4  federation.strategies
    x_T ~ N(0, I), ancestral steps to x_0 (posterior mean)                    eq. 2  diffusion.samplers

The server adds no noise. (epsilon, delta) holds for a record of one client over the whole horizon R * S.
"""

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from feddiff.data.cells import CellCodec
from feddiff.data.tables import Table
from feddiff.diffusion import checkpoint as checkpoints
from feddiff.diffusion import samplers, timesteps
from feddiff.diffusion.denoisers import MLPDenoiser
from feddiff.diffusion.ema import EMA
from feddiff.diffusion.schedules import linear
from feddiff.diffusion.table_head import TableHead
from feddiff.diffusion.table_space import table_space
from feddiff.diffusion.table_tree import TreePrior
from feddiff.federation.client import Client, LocalTraining, flat_weights, load_flat_weights
from feddiff.federation.rounds import Federation
from feddiff.federation.strategies import Server, Strategy
from feddiff.seeds import numpy_generator, torch_generator
from feddiff.systems.findiff_config import FinDiffConfig, bias_only, ours, paper, strongest, strongest_start
from feddiff.systems.findiff_privacy import ClientRows, Prepared, Public, PublicKnowledge, prepare

__all__ = [
    "FinDiffConfig", "FinDiffRun", "PublicKnowledge", "Strategy", "bias_only", "from_state", "ours", "paper",
    "strongest", "strongest_start", "train",
]

SAMPLE_CHUNK = 1000


def train(
    clients: Sequence[Table],
    config: FinDiffConfig,
    *,
    public: Public = None,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 10,
    monitor: Table | None = None,
) -> "FinDiffRun":
    """Train one model over the clients' training rows and return the run.

    clients: at least one Table with the same columns, kinds and target, each with at least B rows. A categorical or
    boolean target conditions the model; a numeric target or none is modelled as a column. public: a TableCodec for
    preprocessing="public", PublicKnowledge for "private". checkpoint: file to resume from, and to write every
    checkpoint_every rounds; a resumed run equals an uninterrupted one. monitor: held-out rows whose denoising loss
    joins each round's history.
    """
    run = _untrained(clients, config, public)
    file = None if checkpoint is None else Path(checkpoint)
    fingerprint = _fingerprint(config, run.prepared)
    if file is not None and file.exists():
        run.federation.load(checkpoints.load(file, fingerprint))
    watched = None if monitor is None else run.watch(monitor)

    def after_round(state: Federation) -> None:
        if watched is not None:
            state.history[-1]["held_out_loss"] = watched()
        if file is not None and (state.round % checkpoint_every == 0 or state.round == config.R):
            checkpoints.save(file, state.state(), fingerprint)

    run.federation.run(run.prepared.participation, config.S, after_round=after_round, progress=progress)
    return run


def from_state(
    state: dict, clients: Sequence[Table], config: FinDiffConfig, *, public: Public = None
) -> "FinDiffRun":
    """Return the trained run that `FinDiffRun.to_state` described, on the same clients and configuration."""
    run = _untrained(clients, config, public)
    run.federation.restore(state)
    return run


@dataclass
class FinDiffRun:
    """A trained model with its history and its privacy statement; `sample` draws synthetic rows."""

    config: FinDiffConfig
    prepared: Prepared
    head: TableHead
    network: MLPDenoiser
    federation: Federation

    @property
    def history(self) -> pd.DataFrame:
        """One row a round: loss, clipped share, norms, bytes (and held_out_loss); diagnostics on private rows."""
        return pd.DataFrame(self.federation.history)

    @property
    def privacy(self) -> dict:
        """The complete DP statement of the ledger; says so when the run is not private."""
        return self.federation.ledger.statement()

    @property
    def nbytes(self) -> int:
        """Bytes that crossed the network in training, both directions."""
        return self.federation.channel.nbytes()

    def to_state(self) -> dict:
        """Return the trained weights, history, ledger and messages as tensors and plain values (for a cache)."""
        return self.federation.summary()

    def sample(
        self,
        rows: int,
        *,
        seed: int,
        labels: Sequence | None = None,
        steps: int | None = None,
        eta: float = 0.0,
    ) -> pd.DataFrame:
        """Return `rows` synthetic rows with the columns, order and dtypes of the training tables.

        labels: the label of each row; None draws them from the label marginals. steps None takes all T ancestral steps
        with variance beta_t (the authors'; with prior="given_label" or "tree": from drawn x_0, with the posterior
        variance); a number takes that many strided steps with `eta` (0 DDIM, 1 stochastic).
        """
        if not isinstance(rows, (int, np.integer)) or rows < 1:
            raise ValueError(f"rows must be an integer >= 1, got {rows!r}")
        codes = self._label_codes(rows, labels, numpy_generator(seed, "labels"))
        generator = torch_generator(seed, "sampling")
        network = self._trained()
        points = [self._sample_points(network, part, generator, steps, eta) for part in codes.split(SAMPLE_CHUNK)]
        tokens, numbers = self.head.space.nearest(torch.cat(points))
        return self.prepared.decode(tokens.numpy(), numbers.numpy(), codes.numpy(), numpy_generator(seed, "decoding"))

    def loss_per_record(self, frame: pd.DataFrame, t: np.ndarray, noise: np.ndarray, *, seed: int = 0) -> np.ndarray:
        """Return the training loss of each row of `frame` at timesteps t (n, K) with noise (n, K, dim), shape (n,).

        What a white-box adversary scores; the same fixed noise for every record makes it sharp.
        """
        rows = self.prepared.encode(frame, numpy_generator(seed, "ties", "scoring"))
        return self._losses(rows, torch.as_tensor(t), torch.as_tensor(noise, dtype=torch.float32)).numpy()

    def watch(self, table: Table, draws: int = 4) -> Callable[[], float]:
        """Return a function that gives the present global model's mean loss on `table` at fixed draws."""
        rows = self.prepared.encode(table.frame, numpy_generator(self.config.seed, "ties", "monitor"))
        generator = torch_generator(self.config.seed, "monitor")
        t = torch.randint(self.config.T, (len(rows), draws), generator=generator)
        noise = torch.randn(len(rows), draws, self.head.space.dim, generator=generator)
        return lambda: float(self._losses(rows, t, noise).mean())

    @torch.no_grad()
    def _losses(self, rows: ClientRows, t: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        x0 = self.head.space.embed(rows.codes, rows.numbers)
        network = self._trained()
        parts = [
            self.head.loss(network, x0[i], rows.codes[i], rows.labels[i], t[i], noise[i])
            for i in torch.arange(len(rows)).split(SAMPLE_CHUNK)
        ]
        return torch.cat(parts)

    def _trained(self) -> MLPDenoiser:
        load_flat_weights(self.network, self.federation.weights())
        return self.network.eval()

    def _label_codes(self, rows: int, labels: Sequence | None, generator: np.random.Generator) -> torch.Tensor:
        if labels is None:
            return torch.from_numpy(generator.choice(len(self.prepared.marginals), rows, p=self.prepared.marginals))
        if self.prepared.label_codec is None:
            raise ValueError("labels were given, but the model has no categorical target to condition on")
        if len(labels) != rows:
            raise ValueError(f"labels has {len(labels)} entries for {rows} rows; give one label a row")
        return torch.from_numpy(self.prepared.label_codec.encode(pd.Series(labels)))

    def _sample_points(
        self, network: MLPDenoiser, labels: torch.Tensor, generator: torch.Generator, steps: int | None, eta: float
    ) -> torch.Tensor:
        x = torch.randn(len(labels), self.head.space.dim, generator=generator)
        drawn = steps is None and self.head.tree is not None
        predict = self.head.predict_x0(network, labels, generator, drawn=drawn)
        if steps is None:
            variance = "posterior" if drawn else "beta"
            return samplers.ancestral(predict, x, self.head.schedule, generator, variance=variance)
        return samplers.ddim(predict, x, self.head.schedule, generator, steps=steps, eta=eta)


def _untrained(clients: Sequence[Table], config: FinDiffConfig, public: Public) -> FinDiffRun:
    prepared = prepare(clients, config, public)
    head, network = _model(config, prepared)
    members = [_client(k, rows, config, prepared, head, network) for k, rows in enumerate(prepared.rows)]
    federation = Federation(
        clients=members,
        server=Server(config.strategy, flat_weights(network)),
        ledger=prepared.ledger,
        ema=EMA(config.ema) if config.ema else None,
    )
    return FinDiffRun(config=config, prepared=prepared, head=head, network=network, federation=federation)


def _model(config: FinDiffConfig, prepared: Prepared) -> tuple[TableHead, MLPDenoiser]:
    generator = torch_generator(config.seed, "init")
    codec = prepared.codecs[0]
    space = table_space(
        codec.levels,
        len(codec.number_columns),
        embedding=config.embedding,
        generator=generator,
        ordinal=codec.ordinal if isinstance(codec, CellCodec) else None,
    )
    schedule = linear(config.T, beta_1=config.beta_1, beta_T=config.beta_T, scale_betas=config.scale_betas)
    tree = None
    if (released := prepared.potentials) is not None:
        tree = TreePrior(space, schedule, released.unary, released.edges, released.pairs)
    head = TableHead(
        space=space,
        schedule=schedule,
        head=config.head,
        prediction=config.prediction,
        reduction=config.reduction,
        bias=prepared.bias,
        tree=tree,
    )
    network = MLPDenoiser(
        space.dim,
        head.d_out,
        hidden=config.hidden,
        classes=len(prepared.marginals),
        generator=generator,
        conditioning=config.conditioning,
        body=config.body,
        label_scale=config.label_scale,
        zero_output=config.zero_output,
        uniform_output=config.uniform_output,
        freeze_condition=config.freeze_condition,
    )
    return head, network


def _client(
    k: int, rows: ClientRows, config: FinDiffConfig, prepared: Prepared, head: TableHead, network: MLPDenoiser
) -> Client:
    own = copy.deepcopy(network)
    x0 = head.space.embed(rows.codes, rows.numbers)

    def draws(batch: torch.Tensor, generator: torch.Generator) -> Callable[[slice], torch.Tensor]:
        progress = min(client.steps_taken / (config.R * config.S), 1.0)
        t = timesteps.draw(config.timesteps, config.T, (len(batch), config.K), progress, generator)
        noise = torch.randn(len(batch), config.K, head.space.dim, generator=generator)
        x, codes, labels = x0[batch], rows.codes[batch], rows.labels[batch]
        return lambda i: head.loss(own, x[i], codes[i], labels[i], t[i], noise[i])

    training = LocalTraining(
        batch_size=config.B,
        total_steps=config.R * config.S,
        lr=config.lr,
        lr_schedule=config.lr_schedule,
        optimiser=config.optimiser,
        optimiser_state=config.optimiser_state,
        proximal=config.strategy.proximal,
        clip_norm=config.C,
        clipping=config.clipping,
        microbatch=config.microbatch,
        secure=config.secure,
    )
    client = Client(
        name=prepared.names[k],
        rows=len(rows),
        network=own,
        draws=draws,
        training=training,
        noise_multiplier=prepared.noise_multipliers[k],
        max_steps=prepared.max_steps[k],
        seed=config.seed,
    )
    return client


def _fingerprint(config: FinDiffConfig, prepared: Prepared) -> str:
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(config), sort_keys=True).encode())
    for rows in prepared.rows:
        for part in (rows.codes, rows.numbers, rows.labels):
            digest.update(part.numpy().tobytes())
    return digest.hexdigest()
