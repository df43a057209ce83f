"""The traps in the authors' code (D1–D17): each shown by a number of the records, and the test that rules it out here.

`measure` records, for the traps that no other cell measures, the quantity that shows them. `table` joins a list of
traps with those numbers; a test checks that every test named here exists.
"""

import math
from dataclasses import dataclass, field, replace

import pandas as pd
import torch
from torch import nn

from feddiff.evaluation import fidelity
from feddiff.experiments import findiff_anchors as anchors
from feddiff.experiments import findiff_study as study
from feddiff.experiments import records
from feddiff.experiments.tables import summarise, wide
from feddiff.privacy import accounting, shuffle
from feddiff.seeds import torch_generator
from feddiff.systems import findiff


@dataclass(frozen=True)
class Trap:
    """One trap: what it is, what shows it (metrics of the records under fixed labels), which test rules it out here."""

    id: str
    what: str
    shown: str
    metric: str
    where: dict[str, str] = field(default_factory=dict)
    ruled_out: str = ""


def _trap(id_: str, what: str, shown: str, ruled_out: str, metric: str = "trap", **where: str) -> Trap:
    return Trap(id_, what, shown, metric, where or {"trap": id_}, ruled_out)


TRAPS = (
    _trap("D1", "noise calibrated for 189 steps, 200 run", "ε after 200 steps, target 10",
          "systems/test_findiff.py::test_given_noise_stops_before_the_target_is_passed", "epsilon_spent", round="200"),
    _trap("D2", "calibrated for one epoch, run longer", "ε after 200 steps of noise for one epoch, target 10",
          "systems/test_findiff.py::test_privacy_statement_is_complete_and_meets_the_target_on_the_whole_horizon"),
    _trap("D3", "DP trains the body only, non-DP all", "share of parameters frozen under DP",
          "systems/test_findiff.py::test_all_parameters_are_trained_under_dp"),
    _trap("D4", "text compared with integers", "column shapes lost by it",
          "evaluation/test_fidelity.py::test_one_code_in_another_dtype_is_the_same_value"),
    _trap("D5", "quantiles and vocabulary of pooled rows, no budget", "what lies outside ε in a run as theirs (items)",
          "systems/test_findiff.py::test_private_codec_is_inside_the_budget_and_nothing_but_class_names_and_history_is_"
          "outside"),
    _trap("D6", "unseen category takes the next column's token", "held-out rows with a category not in training rows",
          "data/test_codec.py::test_unseen_labels_have_a_declared_home"),
    _trap("D7", "a fresh Adam every round", "held-out denoising error after 200 rounds, fresh less kept",
          "federation/test_rounds.py::test_reset_forgets_the_moments_and_keep_does_not"),
    _trap("D8", "labels of shape (n, 1)", "rows of the condition for 5 records, labels of shape (5, 1)",
          "experiments/test_findiff_traps.py::test_labels_have_one_dimension"),
    _trap("D9", "each tensor clipped to C", "largest gradient norm over C",
          "privacy/test_step.py::test_one_adversarial_record_moves_the_sum_by_at_most_the_clip_norm"),
    _trap("D10", "no code reads the configuration file", "parameters of this notebook that its record holds",
          "structure/test_notebook_rules.py::test_the_plan_fits_the_notebooks"),
    _trap("D11", "shuffled batches accounted as Poisson", "ε of shuffled batches (lower bound) over the accounted ε",
          "privacy/test_sampling.py::test_what_is_not_poisson_sampling_is_rejected"),
    _trap("D12", "timestep law that the user asked for is never read", "total variation of drawn timesteps to uniform",
          "experiments/test_findiff_traps.py::test_timesteps_are_uniform_over_the_whole_chain"),
    _trap("D13", "scored on training rows", "pair trends of real rows scored on themselves",
          "experiments/test_findiff_details.py::test_training_rows_flatter_a_copy", "pair_trends_quantile",
          method="copies", judged_on="training"),
    _trap("D14", "one label a client", "label embedding's drift, one label a client over IID",
          "experiments/test_findiff_details.py::test_one_label_a_client_reveals_the_client"),
    _trap("D15", "device compared with text, unseeded workers", "differing cells of two runs with one seed",
          "systems/test_findiff.py::test_same_seed_gives_the_same_bytes_and_another_seed_does_not"),
    _trap("D16", "decoding publishes the vocabulary", "labels held by one training row that the codec publishes",
          "privacy/test_preprocessing.py::test_a_rare_label_is_hidden_and_a_common_one_is_not"),
    _trap("D17", "divisor floor(n × rate) depends on private n", "largest jump of the divisor for one row more, share",
          "privacy/test_step.py::test_the_same_seed_gives_the_same_update_and_the_divisor_is_public"),
)


