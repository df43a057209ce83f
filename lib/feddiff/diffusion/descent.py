"""The training loop of image networks without privacy: warm-up and cosine, Adam, weight averaging, resumable.

Private training does not come through here: its step is `privacy.step`, its loop `federation.client`.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from tqdm.auto import tqdm

from feddiff.diffusion import checkpoint as checkpoints
from feddiff.diffusion.ema import EMA
from feddiff.seeds import torch_generator

# loss(rows of the batch, generator of the draws) -> mean loss of the batch
BatchLoss = Callable[[torch.Tensor, torch.Generator], torch.Tensor]

# Steps whose losses make one row of the history. A loss that is not finite stops a CPU at its step; a GPU, which would
# have to wait for every loss, notices at the end of such a window.
WINDOW = 25
REMEDY = "lower lr, bound gradient_clip, or set bf16=False"
# bfloat16 pays on a CPU from this many channels on (measured: 1.3 to 1.5 times; 1.1 at 32 channels, a loss at 16).
BF16_WIDTH = 48


@dataclass(frozen=True, kw_only=True)
class Descent:
    """How a network is trained: `steps` batches of `batch` pictures.

    lr, reached after `warmup` steps and then lowered along a cosine to `floor` times itself (3e-3 suits about a minute
    on one core; Ho et al. 2020 train for days at 2e-4); weight_decay (0: Adam);
    gradient_clip: bound on the norm of a batch's gradient (inf: none); ema: decay of the weight average (0: the last
    weights), warmed up as min(ema, (1 + n) / (10 + n)); bf16: compute in bfloat16 (None: where it is faster, on a GPU
    that has it and on a CPU for networks of at least 48 channels); channels_last: memory layout of convolutions;
    balanced: every class that occurs has the same share of each batch, else batches run through shuffled epochs.
    """

    steps: int
    batch: int = 64
    lr: float = 3e-3
    warmup: int = 100
    floor: float = 0.05
    weight_decay: float = 0.0
    gradient_clip: float = math.inf
    ema: float = 0.999
    bf16: bool | None = None
    channels_last: bool = True
    balanced: bool = False

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("warmup", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
        for name in ("lr", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)!r}")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor is a share of lr in [0, 1], got {self.floor!r}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be >= 0, got {self.weight_decay!r}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), got {self.ema!r}")

    def lr_at(self, step: int) -> float:
        """Return the learning rate of the 0-based `step`."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        progress = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.lr * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress)))

    def in_bf16(self, width: int, device: torch.device) -> bool:
        """Tell whether a network whose first level has `width` channels computes in bfloat16 on `device`."""
        if self.bf16 is not None:
            return self.bf16
        return torch.cuda.is_bf16_supported() if device.type == "cuda" else width >= BF16_WIDTH


@dataclass(frozen=True)
class Fitted:
    """A trained network: `state` is its averaged state dict on the CPU, which the network itself holds as well.

    history: one row for each window of steps, columns step (the last of the window, counted from 1) and loss (mean);
    seconds: of training, over all parts of a resumed run.
    """

    state: dict[str, torch.Tensor]
    history: pd.DataFrame
    images_seen: int
    seconds: float


