"""What the report of every notebook shows: its figures, its headline table and its further tables."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure

from feddiff.experiments import audit_family, figures_attacks_anonymity, figures_attacks_canaries
from feddiff.experiments import figures_attacks_copies, figures_attacks_gradients, figures_attacks_latents
from feddiff.experiments import figures_engine, figures_findiff, figures_findiff_clients, figures_quickstart
from feddiff.experiments import figures_findiff_rivals, findiff_noise, findiff_rivals_tables
from feddiff.experiments import figures_findiff_details, figures_findiff_large, figures_findiff_noise, findiff_traps
from feddiff.experiments import figures_findiff_aggregation, figures_findiff_rounds
from feddiff.experiments import figures_pfdm, figures_pfdm_clients, figures_pfdm_downstream, figures_pfdm_ladder
from feddiff.experiments import figures_pfdm_colour, figures_pfdm_privacy, pfdm_reported
from feddiff.experiments import figures_attacks_images, figures_attacks_membership, figures_attacks_scale
from feddiff.experiments import figures_attacks_uploads
from feddiff.experiments import figures_silofuse, figures_silofuse_messages
from feddiff.experiments import figures_silofuse_autoencoders, figures_silofuse_joint, figures_silofuse_robustness
from feddiff.experiments import silofuse_tables


@dataclass(frozen=True)
class Parts:
    """What a notebook's report has beside its table of all metrics.

    figures: name -> function of the records frame. pinned: labels fixed to one value for the table `headline`, which
    shows the metrics `shown` (none named: all); blocks: it is cut into one table for each set of labels. hidden:
    metrics that only a figure reads. tables: name -> function of the records frame that returns (full, for reading).
    """

    figures: dict[str, Callable[[pd.DataFrame], Figure]] = field(default_factory=dict)
    pinned: dict[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    blocks: bool = False
    tables: dict[str, Callable[[pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame]]] = field(default_factory=dict)


_PICTURES = ("label_accuracy", "frechet", "frechet_corrected", "kid", "precision", "recall", "closer_to_train")
PARTS = {
    "00_quickstart": Parts(
        figures={"columns": figures_quickstart.columns}, pinned={"classifier": "boosting"},
        hidden=("share_real", "share_synthetic"),
    ),
    "10_findiff_privacy_budget": Parts(
        figures={
            "budget": figures_findiff.budget, "methods": figures_findiff.methods, "floors": figures_findiff.floors,
            "change": figures_findiff.relative_change,
        },
        pinned={"classifier": "boosting"},
    ),
    "11_findiff_clients": Parts(
        figures={
            "clients": figures_findiff_clients.clients, "noise": figures_findiff_clients.noise,
            "alone": figures_findiff_clients.alone, "unit": figures_findiff_clients.unit,
        },
        pinned={"client": "", "classifier": "boosting"},
        shown=(
            "column_shapes", "pair_trends", "pair_trends_quantile", "roc_auc", "attack_risk", "client_epsilon",
            "noise_multiplier", "averaged_noise",
        ),
    ),
    "14_findiff_rivals": Parts(
        figures={
            "budgets": figures_findiff_rivals.budgets, "differences": figures_findiff_rivals.differences,
            "ladder": figures_findiff_rivals.ladder, "without": figures_findiff_rivals.without,
            "alone": figures_findiff_rivals.alone,
        },
        pinned={"client": "", "classifier": "boosting"},
        shown=("column_shapes", "pair_trends", "pair_trends_quantile", "roc_auc", "spent_epsilon"),
        tables={
            "winners": findiff_rivals_tables.winners, "strongest": findiff_rivals_tables.strongest,
            "settings": findiff_rivals_tables.settings,
        },
    ),
    "15_findiff_noise_and_clipping": Parts(
        figures={
            "noise": figures_findiff_noise.noise, "frontier": figures_findiff_noise.frontier,
            "clipping": figures_findiff_noise.clipping, "batches": figures_findiff_noise.batches,
        },
        pinned={"classifier": "boosting"}, hidden=("update_noise",),
        shown=("column_shapes", "pair_trends", "pair_trends_quantile", "balanced_accuracy", "roc_auc", "attack_risk",
               "clipped_share", "noise_multiplier", "spent_epsilon"),
        blocks=True, tables={"optima": findiff_noise.optima_table},
    ),
    "12_findiff_local_updates": Parts(
        figures={
            "updates": figures_findiff_rounds.updates, "communication": figures_findiff_rounds.communication,
            "interaction": figures_findiff_rounds.interaction,
            "interaction_rounds": figures_findiff_rounds.interaction_rounds,
        },
        pinned={"classifier": "boosting"}, hidden=("held_out_loss_trace", "move_norm_trace", "weight_norm_trace"),
        shown=(
            "pair_trends", "pair_trends_quantile", "roc_auc", "held_out_loss", "rounds", "bytes_sent",
            "bytes_to_target", "rounds_to_target", "steps_to_target",
        ),
    ),
    "13_findiff_aggregation": Parts(
        figures={
            "strategies": figures_findiff_aggregation.strategies, "traces": figures_findiff_aggregation.traces,
            "states": figures_findiff_aggregation.states,
        },
        pinned={"classifier": "boosting"}, hidden=("held_out_loss_trace", "move_norm_trace", "weight_norm_trace"),
        shown=(
            "pair_trends", "pair_trends_quantile", "roc_auc", "attack_risk", "held_out_loss", "final_over_best",
            "final_over_start", "late_slope", "alarm",
        ),
    ),
    "16_findiff_accounting_horizon": Parts(figures={"horizon": figures_engine.horizon}),
    "17_findiff_private_preprocessing": Parts(
        figures={"leaks": figures_engine.leaks, "cost": figures_engine.codec_cost}, pinned={"classifier": "boosting"},
    ),
    "18_findiff_large": Parts(
        figures={"quality": figures_findiff_large.quality, "cost": figures_findiff_large.cost},
        pinned={"classifier": "boosting"},
        shown=("column_shapes", "pair_trends", "pair_trends_quantile", "roc_auc", "rows_trained", "noise_multiplier"),
        tables={"cost": figures_findiff_large.cost_table},
    ),
    "19_findiff_details": Parts(
        figures={
            "choices": figures_findiff_details.choices, "frozen": figures_findiff_details.frozen,
            "scoring": figures_findiff_details.scoring, "anchor": figures_findiff_details.anchor,
            "gains": figures_findiff_details.gains,
        },
        pinned={"classifier": "boosting"}, hidden=("denoising_error_logged", "epsilon_logged", "trap"),
        shown=(
            "column_shapes", "pair_trends", "pair_trends_quantile", "roc_auc", "client_revealed", "label_drift",
            "pair_trends_of_label", "accuracy_above_floor", "distance_mean", "sdv_shapes", "sdv_pairs", "dp_time_ratio",
            "freezing_share",
        ),
        blocks=True,
        tables={"traps": findiff_traps.table, "gains": figures_findiff_details.gains_table},
    ),
    "20_pfdm_heterogeneity": Parts(
        figures={
            "groups": figures_pfdm.groups, "samples": figures_pfdm.samples, "heterogeneity": figures_pfdm.heterogeneity,
            "confusion": figures_pfdm.confusion, "states": figures_pfdm.states,
        },
        pinned={"client": "all"}, hidden=("confusion", "pictures_held"), shown=_PICTURES,
    ),
    "21_pfdm_privacy_frontier": Parts(
        figures={
            "bounds": figures_pfdm_privacy.bounds, "audit": figures_pfdm_privacy.audit,
            "frontier": figures_pfdm_privacy.frontier, "gains": figures_pfdm_privacy.gains,
            "variants": figures_pfdm_privacy.variants, "samples": figures_pfdm.samples,
        },
        pinned={"client": "all"}, blocks=True, hidden=("epsilon_bound", "pictures_held"),
    ),
    "22_pfdm_collaboration_ladder": Parts(
        figures={
            "ladder": figures_pfdm_ladder.ladder, "differences": figures_pfdm_ladder.differences,
            "samples": figures_pfdm_ladder.samples,
        },
        pinned={"client": "all"}, hidden=("pictures_held",), shown=(*_PICTURES, "start_accuracy", "start_bytes"),
    ),
    "24_pfdm_downstream_bias": Parts(
        figures={
            "fairness": figures_pfdm_downstream.fairness, "recalls": figures_pfdm_downstream.recalls,
            "samples": figures_pfdm.samples,
        },
        pinned={"client": "all"}, hidden=("class_recall", "pictures_held"),
        shown=("accuracy", "worst_recall", "recall_gap", "minority_recall", "majority_recall"),
    ),
    "23_pfdm_clients": Parts(
        figures={
            "advantage": figures_pfdm_clients.advantage, "traffic": figures_pfdm_clients.traffic,
            "cost": figures_pfdm_clients.cost,
        },
        pinned={"client": "all"}, blocks=True,
    ),
    "25_pfdm_colour_and_cifar": Parts(
        figures={
            "samples": figures_pfdm_colour.samples, "groups": figures_pfdm.groups, "credit": figures_pfdm_colour.credit,
            "reported": figures_pfdm_colour.reported, "inks": figures_pfdm_colour.inks,
            "steps": figures_pfdm_colour.steps,
        },
        pinned={"client": "all"}, hidden=("pictures_held", "side"), shown=(*_PICTURES, "ink_purity", "ink_distance"),
        tables={"reported": pfdm_reported.table},
    ),
    "26_pfdm_break_conditions": Parts(
        figures={
            "incompatible": figures_pfdm_clients.incompatible, "rarity": figures_pfdm_clients.rarity,
            "samples": figures_pfdm.samples,
        },
        pinned={"client": "all"}, blocks=True, hidden=("pictures_held",),
    ),
    "27_pfdm_theory": Parts(
        figures={"errors": figures_pfdm_privacy.theory, "gain": figures_pfdm_privacy.theory_gain},
    ),
    "30_silofuse_quality": Parts(
        figures={
            "scores": figures_silofuse.scores, "associations": figures_silofuse.associations,
            "differences": figures_silofuse.differences, "readings": figures_silofuse.readings,
            "alarm": figures_silofuse.alarm,
        },
        pinned={"seen_from": "all"}, hidden=("resemblance_reading", "reconstruction"),
        shown=(
            "resemblance", "utility", "utility_median", "association_within", "association_across",
            "association_across_equal_rows", "cross_tstr", "roc_auc", "reconstruction_mean", "reconstruction_worst",
        ),
        tables={"reconstruction": silofuse_tables.reconstruction, "rivals": silofuse_tables.rivals},
    ),
    "31_silofuse_communication": Parts(
        figures={
            "counted": figures_silofuse_messages.counted, "quality": figures_silofuse_messages.quality,
            "waiting": figures_silofuse_messages.waiting,
        },
        pinned={"published": ""}, shown=("bytes_sent", "bytes_over_expected", "rounds", "messages"),
    ),
    "32_silofuse_robustness": Parts(
        figures={
            "orders": figures_silofuse_robustness.orders, "silos": figures_silofuse_robustness.silos,
            "shapes": figures_silofuse_robustness.shapes,
        },
        pinned={"column": "", "sort": ""}, hidden=("reconstruction", "resemblance_part"),
        shown=(
            "resemblance", "utility", "association_all", "association_across", "association_across_equal_rows",
            "reconstruction_worst", "strength_within",
        ),
        tables={"reconstruction": silofuse_tables.reconstruction},
    ),
    "33_silofuse_stacked_or_joint": Parts(
        figures={
            "methods": figures_silofuse_joint.methods, "differences": figures_silofuse_joint.differences,
            "stages": figures_silofuse_joint.stages,
        },
        pinned={"column": ""}, hidden=("reconstruction", "resemblance_part"),
        shown=(
            "resemblance", "utility", "association_within", "association_within_equal_rows", "association_across",
            "association_across_equal_rows", "reconstruction_mean", "reconstruction_worst", "task_auc",
            "bytes_training", "rounds",
        ),
        tables={"reconstruction": silofuse_tables.reconstruction},
    ),
    "34_silofuse_autoencoders": Parts(
        figures={
            "widths": figures_silofuse_autoencoders.widths, "variants": figures_silofuse_autoencoders.variants,
            "steps": figures_silofuse_autoencoders.steps,
            "generalisation": figures_silofuse_autoencoders.generalisation,
        },
        pinned={"column": ""}, hidden=("reconstruction", "resemblance_part"),
        shown=(
            "reconstruction_mean", "reconstruction_worst", "latents_per_column", "one_hot_per_latent",
            "known_rows_leak", "resemblance", "association_within_equal_rows", "association_across_equal_rows",
            "nll_gap", "membership_auc",
        ),
        tables={"reconstruction": silofuse_tables.reconstruction},
    ),
    "40_membership_tables": Parts(
        figures={
            "budgets": figures_attacks_membership.budgets, "bounds": figures_attacks_membership.bounds,
            "ranks": figures_attacks_membership.ranks,
        },
        pinned={"group": "all"},
        hidden=tuple(f"{name}_{end}" for end in ("low", "high") for name in (
            "membership_auc", "tpr_at_10_percent", "tpr_at_1_percent", "tpr_at_0_1_percent")),
        shown=("membership_auc", "tpr_at_10_percent", "tpr_at_1_percent", "tpr_at_0_1_percent", "advantage"),
    ),
    "41_membership_images": Parts(
        figures={
            "views": figures_attacks_images.views, "power": figures_attacks_images.power,
            "groups": figures_attacks_images.groups, "memorised": figures_attacks_images.memorised,
        },
        pinned={"group": "all"}, hidden=("pictures_held",), shown=("membership_auc", "tpr_at_10_percent"),
    ),
    "42_anonymity": Parts(
        figures={"risks": figures_attacks_anonymity.risks, "metrics": figures_attacks_anonymity.metrics},
        pinned={"ids": ""}, 
        hidden=("half_width", "passes", "rank_agreement", "membership_auc_low", "membership_auc_high", "risk_low",
                "risk_high", "attack_risk_low", "attack_risk_high"),
        shown=("risk", "attack_rate", "control_rate", "baseline_rate", "too_weak"),
        tables={"scores": figures_attacks_anonymity.scores},
    ),
    "44_upload_reidentification": Parts(
        figures={
            "matched": figures_attacks_uploads.matched, "reconstructed": figures_attacks_uploads.reconstructed,
            "pictures": figures_attacks_uploads.pictures, "repeated": figures_attacks_uploads.repeated,
        },
        pinned={"repeats": "", "attacker": ""},
        shown=("matched", "matched_10", "matched_label", "class_read", "epsilon_value", "epsilon_proved"),
    ),
    "43_latent_inversion": Parts(
        figures={
            "curves": figures_attacks_latents.curves, "columns": figures_attacks_latents.columns,
            "attacks": figures_attacks_latents.attacks, "structure": figures_attacks_latents.structure,
            "defences": figures_attacks_latents.defences,
        },
        pinned={"column": "", "part": ""}, hidden=("column_gain", "resemblance_part"),
        shown=("leak", "number_r2", "category_gain", "linked", "resemblance", "association_across"),
    ),
    "45_gradient_leakage": Parts(
        figures={"steps": figures_attacks_gradients.steps, "updates": figures_attacks_gradients.updates,
                 "canaries": figures_attacks_gradients.canaries, "owners": figures_attacks_gradients.owners},
        pinned={"client": ""}, blocks=True,
        shown=("input_error", "inputs_recovered", "records_recovered", "correlation", "update_input_error",
               "update_inputs_recovered", "update_records_recovered", "upload_epsilon", "upload_epsilon_lower",
               "upload_epsilon_ceiling", "source_accuracy", "source_accuracy_plain", "source_chance"),
    ),
    "46_copy_detectors_are_not_privacy": Parts(
        figures={"releases": figures_attacks_copies.releases},
        hidden=("exact_copies", "recovered_holdout"),
    ),
    "47_dp_audit": Parts(
        figures={
            "audit": figures_engine.audit, "run": figures_engine.audit_run,
            "canaries": figures_attacks_canaries.canaries,
        },
        hidden=("p_value", "refuted"), tables={"decisions": audit_family.decisions},
    ),
    "48_shuffle_and_adjacency": Parts(
        figures={"meanings": figures_engine.meanings, "batches": figures_engine.batches},
    ),
    "49_one_scale": Parts(
        figures={"scale": figures_attacks_scale.scale}, pinned={"attack": ""},
        shown=("utility_share", "epsilon_stated", "epsilon_lower", "epsilon_ceiling", "tpr_at_1_percent",
               "anonymity_risk", "matched_gap", "matched_epsilon_lower", "matched_tpr_at_1_percent",
               "matched_anonymity_risk"),
    ),
}
