"""The DP-SGD step: clipped per-record gradients, noise and a public divisor, at the price of an ordinary step.

One forward pass, one backward pass to the layer outputs, per-record norms from layer inputs and output gradients, and
one matrix product a layer for the clipped sum (Abadi et al., 2016, Algorithm 1; `clipping` for the algebra).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from feddiff.privacy.clipping import AddClipped, Layer
from feddiff.privacy.clipping_layers import find_layers
from feddiff.privacy.noise import GaussianNoise, SecureGaussianNoise
from feddiff.privacy.recording import Recorder

LossFunction = Callable[[slice], torch.Tensor]
NO_PARAMETER = "the losses do not depend on a trainable parameter: compute them with the model, under grad"


@dataclass(frozen=True)
class StepReport:
    """What one step saw. None of it is private: it must not leave the client without its own mechanism.

    losses, norms: shape (records,), per-record loss and gradient norm before clipping; clipped_fraction: share of
    records that clipping shrank (in at least one layer when per-layer), 0 for an empty batch.
    """

    losses: torch.Tensor
    norms: torch.Tensor
    clipped_fraction: float


class PrivateStep:
    """Writes private gradients into the parameters of `model`; any torch optimiser may apply them.

    clip_norm: C > 0, L2 bound on a record's gradient over all trainable parameters (inf = no clipping);
    noise_multiplier: sigma >= 0, noise standard deviation over C (0 = none); expected_batch: public constant divisor
    > 0, the expected batch size q * rows, never the realised one (meta-pytorch/opacus#571);
    noise: GaussianNoise or SecureGaussianNoise; clipping: "flat", or "per-layer" where each of the L layers is clipped
    to C / sqrt(L), so that the whole gradient stays within C and the noise is the same;
    microbatch: records per forward pass (None = all at once), changes memory and never the update.

    Sound while the loss of a record depends on that record alone and every layer is used at most once a forward pass.
    The second is checked, the first cannot be: no batch statistics, no batch-dependent loss weights.
    Raises ValueError for layers that cannot be handled, with path, type and the way out.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        clip_norm: float,
        noise_multiplier: float,
        expected_batch: float,
        noise: GaussianNoise | SecureGaussianNoise,
        clipping: str = "flat",
        microbatch: int | None = None,
    ):
        _check_numbers(clip_norm, noise_multiplier, expected_batch, clipping, microbatch)
        if not callable(getattr(noise, "fill_", None)):
            raise TypeError(f"noise must be GaussianNoise or SecureGaussianNoise, got {type(noise).__name__}")
        found = find_layers(model)
        self.clip_norm = clip_norm
        self.noise_multiplier = noise_multiplier
        self.expected_batch = expected_batch
        self.noise = noise
        self.clipping = clipping
        self.microbatch = microbatch
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._flat, self._views = _flat_views(self._parameters)
        views = {id(parameter): view for parameter, view in zip(self._parameters, self._views, strict=True)}
        self._layers = [
            Layer(path, module, views.get(id(module.weight)), views.get(id(getattr(module, "bias", None))))
            for path, module, _ in found
        ]
        self._rules = [rule for _, _, rule in found]
        self._recorder = Recorder([(path, module) for path, module, _ in found])
        self._closed = False

    def gradient(self, loss_fn: LossFunction, records: int) -> StepReport:
        """Set p.grad = (sum of clipped per-record gradients + N(0, (sigma C)^2)) / expected_batch, p trainable.

        loss_fn(rows): per-record losses, shape (len of the slice,), differentiable; called once with
        slice(0, records), or once a microbatch, never for an empty batch. The caller makes random draws beforehand.
        With K draws a record the network sees K rows a record, record-major, and the loss averages them.
        records: size of the Poisson batch, >= 0; an empty batch yields noise alone.
        Raises ValueError under autocast, for a loss that is not finite, and for layers used twice.
        """
        if self._closed:
            raise ValueError("this PrivateStep is closed: build another one on the model")
        if isinstance(records, bool) or not isinstance(records, int) or records < 0:
            raise ValueError(f"records must be an integer >= 0, got {records!r}")
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            raise ValueError("private training needs full precision: call gradient() outside torch.autocast")
        scale = 1.0 / self.expected_batch
        if self.noise_multiplier > 0:
            self.noise.fill_(self._flat, self.noise_multiplier * self.clip_norm * scale)
        else:
            self._flat.zero_()
        losses, norms, clipped = [self._flat.new_zeros(0)], [self._flat.new_zeros(0)], 0
        size = self.microbatch or max(records, 1)
        for start in range(0, records, size):
            part = slice(start, min(start + size, records))
            part_losses, per_layer, adders = self._per_record(loss_fn, part)
            part_norms, factors, count = self._clip(per_layer, scale)
            for add, factor in zip(adders, factors, strict=True):
                add(factor)
            losses.append(part_losses)
            norms.append(part_norms)
            clipped += count
        for parameter, view in zip(self._parameters, self._views, strict=True):
            parameter.grad = view
        return StepReport(torch.cat(losses), torch.cat(norms), clipped / max(records, 1))

    def close(self) -> None:
        """Let go of the gradient buffer; the model keeps no trace (hooks live only inside `gradient`)."""
        own = {view.data_ptr() for view in self._views}
        for parameter in self._parameters:
            if parameter.grad is not None and parameter.grad.data_ptr() in own:
                parameter.grad = None
        self._closed = True

    def __enter__(self) -> "PrivateStep":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _per_record(
        self, loss_fn: LossFunction, part: slice
    ) -> tuple[torch.Tensor, list[torch.Tensor], list[AddClipped]]:
        """Return losses, squared norms of each reached layer, and what adds each layer's clipped sum."""
        records = part.stop - part.start
        with self._recorder.listening() as calls:
            losses = loss_fn(part)
        _check_losses(losses, records)
        total = losses.sum()
        if not math.isfinite(total.item()):
            _name_non_finite(losses.detach(), part.start, "loss")
        indices = self._recorder.reached(calls, losses)
        if not indices:
            raise ValueError(NO_PARAMETER)
        grads = torch.autograd.grad(total, [calls[index].edge for index in indices])
        norms, adders = [], []
        for index, grad in zip(indices, grads, strict=True):
            layer, call = self._layers[index], calls[index]
            if grad.shape[0] % records or call.inputs.shape[0] != grad.shape[0]:
                raise ValueError(
                    f"layer '{layer.path}' saw {grad.shape[0]} rows for {records} records: the first dimension must be "
                    "records, or records * draws in record-major order"
                )
            squares, add = self._rules[index].per_record(layer, call.inputs, grad, records)
            norms.append(squares)
            adders.append(add)
        return losses.detach(), norms, adders

    def _clip(
        self, squares: list[torch.Tensor], scale: float
    ) -> tuple[torch.Tensor, list[torch.Tensor], int]:
        """Return gradient norms (records,), clip factors times `scale` of each layer, how many records were clipped."""
        per_layer = torch.stack(squares)
        norms = per_layer.sum(0).sqrt_()
        if not math.isfinite(norms.sum().item()):
            _name_non_finite(norms, 0, "gradient norm")
        if math.isinf(self.clip_norm):
            return norms, [torch.full_like(norms, scale)] * len(squares), 0
        if self.clipping == "flat":
            # C / 0 = inf is clamped to 1: a record without gradient stays as it is
            factors = (self.clip_norm / norms).clamp_(max=1.0).mul_(scale)
            return norms, [factors] * len(squares), int((norms > self.clip_norm).sum())
        bound = self.clip_norm / math.sqrt(len(self._layers))
        layer_norms = per_layer.sqrt_()
        factors = (bound / layer_norms).clamp_(max=1.0).mul_(scale)
        return norms, list(factors), int((layer_norms > bound).any(0).sum())