class Batches:
    """Rows of each batch, drawn from `labels` (n,): shuffled epochs, or classes in equal shares where `balanced`.

    step: the one whose rows were asked for last, counted from 1.
    """

    def __init__(self, labels: torch.Tensor, batch: int, balanced: bool, seed: int, name: str):
        self.batch, self.seed, self.name, self.rows = batch, seed, name, len(labels)
        self._epoch, self._order, self.step = -1, torch.empty(0, dtype=torch.int64), 0
        self._of_class = None
        if balanced:
            self._of_class = [(labels == k).nonzero().flatten() for k in labels.unique().tolist()]

    def rows_of(self, step: int) -> torch.Tensor:
        """Return the rows of the 0-based `step`: a function of seed and step alone, so that a run can be resumed."""
        self.step = step + 1
        if self._of_class is not None:
            return self._balanced(step)
        places = torch.arange(step * self.batch, (step + 1) * self.batch)
        parts = []
        for epoch in (places // self.rows).unique().tolist():
            if epoch != self._epoch:
                generator = torch_generator(self.seed, "batches", self.name, epoch)
                self._epoch, self._order = epoch, torch.randperm(self.rows, generator=generator)
            parts.append(self._order[places[places // self.rows == epoch] % self.rows])
        return torch.cat(parts)

    def _balanced(self, step: int) -> torch.Tensor:
        generator, classes = torch_generator(self.seed, "batches", self.name, step), len(self._of_class)
        # The classes take turns from a random one on, so that their counts in a batch differ by at most one.
        turns = torch.arange(self.batch) % classes
        chosen = torch.randperm(classes, generator=generator)[turns]
        picks = torch.rand(self.batch, generator=generator, dtype=torch.float64).tolist()
        members = [self._of_class[k] for k in chosen.tolist()]
        return torch.stack([rows[int(u * len(rows))] for rows, u in zip(members, picks)])


def descend(
    network: nn.Module,
    loss: BatchLoss,
    batches: Batches,
    config: Descent,
    *,
    seed: int,
    name: str,
    device: torch.device,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 500,
    fingerprint: str = "",
) -> Fitted:
    """Train `network`, on `device`, by the mean `loss` of `batches`; it ends in evaluation mode with averaged weights.

    Random draws inside the loss and dropout masks come from generators named after `seed` and `name`. checkpoint: file
    to resume from, and to write every checkpoint_every steps and at the end; a resumed run equals an uninterrupted one
    bit for bit on a CPU. FloatingPointError when the loss is not finite, naming the step (on a GPU a window of steps).
    """
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be at least 1, got {checkpoint_every}")
    network.to(memory_format=torch.channels_last if config.channels_last else torch.contiguous_format)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    streams = {stream: torch_generator(seed, stream, name, device=device) for stream in ("draws", "dropout")}
    run = _Run(network, parameters, optimiser, EMA(config.ema) if config.ema else None, streams)
    file = None if checkpoint is None else Path(checkpoint)
    if file is not None and file.exists():
        run.load(checkpoints.load(file, fingerprint))
    if hasattr(network, "set_dropout_generator"):
        network.set_dropout_generator(streams["dropout"])
    network.train()
    begun, before = time.perf_counter(), run.seconds
    remaining = range(run.step, config.steps)
    for step in tqdm(remaining, initial=run.step, total=config.steps, desc=name, disable=not progress):
        for group in optimiser.param_groups:
            group["lr"] = config.lr_at(step)
        optimiser.zero_grad()
        value = loss(batches.rows_of(step).to(device), streams["draws"])
        if device.type == "cpu" and not math.isfinite(float(value.detach())):
            raise FloatingPointError(f"{name}: the loss is not finite at step {step + 1}; {REMEDY}")
        value.backward()
        if math.isfinite(config.gradient_clip):
            nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
        optimiser.step()
        run.after(value.detach())
        if run.step % WINDOW == 0 or run.step == config.steps:
            run.close_window()
        run.seconds = before + time.perf_counter() - begun
        if file is not None and (run.step % checkpoint_every == 0 or run.step == config.steps):
            checkpoints.save(file, run.state(), fingerprint)
    run.finish()
    if hasattr(network, "set_dropout_generator"):
        network.set_dropout_generator(None)
    network.eval()
    state = {
        key: value.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for key, value in network.state_dict().items()
    }
    history = pd.DataFrame(run.history, columns=["step", "loss"])
    return Fitted(state, history, config.steps * config.batch, run.seconds)


class _Run:
    """The moving parts of a training, and their way into a checkpoint and back."""

    def __init__(
        self,
        network: nn.Module,
        parameters: list[nn.Parameter],
        optimiser: torch.optim.Optimizer,
        ema: EMA | None,
        streams: dict[str, torch.Generator],
    ):
        self.network, self.parameters, self.optimiser = network, parameters, optimiser
        self.ema, self.streams = ema, streams
        self.step, self.seconds, self.history = 0, 0.0, []
        self.window: list[torch.Tensor] = []

    def after(self, loss: torch.Tensor) -> None:
        """Take note of a step that was made."""
        self.step += 1
        self.window.append(loss.double())
        if self.ema is not None:
            self.ema.update(torch.cat([p.detach().flatten() for p in self.parameters]))

    def close_window(self) -> None:
        """Write the mean loss of the window down. Raises FloatingPointError if it is not finite."""
        mean = float(torch.stack(self.window).mean())
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"the loss is not finite between steps {self.step - len(self.window) + 1} and {self.step}; {REMEDY}"
            )
        self.history.append([self.step, mean])
        self.window = []

    @torch.no_grad()
    def finish(self) -> None:
        """Give the network the averaged weights."""
        if self.ema is not None:
            sizes = [p.numel() for p in self.parameters]
            for p, part in zip(self.parameters, self.ema.average.split(sizes)):
                p.copy_(part.view(p.shape))

    def state(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ema": None if self.ema is None else self.ema.state(),
            "streams": {name: stream.get_state() for name, stream in self.streams.items()},
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "window": self.window,
        }

    def load(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.ema is not None:
            self.ema.load(state["ema"])
            self.ema.average = self.ema.average.to(self.parameters[0].device)
        for name, stream in self.streams.items():
            stream.set_state(state["streams"][name])
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]
        self.window = [loss.to(self.parameters[0].device) for loss in state["window"]]
