"""Analytic per-record clipping: what one layer needs to give per-record gradient norms and the clipped sum.

A layer that is used once per forward pass has, for record i with inputs a and output gradients b, the gradient
sum_t b_t a_t^T over the record's rows t (noise draws, positions). Its norm follows from a and b alone, and the clipped
sum over records is one matrix product with the rows of b scaled by the clip factors: no per-record gradient is ever
stored (Goodfellow, 2015, "Efficient Per-Example Gradient Computations"; Li et al., 2022, ghost clipping).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

AddClipped = Callable[[torch.Tensor], None]
_CHUNK = 1 << 21  # elements of temporaries held at a time while norms of many-row records are computed


@dataclass(frozen=True, eq=False)
class Layer:
    """One supported module, and the slices of the flat gradient buffer that its trainable parameters own.

    weight, bias: views shaped as the parameters, or None where the parameter is absent or frozen.
    """

    path: str
    module: nn.Module
    weight: torch.Tensor | None
    bias: torch.Tensor | None


@dataclass(frozen=True)
class Rule:
    """How one module type is clipped.

    per_record(layer, inputs, grads, records) -> squared gradient norms, shape (records,), and a function that adds the
    sum of the per-record gradients times given factors, shape (records,), to the layer's views.
    refusal(module) -> why this module cannot be handled and the way out, or None.
    """

    per_record: Callable[[Layer, torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, AddClipped]]
    refusal: Callable[[nn.Module], str | None] = lambda module: None


def squared_norms(rows: torch.Tensor) -> torch.Tensor:
    """Return the squared Euclidean norm of each record: shape (records, ...) -> (records,)."""
    return torch.linalg.vector_norm(rows.flatten(1), dim=1).square_()


def in_chunks(records: int, elements: int, function: Callable[[slice], torch.Tensor]) -> torch.Tensor:
    """Concatenate function(slice) over slices of records that hold at most about `_CHUNK` temporaries at a time.

    elements: temporaries one record needs, >= 1.
    """
    step = max(1, _CHUNK // elements)
    return torch.cat([function(slice(start, min(start + step, records))) for start in range(0, records, step)])


def gram_squared_norms(inputs: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
    """Return ||sum_t b_t a_t^T||^2 = sum_ts (a_t . a_s)(b_t . b_s): (n, T, in), (n, T, out) -> (n,).

    In float64: the terms of a record whose rows nearly cancel are far larger than their sum, and a norm lost to
    float32 rounding would leave that record under-clipped.
    """
    inputs, grads = inputs.double(), grads.double()
    products = torch.bmm(inputs, inputs.mT).mul_(torch.bmm(grads, grads.mT))
    return products.sum((1, 2)).clamp_(min=0.0)


def gram_is_cheaper(rows: int, fan_in: int, fan_out: int) -> bool:
    """Tell whether the Gram form beats the per-record gradient, in multiply-adds; in float64 it counts double."""
    return 2 * rows * (fan_in + fan_out) <= fan_in * fan_out


def outer_squared_norms(inputs: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
    """Return ||sum_t b_t a_t^T||^2 for (n, T, in) inputs and (n, T, out) grads, by whichever form is cheaper."""
    records, rows, fan_in = inputs.shape
    fan_out = grads.shape[2]
    if gram_is_cheaper(rows, fan_in, fan_out):
        elements = 2 * rows * (fan_in + fan_out + 2 * rows)
        return in_chunks(records, elements, lambda part: gram_squared_norms(inputs[part], grads[part])).to(grads.dtype)
    return in_chunks(
        records, fan_in * fan_out, lambda part: squared_norms(torch.bmm(grads[part].mT, inputs[part]))
    )


def _linear(layer: Layer, inputs: torch.Tensor, grads: torch.Tensor, records: int) -> tuple[torch.Tensor, AddClipped]:
    """Linear: inputs (records * K, ..., in), grads (records * K, ..., out)."""
    inputs = inputs.reshape(records, -1, inputs.shape[-1])
    grads = grads.reshape(records, -1, grads.shape[-1])
    rows = grads.shape[1]
    if rows == 1:
        # ||b a^T||^2 + ||b||^2 = ||b||^2 (||a||^2 + 1)
        norms = squared_norms(grads)
        if layer.weight is not None:
            norms.mul_(squared_norms(inputs).add_(0.0 if layer.bias is None else 1.0))
    else:
        norms = grads.new_zeros(records)
        if layer.weight is not None:
            norms += outer_squared_norms(inputs, grads)
        if layer.bias is not None:
            norms += squared_norms(grads.sum(1))

    def add(factors: torch.Tensor) -> None:
        row_factors = factors if rows == 1 else factors.repeat_interleave(rows)
        flat_inputs, flat_grads = inputs.flatten(0, 1), grads.flatten(0, 1)
        if layer.bias is not None:
            layer.bias.addmv_(flat_grads.t(), row_factors)
        if layer.weight is not None:
            # scaling the narrower of the two factors is the smaller copy
            if flat_inputs.shape[1] < flat_grads.shape[1]:
                flat_inputs = flat_inputs * row_factors.unsqueeze(1)
            else:
                flat_grads = flat_grads * row_factors.unsqueeze(1)
            layer.weight.addmm_(flat_grads.t(), flat_inputs)

    return norms, add


def _embedding(
    layer: Layer, inputs: torch.Tensor, grads: torch.Tensor, records: int
) -> tuple[torch.Tensor, AddClipped]:
    """Embedding: inputs (records * K, ...) indices, grads (records * K, ..., width)."""
    indices = inputs.reshape(records, -1)
    grads = grads.reshape(records, indices.shape[1], -1)
    if layer.module.padding_idx is not None:
        grads = grads * (indices != layer.module.padding_idx).unsqueeze(2)
    rows = indices.shape[1]
    if rows == 1:
        norms = squared_norms(grads)
    else:
        # rows of one record that look up the same entry add up before the norm is taken

        def gram(part: slice) -> torch.Tensor:
            same = indices[part].unsqueeze(1) == indices[part].unsqueeze(2)
            wide = grads[part].double()
            return torch.bmm(wide, wide.mT).mul_(same).sum((1, 2)).clamp_(min=0.0)

        norms = in_chunks(records, 2 * rows * (rows + grads.shape[2]), gram).to(grads.dtype)

    def add(factors: torch.Tensor) -> None:
        layer.weight.index_add_(0, indices.reshape(-1), (grads * factors.view(-1, 1, 1)).flatten(0, 1))

    return norms, add


def _embedding_refusal(module: nn.Embedding) -> str | None:
    """Say which option of nn.Embedding breaks per-record clipping."""
    if module.max_norm is not None:
        return "max_norm rewrites the weights from the batch; build it without max_norm"
    if module.scale_grad_by_freq:
        return "scale_grad_by_freq makes one record's gradient depend on the others; build it without it"
    if module.sparse:
        return "sparse gradients would leave rows without noise; build it with sparse=False"
    return None


def _layer_norm(
    layer: Layer, inputs: torch.Tensor, grads: torch.Tensor, records: int
) -> tuple[torch.Tensor, AddClipped]:
    """LayerNorm: inputs and grads (records * K, ..., *normalized_shape)."""
    shape = layer.module.normalized_shape
    normalised = functional.layer_norm(inputs, shape, eps=layer.module.eps)
    width = math.prod(shape)
    return _scale_and_shift(
        layer, (grads * normalised).reshape(records, -1, width).sum(1), grads.reshape(records, -1, width).sum(1)
    )


def _group_norm(
    layer: Layer, inputs: torch.Tensor, grads: torch.Tensor, records: int
) -> tuple[torch.Tensor, AddClipped]:
    """GroupNorm: inputs and grads (records * K, channels, ...)."""
    normalised = functional.group_norm(inputs, layer.module.num_groups, eps=layer.module.eps)
    shape = (records, -1, layer.module.num_channels, math.prod(inputs.shape[2:]))
    return _scale_and_shift(
        layer, (grads * normalised).reshape(shape).sum((1, 3)), grads.reshape(shape).sum((1, 3))
    )


def _scale_and_shift(layer: Layer, scales: torch.Tensor, shifts: torch.Tensor) -> tuple[torch.Tensor, AddClipped]:
    """Clip from the per-record gradients themselves, (records, width): they are as small as the activations."""
    pairs = [(view, rows) for view, rows in ((layer.weight, scales), (layer.bias, shifts)) if view is not None]

    def add(factors: torch.Tensor) -> None:
        for view, rows in pairs:
            view.add_((factors @ rows).view(view.shape))

    return sum(squared_norms(rows) for _, rows in pairs), add


LINEAR = Rule(_linear)
EMBEDDING = Rule(_embedding, _embedding_refusal)
LAYER_NORM = Rule(_layer_norm)
GROUP_NORM = Rule(_group_norm)