def _check_numbers(
    clip_norm: float, noise_multiplier: float, expected_batch: float, clipping: str, microbatch: int | None
) -> None:
    if not clip_norm > 0:
        raise ValueError(f"clip_norm must be > 0 (inf = no clipping), got {clip_norm!r}")
    if not (noise_multiplier >= 0 and math.isfinite(noise_multiplier)):
        raise ValueError(f"noise_multiplier must be finite and >= 0 (0 = no noise), got {noise_multiplier!r}")
    if noise_multiplier > 0 and math.isinf(clip_norm):
        raise ValueError("noise needs a finite clip_norm: its scale is noise_multiplier * clip_norm")
    if not (expected_batch > 0 and math.isfinite(expected_batch)):
        raise ValueError(f"expected_batch must be finite and > 0, the public q * rows, got {expected_batch!r}")
    if clipping not in ("flat", "per-layer"):
        raise ValueError(f"clipping must be 'flat' or 'per-layer', got {clipping!r}")
    if microbatch is not None and (isinstance(microbatch, bool) or not isinstance(microbatch, int) or microbatch < 1):
        raise ValueError(f"microbatch must be an integer >= 1 or None, got {microbatch!r}")


def _flat_views(parameters: list[nn.Parameter]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return one flat buffer and its views with the shapes and strides of the parameters."""
    kinds = {(parameter.dtype, parameter.device) for parameter in parameters}
    if len(kinds) > 1 or parameters[0].dtype not in (torch.float32, torch.float64):
        found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise ValueError(f"all trainable parameters must be float32 (or float64) on one device, got {found}")
    flat = parameters[0].new_zeros(sum(parameter.numel() for parameter in parameters), requires_grad=False)
    views, offset = [], 0
    for parameter in parameters:
        part = flat[offset : offset + parameter.numel()]
        # fused optimisers walk parameter and gradient in memory order: channels_last weights need equal strides
        views.append(torch.as_strided(part, parameter.shape, parameter.stride(), part.storage_offset()))
        offset += parameter.numel()
    return flat, views


def _check_losses(losses: torch.Tensor, records: int) -> None:
    if not isinstance(losses, torch.Tensor) or losses.shape != (records,):
        shape = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
        raise ValueError(f"loss_fn must return one loss per record, shape ({records},), got {shape}: do not reduce it")
    if not losses.requires_grad:
        raise ValueError(NO_PARAMETER)


def _name_non_finite(values: torch.Tensor, start: int, what: str) -> None:
    """Raise ValueError for the first record whose value is not finite, if any (a sum may overflow by itself)."""
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        raise ValueError(
            f"the {what} of record {start + int(bad[0])} of the batch is not finite: check inputs and learning rate"
        )
