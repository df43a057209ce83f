"""Layer inputs and output edges of one forward pass, and proof that every weight was used exactly once in it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge


@dataclass(frozen=True)
class Call:
    """What one layer saw in the forward pass: detached inputs with their version, the autograd edge of its output.

    The edge stays the gradient of what the layer returned, also where an activation overwrites that in place.
    """

    inputs: torch.Tensor
    version: int
    edge: GradientEdge


class Recorder:
    """Listens to the given (path, module) pairs; attaches hooks only while it listens, so a model never keeps any."""

    def __init__(self, modules: list[tuple[str, nn.Module]]):
        self._modules = modules
        self._owners = {
            id(parameter): index
            for index, (_, module) in enumerate(modules)
            for parameter in module.parameters(recurse=False)
            if parameter.requires_grad
        }

    @contextmanager
    def listening(self) -> Iterator[dict[int, Call]]:
        """Collect the calls by index of the module while the block runs. Raises ValueError at a second use."""
        calls: dict[int, Call] = {}
        handles = [
            module.register_forward_hook(self._listener(calls, index), prepend=True, with_kwargs=True)
            for index, (_, module) in enumerate(self._modules)
        ]
        try:
            yield calls
        finally:
            for handle in handles:
                handle.remove()

    def _listener(self, calls: dict[int, Call], index: int) -> Callable[..., None]:
        path = self._modules[index][0]

        def hook(module: nn.Module, args: tuple, kwargs: dict, output: torch.Tensor) -> None:
            if not output.requires_grad:  # under no_grad: nothing to clip
                return
            if index in calls:
                raise ValueError(
                    f"layer '{path}' ({type(module).__name__}) is used twice in one forward pass: its gradient would "
                    "be a sum that per-record norms miss; give each use its own layer, or call the model once"
                )
            if output.dtype != module.weight.dtype:
                raise ValueError(
                    f"layer '{path}' computed in {output.dtype}: private training needs full precision, remove "
                    "autocast from the loss"
                )
            inputs = args[0] if args else kwargs["input"]
            calls[index] = Call(inputs.detach(), inputs._version, get_gradient_edge(output))

        return hook

    def reached(self, calls: dict[int, Call], losses: torch.Tensor) -> list[int]:
        """Return the sorted indices of the modules that `losses` depends on, after checking the graph behind them.

        Raises ValueError for a weight that reaches the losses other than once and through its own layer's forward
        (functional use, tied weights), and for inputs overwritten in place before they were used.
        """
        nodes, uses = _walk(losses, self._owners)
        reached = sorted(index for index, call in calls.items() if call.edge.node in nodes)
        listed = set(reached)
        for parameter, count in uses.items():
            index = self._owners[parameter]
            path, module = self._modules[index]
            if count > 1 or index not in listed:
                raise ValueError(
                    f"a weight of layer '{path}' ({type(module).__name__}) is used outside that layer's forward: call "
                    "the layer itself, once; functional use and tied weights defeat per-record clipping"
                )
        for index in reached:
            call, path = calls[index], self._modules[index][0]
            if call.inputs._version != call.version:
                raise ValueError(f"the input of layer '{path}' is overwritten in place after use: set inplace=False")
        return reached


def _walk(losses: torch.Tensor, owners: dict[int, int]) -> tuple[dict[Node, int], dict[int, int]]:
    """Return every autograd node behind `losses` with its incoming edges, and how many lead to each owned parameter."""
    nodes: dict[Node, int] = {losses.grad_fn: 1}
    pending = [losses.grad_fn]
    while pending:
        for node, _ in pending.pop().next_functions:
            if node in nodes:
                nodes[node] += 1
            elif node is not None:
                nodes[node] = 1
                pending.append(node)
    leaves = [(id(node.variable), edges) for node, edges in nodes.items() if type(node).__name__ == "AccumulateGrad"]
    return nodes, {leaf: edges for leaf, edges in leaves if leaf in owners}