def accounting_traps(run: records.Run) -> None:
    """Record D2, D11 (shuffled batches, from the closed form of notebook 48) and D17, at the authors' settings."""
    rate, steps = 1 / anchors.BATCHES, anchors.ROUNDS
    sigma = accounting.noise_multiplier(
        target_epsilon=anchors.TARGET, sample_rate=rate, steps=anchors.BATCHES, delta=anchors.DELTA
    )
    spent = accounting.epsilon(sample_rate=rate, noise_multiplier=sigma, steps=steps, delta=anchors.DELTA)
    run.metric("trap", spent, trap="D2")
    epoch = dict(delta=anchors.DELTA)
    accounted = accounting.epsilon(sample_rate=rate, noise_multiplier=sigma, steps=anchors.BATCHES, **epoch)
    shuffled = shuffle.shuffle_epsilon_lower_bound(noise_multiplier=sigma, batches=anchors.BATCHES, **epoch)
    run.metric("trap", shuffled / accounted, trap="D11")
    run.metric("trap", largest_jump(anchors.ROWS, anchors.ROWS // anchors.BATCHES + 2), trap="D17")


def divisor(rows: int, batch: int) -> int:
    """Return the divisor that Opacus takes for a loader of `rows` rows: floor(rows × 1 / number of batches)."""
    return int(rows / math.ceil(rows / batch))


def largest_jump(rows: int, batch: int) -> float:
    """Return the largest relative change of the divisor as one row joins, for table sizes from `batch` to `rows`."""
    sizes = range(batch, rows)
    return max(abs(divisor(n + 1, batch) - divisor(n, batch)) / divisor(n, batch) for n in sizes)


def frozen_share(model: findiff.FinDiffRun) -> float:
    """Return the share of parameters that the authors' DP mode does not train (time MLP, label embedding)."""
    sizes = {name: p.numel() for name, p in model.network.named_parameters()}
    return sum(size for name, size in sizes.items() if name.split(".")[0] in ("time", "label")) / sum(sizes.values())


def condition_rows(labels: torch.Tensor) -> int:
    """Return how many rows the sum of time features (n, 8) and a label embedding has, for labels (n,) or (n, 1)."""
    table = nn.Embedding(2, 8, _weight=torch.zeros(2, 8))
    condition = torch.zeros(len(labels), 8) + table(labels)
    return condition.numel() // 8


def per_tensor_norm(shapes: list[torch.Size], clip_norm: float = 1.0) -> float:
    """Return the largest norm over C of a gradient each of whose tensors is clipped to C by itself."""
    return math.sqrt(sum(clip_norm**2 for _ in shapes)) / clip_norm


def timestep_distance(model: findiff.FinDiffRun, draws: int = 20_000) -> float:
    """Return the total variation distance to uniform of the timesteps that a client of the run trains on."""
    client, seen = model.federation.clients[0], []
    generator = torch_generator(model.config.seed, "timesteps")
    watch = client.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    while sum(map(len, seen)) < draws:
        client.draws(torch.arange(client.rows), generator)(slice(0, client.rows))
    watch.remove()
    counts = torch.bincount(torch.cat(seen), minlength=model.config.T).double()
    return float((counts / counts.sum() - 1 / model.config.T).abs().sum() / 2)


def model_traps(run: records.Run, setting: study.Federation, config: findiff.FinDiffConfig) -> findiff.FinDiffRun:
    """Record D3, D5, D6, D8, D9, D12, D15 and D16 on a short run of the authors' parts; return it."""
    short = dict(R=2, S=1)
    first, second = (findiff.train(setting.clients, replace(config, seed=setting.seed, **short), progress=False)
                     for _ in range(2))
    run.metric("trap", frozen_share(first), trap="D3")
    run.metric("trap", len(first.privacy["outside"]), trap="D5")
    run.metric("trap", int(anchors.unseen(setting).sum()), trap="D6")
    run.metric("trap", condition_rows(torch.zeros(5, 1, dtype=torch.int64)), trap="D8")
    run.metric("trap", per_tensor_norm([p.shape for p in first.network.parameters() if p.requires_grad]), trap="D9")
    run.metric("trap", len(run.parameters), trap="D10")
    run.metric("trap", timestep_distance(first), trap="D12")
    one, two = (model.sample(200, seed=setting.seed) for model in (first, second))
    run.metric("trap", int(((one != two) & ~(one.isna() & two.isna())).to_numpy().sum()), trap="D15")
    rare = sum(int((setting.train.frame[name].value_counts() == 1).sum()) for name in setting.train.features
               if setting.train.kinds[name] == "categorical")
    run.metric("trap", rare, trap="D16")
    return first


def misread_trap(run: records.Run, setting: study.Federation, synthetic: pd.DataFrame) -> float:
    """Record and return how much the column shapes fall when three categorical columns are taken for text (D4)."""
    columns = [name for name in setting.train.features if setting.train.kinds[name] == "categorical"]
    kinds, real = setting.train.kinds, setting.test.frame
    right = fidelity.column_shapes(real, synthetic, kinds=kinds)
    wrong = fidelity.column_shapes(*anchors.misread(real, synthetic, columns[:len(anchors.MISREAD)]), kinds=kinds)
    run.metric("trap", right - wrong, trap="D4")
    return right - wrong


def table(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return every trap with its number over seeds (a column a data set) and the test that rules it out here."""
    parts = []
    for trap in TRAPS:
        part = frame[frame["name"] == trap.metric]
        for label, text in trap.where.items():
            part = part[part[label] == text] if label in part.columns else part.iloc[:0]
        parts.append(part.assign(name="measured", trap=trap.id))
    full = summarise(pd.concat(parts), ["dataset", "trap"])
    read = wide(full)
    told = {trap.id: trap for trap in TRAPS}
    shown = pd.DataFrame([
        {"trap": id_, "what": trap.what, "measured": trap.shown,
         **{name: "".join(read[(read["dataset"] == name) & (read["trap"] == id_)]["measured"])
            for name in sorted(set(read["dataset"]))},
         "ruled out here by the test": trap.ruled_out.replace("::", ": ")}
        for id_, trap in told.items()
    ])
    return full, shown
