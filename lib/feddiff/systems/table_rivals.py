"""What the centralised rivals of SiloFuse share: one table out of the silos, its codes, and a trained model of it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from feddiff.data.codec import Encoded, TableCodec
from feddiff.data.silos import Silo, align
from feddiff.seeds import numpy_generator, torch_generator

# Rows drawn at a time, so that memory does not grow with the size of the request.
CHUNK = 8192

Data = pd.DataFrame | Sequence[Silo]


@dataclass(frozen=True, eq=False)
class WholeTable:
    """All columns in one place: `codec` fitted on them, `codes` (n, m) int64 and `numbers` (n, k) float32."""

    codec: TableCodec
    codes: torch.Tensor
    numbers: torch.Tensor

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of codes of each code column."""
        return self.codec.levels


def one_silo(silos: Sequence[Silo]) -> Silo:
    """Return the silo that holds all columns of `silos`, rows aligned by key; a single silo is returned as it is."""
    aligned = align(silos)
    if len(aligned) == 1:
        return aligned[0]
    frame = pd.concat([silo.frame.reset_index(drop=True) for silo in aligned], axis=1)
    kinds = {name: kind for silo in aligned for name, kind in silo.kinds.items()}
    return Silo(name="silo 0", frame=frame, kinds=kinds, keys=aligned[0].keys)


def whole_table(data: Data, kinds: Mapping[str, str] | None, *, numerics: str, seed: int) -> WholeTable:
    """Return the encoded table of a frame with `kinds`, or of silos, which bring their own.

    seed: of the random ranks inside ties. Raises ValueError for a frame without kinds or rows, and for whatever the
    codec refuses.
    """
    if isinstance(data, pd.DataFrame):
        if kinds is None:
            raise ValueError("a data frame needs kinds={column: kind}; silos bring their own")
        frame = data
    else:
        if kinds is not None:
            raise ValueError("silos bring their own kinds; leave kinds out")
        silo = one_silo(data)
        frame, kinds = silo.frame, silo.kinds
    codec = TableCodec.fit(frame, kinds, numerics=numerics)
    encoded = codec.encode(frame, numpy_generator(seed, "rivals", "ranks"))
    return WholeTable(codec, torch.from_numpy(encoded.codes), torch.from_numpy(encoded.numbers))


def check_rows(rows: int) -> int:
    """Return `rows`; ValueError unless it is a positive integer."""
    if isinstance(rows, bool) or not isinstance(rows, (int, np.integer)) or rows < 1:
        raise ValueError(f"rows must be a positive integer, got {rows!r}")
    return int(rows)


@dataclass(eq=False)
class TableModel(ABC):
    """A trained generator of whole rows.

    history: one row per window of training steps, column step and one for each loss. settings: the configuration, the
    number of trained parameters and the seconds of training, as plain values.
    """

    name: str
    config: Any
    codec: TableCodec
    network: nn.Module
    history: pd.DataFrame
    settings: dict[str, Any]

    @abstractmethod
    def draw(self, rows: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Return codes (rows, m) int64 and numbers (rows, k) float32."""

    @torch.no_grad()
    def sample(self, rows: int, *, seed: int) -> pd.DataFrame:
        """Return `rows` synthetic rows with the columns, order and dtypes of the training table."""
        rows, generator = check_rows(rows), torch_generator(seed, "sampling", self.name)
        self.network.eval()
        parts = [self.draw(min(CHUNK, rows - first), generator) for first in range(0, rows, CHUNK)]
        codes, numbers = (torch.cat(kind).numpy() for kind in zip(*parts))
        return self.codec.decode(Encoded(codes, numbers))

    def to_state(self) -> dict:
        """Return what a cache needs as tensors and plain values; the codec is fitted anew on the same table."""
        return {
            "name": self.name,
            "network": self.network.state_dict(),
            "history": self.history.to_dict("list"),
            "settings": self.settings,
        }


def restored(state: dict, name: str, network: nn.Module) -> dict[str, Any]:
    """Return the fields of a TableModel that its state holds, the state's weights loaded into `network`.

    ValueError when the state is another model's.
    """
    if state["name"] != name:
        raise ValueError(f"the state is that of {state['name']!r}, expected {name!r}")
    network.load_state_dict(state["network"])
    history = pd.DataFrame(state["history"])
    return {"name": name, "network": network.eval(), "history": history, "settings": state["settings"]}


def parameters(network: nn.Module) -> int:
    """Return the number of trained parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def settings_of(config: Any, **more: Any) -> dict[str, Any]:
    """Return a configuration and what a run adds to it as plain values."""
    return asdict(config) | more


def check_config(config: Any, *, whole: Sequence[str], positive: Sequence[str], **choices: Sequence[str]) -> None:
    """Raise ValueError unless the fields `whole` are integers >= 1, `positive` are > 0, and choices are allowed."""
    for name in whole:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")
    for name in positive:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be > 0, got {getattr(config, name)!r}")
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise ValueError(f"{name} must be one of {tuple(allowed)}, got {getattr(config, name)!r}")
