"""SiloFuse with every silo in an operating-system process of its own: nothing shared but the bytes of the messages.

Two pipes lead to a silo. The wire carries what crosses between the parties: the very bytes that `federation.channel`
counts, no pickles. The desk is the silo's own operator: it gives orders, and gets errors and the silo's synthetic
part. Here one program starts all silos and is the coordinator; on machines of their own each silo has its own desk.
"""

import io
import multiprocessing
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

import numpy as np
import pandas as pd
import torch

from feddiff.data.silos import Silo
from feddiff.federation.channel import Channel, Message
from feddiff.systems.silofuse import aligned, output_order
from feddiff.systems.silofuse_config import SiloFuseConfig
from feddiff.systems.silofuse_parties import COORDINATOR, Coordinator, SiloClient

FORWARDED = (ValueError, TypeError, RuntimeError, FloatingPointError)
# Seconds that a silo gets to end by itself before it is stopped.
PATIENCE = 10


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the message as it crosses: the wire format of `federation.channel` (uncompressed npz, no pickles)."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpacked(message: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a message; ValueError for anything that would have to be unpickled."""
    with np.load(io.BytesIO(message), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def train(
    silos: Sequence[Silo],
    config: SiloFuseConfig,
    *,
    columns: Sequence[str] | None = None,
    progress: bool = True,
) -> "ProcessFederation":
    """Train SiloFuse with a process for each silo, all at once; the same bytes and the same result as in one process.

    The processes stay up to decode, until `close` or the end of a `with` block.
    """
    federation = ProcessFederation(silos, config, columns=columns)
    try:
        federation.fit(progress=progress)
    except BaseException:
        federation.close()
        raise
    return federation


class ProcessFederation:
    """The coordinator, and both pipes to every silo; `channel` counts what crossed the wires."""

    def __init__(self, silos: Sequence[Silo], config: SiloFuseConfig, *, columns: Sequence[str] | None = None):
        silos = aligned(silos)
        self.columns = output_order(silos, columns)
        self.config, self.coordinator, self.channel = config, Coordinator(config), Channel()
        self._silos = {silo.name: _Remote(silo, config, len(silos)) for silo in silos}

    def fit(self, *, progress: bool = True) -> None:
        """Run the protocol of `silofuse.train`; the silos train side by side."""
        for round in range(self.config.rounds):
            for silo in self._silos.values():
                silo.order("fit", round=round, progress=progress)
            for silo in self._silos.values():
                silo.answer()
            for name, silo in self._silos.items():
                silo.ask("upload", round=round)
                message = silo.wire.recv_bytes()
                self.channel.log.append(Message(name, COORDINATOR, "upload", round, len(message)))
                self.coordinator.receive(name, unpacked(message), round=round)
            self.coordinator.fit(round=round, progress=progress)
            if round + 1 < self.config.rounds:
                for name, z in self.coordinator.denoised(round).items():
                    # The order first: a message longer than a pipe holds waits until the silo reads it.
                    self._silos[name].order("receive")
                    self._send(name, "denoised", z, round)
                    self._silos[name].answer()

    def sample_parts(self, rows: int, *, seed: int) -> dict[str, pd.DataFrame]:
        """Return the synthetic columns of each silo, as its desk hands them over."""
        z, parts = self.coordinator.generate(rows, seed=seed), {}
        for name, silo in self._silos.items():
            silo.order("decode", seed=seed)
            self._send(name, "latents", z[name], 0)
            parts[name] = silo.answer()
        return parts

    def sample(self, rows: int, *, seed: int) -> pd.DataFrame:
        """Return `rows` synthetic rows with all columns: what the silos have once they share their parts."""
        return pd.concat(list(self.sample_parts(rows, seed=seed).values()), axis=1)[self.columns]

    def reconstruction(self) -> pd.DataFrame:
        """Return the alarm of every silo: columns silo, column, kind, score."""
        return pd.concat([silo.ask("reconstruction") for silo in self._silos.values()], ignore_index=True)

    @property
    def nbytes(self) -> int:
        """Bytes that crossed the wires so far, framing included."""
        return self.channel.nbytes()

    def close(self) -> None:
        """End the silos' processes."""
        for silo in self._silos.values():
            silo.close()

    def __enter__(self) -> "ProcessFederation":
        return self

    def __exit__(self, *raised) -> None:
        self.close()

    def _send(self, name: str, kind: str, z: np.ndarray, round: int) -> None:
        message = packed({"z": z})
        self.channel.log.append(Message(COORDINATOR, name, kind, round, len(message)))
        self._silos[name].wire.send_bytes(message)


class _Remote:
    """This end of a silo's process and of its two pipes."""

    def __init__(self, silo: Silo, config: SiloFuseConfig, silos: int):
        context = multiprocessing.get_context("spawn")
        self.name = silo.name
        self.wire, wire = context.Pipe()
        self._desk, desk = context.Pipe()
        given = (wire, desk, silo, config, silos, torch.get_num_threads())
        self._process = context.Process(target=_serve, args=given, name=silo.name, daemon=True)
        self._process.start()
        # This end's copies: with them open, the end of a silo that died would go unnoticed.
        wire.close()
        desk.close()

    def order(self, what: str, **arguments) -> None:
        """Tell the silo to do something."""
        self._desk.send((what, arguments))

    def answer(self):
        """Return what the last order came to; the silo's own error is raised here."""
        try:
            done, value = self._desk.recv()
        except EOFError as error:
            raise RuntimeError(f"the process of {self.name} ended without an answer; was it out of memory?") from error
        if not done:
            raise value
        return value

    def ask(self, what: str, **arguments):
        """Give an order and wait for what it comes to."""
        self.order(what, **arguments)
        return self.answer()

    def close(self) -> None:
        """End the process: by closing its pipes, or by force if it does not notice."""
        self._desk.close()
        self.wire.close()
        self._process.join(PATIENCE)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()


def _serve(
    wire: Connection, desk: Connection, silo: Silo, config: SiloFuseConfig, silos: int, threads: int
) -> None:
    """A silo's process: follow orders until the desk is closed."""
    torch.set_num_threads(threads)
    client = None
    while True:
        try:
            what, arguments = desk.recv()
        except EOFError:
            return
        crossing = None
        try:
            client = SiloClient(silo, config, silos) if client is None else client
            value = None
            if what == "fit":
                client.fit(**arguments)
            elif what == "upload":
                crossing = packed(client.upload(**arguments))
            elif what == "receive":
                client.receive(unpacked(wire.recv_bytes()))
            elif what == "decode":
                value = client.decode(unpacked(wire.recv_bytes())["z"], **arguments)
            elif what == "reconstruction":
                value = client.reconstruction()
            else:
                raise ValueError(f"unknown order {what!r}")
        except FORWARDED as error:
            desk.send((False, error))
            continue
        desk.send((True, value))
        if crossing is not None:
            wire.send_bytes(crossing)
