"""What each setting does. Stamps, records, what a checkpoint is bound to and what is refused come from these tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Changes what a trained model ranks, without training again. The validations of training generate too.
GENERATION = (
    "sampler", "sampling_steps", "valid_sampling_steps", "eta", "variance", "guidance_strength", "num_channels",
    "start_steps", "rescale_x0", "eval_seed", "sampling_noise",
)  # fmt: skip
# Changes what is measured of a ranking, and so which epoch is kept.
EVALUATION = (
    "metrics", "topk", "valid_metric", "valid_metric_bigger", "eval_type", "metric_decimal_place", "category_field",
    "tail_ratio", "mmr_weight", "mmr_candidates", "candidate_seed",
)  # fmt: skip
# Files that RecBole's models start from, and all such files.
RECBOLE_SOURCES = ("pre_model_path", "pretrain_path", "mf_pretrain_path", "mlp_pretrain_path", "warm_up")
SOURCES = ("pretrained_item_table", *RECBOLE_SOURCES)
# Changes where training starts from, how its negatives are drawn and when it ends: a saved model is past that.
COURSE = (
    *SOURCES, "stages", "epochs", "eval_step", "stopping_step", "pretrain_epochs", "save_step", "worker",
)  # fmt: skip
# Changes how a model is trained, and nothing that a trained one computes. Not dropout_prob: RaCT scales scores by it.
TRAINING = (
    "learner", "learning_rate", "weight_decay", "clip_grad_norm", "train_batch_size", "train_neg_sample_args",
    "shuffle", "bucket_by_length", "train_on", "prefixes_per_user", "window_overlap", "reproducibility",
    "timestep_sampler", "snr_weighting", "item_init_std", "stop_gradient_target", "stop_gradient_latent",
    "mse_weight", "ce_weight", "ce_temperature", "interest_weight", "penalty_weight", "num_negatives", "w_dagl",
    "kl_weight", "divergence", "divergence_order", "dropout", "embedding_dropout", "hidden_dropout_prob",
    "attn_dropout_prob",
)  # fmt: skip
# Changes no result but for rounding.
SPEED = ("eval_batch_size", "max_cells")
# Where a run is made. Device and threads change weights a little: a run records them beside its settings.
PLACE = ("device", "gpu_id", "use_gpu", "local_rank", "single_spec", "data_path", "checkpoint_dir")
# What a run shows.
OUTPUT = ("show_progress", "state", "log_wandb", "wandb_project", "title_field", "loss_decimal_place")

_SHOWN = 8
NO_RESULT = frozenset((*SPEED, *PLACE, *OUTPUT))
# Every setting without a role changes what the network computes, what it learned from or how it is tested.
_FREE_TO_RESUME = NO_RESULT.union(COURSE)
_FREE_TO_LOAD = _FREE_TO_RESUME.union(TRAINING, GENERATION, EVALUATION)

# Names of earlier versions.
RENAMED = {"cut_points": "prefixes_per_user"}
# Settings that follow from others, or that others say now.
DERIVED = {
    "repeatable": "use mask_history (True or False)",
    "freeze_epochs": "use stages, e.g. [{epochs: 10, freeze: [item_embedding]}, {}]",
    "valid_metric_bigger": "it follows from valid_metric",
    "eval_type": "it follows from metrics",
    "valid_neg_sample_args": "use eval_args, e.g. {mode: {valid: uni100}}",
    "test_neg_sample_args": "use eval_args, e.g. {mode: {test: uni100}}",
    "device": "use gpu_id, or use_gpu=False",
    "MODEL_TYPE": "it follows from the model",
    "MODEL_INPUT_TYPE": "it follows from the model and its loss_type",
}
_PICKLES = "pickled data sets and loaders are not supported: opening a pickle runs code"
_PROCESSES = "a run is one process on one device; gpu_id chooses the GPU"
# What RecBole has, and a run here would ignore or do wrongly. Their defaults are allowed: they ask for nothing.
REFUSED = {
    "save_dataset": _PICKLES,
    "dataset_save_path": _PICKLES,
    "save_dataloaders": _PICKLES,
    "dataloaders_save_path": _PICKLES,
    "config_file": "files are named by --config_files",
    "enable_amp": "use precision=bf16",
    "enable_scaler": "use precision=bf16, which needs no scaling of the loss",
    "POSITION_FIELD": "no model reads it",
    "nproc": _PROCESSES,
    "world_size": _PROCESSES,
    "offset": _PROCESSES,
    "group_offset": _PROCESSES,
    "ip": _PROCESSES,
    "port": _PROCESSES,
    "local_rank": _PROCESSES,
    "single_spec": _PROCESSES,
}
# What only some of RecBole's models read, though all of them know it.
READ_BY = {
    "preload_weight": ("GRU4RecKG", "KSR"),
    "require_pow": ("LightGCN", "SimpleX"),
}
# What only RecBole's models of knowledge graphs read.
OF_KNOWLEDGE = (
    "kg_reverse_r", "entity_kg_num_interval", "relation_kg_num_interval", "alias_of_entity_id", "alias_of_relation_id",
)  # fmt: skip


def that_count(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that can change a result."""
    return {key: value for key, value in settings.items() if key not in NO_RESULT}


def that_bind(settings: Mapping[str, Any], resume: bool = False) -> dict[str, Any]:
    """The settings that must be what a checkpoint was made with: to use its model, or to ``resume`` its training."""
    free = _FREE_TO_RESUME if resume else _FREE_TO_LOAD
    return {key: value for key, value in settings.items() if key not in free}


class _Absent:
    """The value of a setting that one side does not have. It is no other's: not that of a setting that is None."""

    def __repr__(self) -> str:
        return "(no such setting)"


ABSENT = _Absent()


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """``setting -> (value there, value here)`` of those that differ; a missing one is :data:`ABSENT`."""
    pairs = {key: (there.get(key, ABSENT), here.get(key, ABSENT)) for key in sorted(there.keys() | here.keys())}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def described(found: Mapping[str, tuple[Any, Any]]) -> str:
    """:func:`differences` as part of a line: ``epochs=5 and not 6, seed=0 and not 1``; the first few of many."""
    shown = [f"{key}={there!r} and not {here!r}" for key, (there, here) in list(found.items())[:_SHOWN]]
    return ", ".join([*shown, *([f"{len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])])
