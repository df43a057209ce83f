"""The table of layers that per-record clipping handles, and the search for them in a model."""

from torch import nn

from feddiff.privacy.clipping import EMBEDDING, GROUP_NORM, LAYER_NORM, LINEAR, Rule
from feddiff.privacy.clipping_conv import CONV2D

RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: LINEAR,
    nn.Embedding: EMBEDDING,
    nn.LayerNorm: LAYER_NORM,
    nn.GroupNorm: GROUP_NORM,
    nn.Conv2d: CONV2D,
}

_WAYS_OUT = {
    "batch": "BatchNorm and running statistics mix the records of a batch: use GroupNorm or LayerNorm",
    "bare": "hold the parameter in a supported layer (a table as Embedding, a scale as LayerNorm), or freeze it with "
    "requires_grad_(False)",
    "attention": "write attention with Linear layers for query, key, value and output",
    "recurrent": "its weights are used at every position: use an MLP, or Linear layers over a flattened window",
    "other": "replace it by one of the supported layers, or freeze its parameters with requires_grad_(False)",
}


def find_layers(model: nn.Module) -> list[tuple[str, nn.Module, Rule]]:
    """Return (path, module, rule) of every module with trainable parameters of its own, in definition order.

    Raises ValueError naming path, type and the way out for each module whose per-record gradients cannot be had.
    """
    found, problems = [], []
    owners: dict[int, str] = {}
    for path, module in model.named_modules():
        name = f"'{path or '(the model itself)'}' ({type(module).__name__})"
        if _mixes_records(module):
            problems.append(f"{name}: {_WAYS_OUT['batch']}")
            continue
        own = {key: p for key, p in module.named_parameters(recurse=False) if p.requires_grad}
        if not own:
            continue
        for parameter in own.values():
            first = owners.setdefault(id(parameter), name)
            if first != name:
                problems.append(f"{name} shares a parameter with {first}: give each layer its own weights")
        rule = rule_of(module)
        if rule is None or not own.keys() <= {"weight", "bias"}:
            problems.append(f"{name}: {_WAYS_OUT[_kind(module)]}")
        elif reason := rule.refusal(module):
            problems.append(f"{name}: {reason}")
        else:
            found.append((path, module, rule))
    if problems:
        supported = ", ".join(kind.__name__ for kind in RULES)
        raise ValueError(f"per-record clipping supports {supported}; it cannot handle:\n- " + "\n- ".join(problems))
    if not found:
        raise ValueError("the model has no trainable parameter: nothing to train; check requires_grad")
    return found


def rule_of(module: nn.Module) -> Rule | None:
    """Return the rule for `module`, or None; a subclass counts only while it keeps its parent's forward."""
    for kind, rule in RULES.items():
        if isinstance(module, kind) and type(module).forward is kind.forward:
            return rule
    return None


def _mixes_records(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) or bool(getattr(module, "track_running_stats", False))


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.MultiheadAttention):
        return "attention"
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return "recurrent"
    return "other" if type(module).__module__.startswith("torch.nn") else "bare"
