"""Federated rounds in one process: broadcast, local training, upload, aggregation; the budget lives across rounds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from tqdm.auto import tqdm

from feddiff.diffusion.ema import EMA
from feddiff.federation.channel import Channel, Message
from feddiff.federation.client import Client
from feddiff.federation.strategies import Server
from feddiff.privacy.ledger import PrivacyLedger
from feddiff.seeds import numpy_generator


def participation(clients: int, rounds: int, fraction: float, seed: int) -> list[tuple[int, ...]]:
    """Return who takes part in each round: ceil(fraction * clients) clients drawn without replacement.

    The draw is public and made before training, so every client's horizon is known when its noise is calibrated; no
    amplification by client sampling is claimed.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"participation must lie in (0, 1], got {fraction}")
    generator = numpy_generator(seed, "participation")
    size = math.ceil(fraction * clients)
    return [tuple(sorted(generator.choice(clients, size, replace=False).tolist())) for _ in range(rounds)]


@dataclass
class Federation:
    """Clients, a server, the channel between them, and the ledger of what the clients have spent.

    history holds one row a round: mean training loss and clipped share over participants (diagnostics on private
    rows, outside the DP statement), L2 norm of the global move and of the weights, bytes on the wire in that round.
    """

    clients: Sequence[Client]
    server: Server
    channel: Channel = field(default_factory=Channel)
    ledger: PrivacyLedger | None = None
    ema: EMA | None = None
    history: list[dict] = field(default_factory=list)
    stopped: str = ""

    @property
    def round(self) -> int:
        """Rounds done."""
        return len(self.history)

    def run(
        self,
        schedule: Sequence[tuple[int, ...]],
        local_updates: int,
        *,
        after_round: Callable[["Federation"], None] | None = None,
        progress: bool = True,
    ) -> None:
        """Run the rounds of `schedule` that are not done yet; stop early when no participant has budget left.

        after_round may add entries to the round's history row, and may save a checkpoint.
        """
        remaining = range(self.round, len(schedule))
        for r in tqdm(remaining, desc="rounds", initial=self.round, total=len(schedule), disable=not progress):
            takers = [(k, self.clients[k].allowed_steps(local_updates)) for k in schedule[r]]
            takers = [(k, steps) for k, steps in takers if steps > 0]
            if not takers:
                self.stopped = f"budget spent after round {self.round} of {len(schedule)}"
                return
            self.history.append(self._round(r, takers))
            if after_round is not None:
                after_round(self)

    def _round(self, r: int, takers: list[tuple[int, int]]) -> dict:
        updates, rows, diagnostics = [], [], []
        logged = len(self.channel.log)
        for k, steps in takers:
            client = self.clients[k]
            sent = self._send("server", client.name, "broadcast", self.server.weights, r)
            trained, diagnostic = client.update(sent, steps)
            if self.ledger is not None:
                self.ledger.spend_sgm(
                    client.name,
                    sample_rate=client.sample_rate,
                    noise_multiplier=client.noise_multiplier or 0.0,
                    steps=steps,
                )
            updates.append(self._send(client.name, "server", "update", trained, r))
            rows.append(client.rows)
            diagnostics.append(diagnostic)
        move = self.server.aggregate(updates, rows)
        if not math.isfinite(move):
            raise FloatingPointError(f"round {r}: the aggregated weights are not finite; lower the learning rate")
        if self.ema is not None:
            self.ema.update(self.server.weights)
        return {
            "round": r,
            "participants": len(takers),
            "loss": sum(d["loss"] * n for d, n in zip(diagnostics, rows)) / sum(rows),
            "clipped": sum(d["clipped"] * n for d, n in zip(diagnostics, rows)) / sum(rows),
            "move_norm": move,
            "weight_norm": float(self.server.weights.norm()),
            "bytes": sum(m.nbytes for m in self.channel.log[logged:]),
        }

    def _send(self, sender: str, receiver: str, kind: str, weights: torch.Tensor, r: int) -> torch.Tensor:
        received = self.channel.send(sender, receiver, kind, {"weights": weights.numpy()}, round=r)
        return torch.from_numpy(received["weights"])

    def weights(self) -> torch.Tensor:
        """Return the global weights, averaged when there is an EMA that has seen a round."""
        averaged = self.ema is not None and self.ema.average is not None
        return self.ema.average if averaged else self.server.weights

    def state(self) -> dict:
        """Return what a checkpoint needs."""
        return {
            "clients": {client.name: client.state() for client in self.clients},
            "server": self.server.state(),
            "ledger": None if self.ledger is None else self.ledger.to_json(),
            "ema": None if self.ema is None else self.ema.state(),
            "history": self.history,
            "messages": [[m.sender, m.receiver, m.kind, m.round, m.nbytes] for m in self.channel.log],
        }

    def summary(self) -> dict:
        """Return what is worth keeping of a finished federation: global weights, history, ledger, messages."""
        kept = {name: value for name, value in self.state().items() if name in ("history", "ledger", "messages")}
        return {"weights": self.weights(), "stopped": self.stopped, **kept}

    def restore(self, summary: dict) -> None:
        """Take up the `summary` of a finished federation; it can be sampled from, not trained on."""
        self.server.weights, self.ema, self.stopped = summary["weights"], None, summary["stopped"]
        self._take_up(summary)

    def load(self, state: dict) -> None:
        """Take up the state of a checkpoint; the ledger continues where it stood."""
        for client in self.clients:
            client.load(state["clients"][client.name])
        self.server.load(state["server"])
        if self.ema is not None:
            self.ema.load(state["ema"])
        self._take_up(state)

    def _take_up(self, state: dict) -> None:
        if self.ledger is not None:
            self.ledger = PrivacyLedger.from_json(state["ledger"])
        self.history = list(state["history"])
        self.channel.log[:] = [Message(*entry) for entry in state["messages"]]
