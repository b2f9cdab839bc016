"""The settings that every run has, with any model: RecBole's and ours. Docs and help list them in this order."""

from __future__ import annotations

from typing import Any

from recbole_diffusion.config import shapes
from recbole_diffusion.config.row import (
    Part,
    Role,
    Row,
    derived,
    flag,
    from_zero,
    number,
    one_of,
    other,
    path,
    refused,
    section,
    share,
    text,
    whole,
)  # fmt: skip

_SEEDS = 2**32 - 1
_PICKLES = "pickled data sets and loaders are not supported: opening a pickle runs code"
_PROCESSES = "torchrun starts the processes of a run; gpu_id chooses the GPU of a single one"
_LONGEST = 1_000_000  # items of a history
_MOST_ROWS = 2**31 - 1  # in a batch
_MOST_DECIMALS, _MOST_PROCESSES = 16, 256  # 16 are the decimals of a 64-bit float


def _columns(help: str, **more: Any) -> Row:
    return other("a list of columns, or ~", help, shapes.is_texts, optional=True, **more)


def _of_files(help: str, check: shapes.Check = shapes.is_columns_of_files, **more: Any) -> Row:
    says = "columns of each file, e.g. {inter: [user_id, item_id]}, or ~"
    return other(says, help, check, optional=True, **more)


def _interval(help: str, **more: Any) -> Row:
    return other("an interval, e.g. '[4,inf)', or ~", help, shapes.is_interval, optional=True, **more)


def _separator(help: str, **more: Any) -> Row:
    return other("a text of one character or more", help, shapes.is_text, **more)


_PROTOCOL = section(Role.RESULT, Part.PROTOCOL, {
    "model": text("name of the model; recbole.NAME is RecBole's model"),
    "dataset": text("name of the data set"),
    "preset": text("default: what validates best; paper: the paper's loss, diffusion and optimiser", main=True),
    "seed": whole("seed of weights, batches, training noise and random splits", low=0, high=_SEEDS, main=True),
    "eval_args": other(
        "a mapping of split, group_by, order and mode", "how the data is split, and which items are ranked",
        lambda value: isinstance(value, dict),
        keys=("split", "group_by", "order", "mode"), compared=True, stamp="evaluation",
    ),
    "split": one_of(
        ("leave_one_out", "global_time", "user"),
        "what is held out: the last two events of each user, all later events, or other users; ~: see eval_args",
        optional=True, compared=True, main=True,
    ),
    "split_at": other(
        "a list of two numbers, the first smaller, or ~",
        "when validation and test begin (split: global_time), as times of the file; ~: at 80 and 90 % of the events",
        shapes.is_range, optional=True, compared=True, stamp="split_at",
    ),
    "split_targets": one_of(
        ("first", "each"), "which later events of a user are targets (split: global_time); ~ is first", optional=True,
        compared=True, stamp="split_targets",
    ),
    "split_seed": whole("draw of the users (split: user)", low=0, high=_SEEDS, compared=True, stamp="split_seed"),
    "mask_history": flag(
        "items of the user's history are never recommended", compared=True, stamp="mask_history", main=True,
    ),
    "repeatable": derived("use mask_history (True or False)"),
    "valid_neg_sample_args": derived("use eval_args, e.g. {mode: {valid: uni100}}"),
    "test_neg_sample_args": derived("use eval_args, e.g. {mode: {test: uni100}}", compared=True),
    "MODEL_TYPE": derived("it follows from the model"),
    "MODEL_INPUT_TYPE": derived("it follows from the model and its loss_type"),
})  # fmt: skip

_EVALUATION = section(Role.RESULT, Part.EVALUATION, {
    "metrics": other(
        "a list of different names", "metrics to compute", shapes.is_one_or_list_of(shapes.is_text), compared=True,
        main=True,
    ),
    "topk": other(
        "a list of different whole numbers >= 1", "lengths of the lists that metrics use",
        shapes.is_one_or_list_of(shapes.is_whole), compared=True, main=True,
    ),
    "valid_metric": text("metric that chooses the best epoch, e.g. NDCG@10", compared=True, main=True),
    "valid_metric_bigger": derived("it follows from valid_metric"),
    "eval_type": derived("it follows from metrics"),
    "metric_decimal_place": whole("decimals of the metrics", high=_MOST_DECIMALS, compared=True),
    "candidate_seed": whole(
        "seed of the items that are sampled for each user, if eval_args mode is uniN or popN", low=0, high=_SEEDS,
        compared=True, stamp="seed of the sampled candidates",
    ),
    "category_field": text(
        "token or token_seq column of the .item file with the categories of an item", optional=True, compared=True,
        stamp="category_field",
    ),
    "tail_ratio": number(
        "tail of TailPercentage: a share of the items; above 1: items with at most so many interactions", above=0,
        compared=True,
    ),
    "mmr_weight": from_zero(
        "re-rank lists by MMR on categories: 1 is by score only, 0 by diversity only; ~ does not re-rank", high=1,
        optional=True, stamp="mmr_weight",
    ),
    "mmr_candidates": whole("how many of a user's best items MMR chooses from", compared=True),
})  # fmt: skip

_NETWORK = section(Role.RESULT, Part.NETWORK, {
    "MAX_ITEM_LIST_LENGTH": whole("longest history, in items", high=_LONGEST, stamp="MAX_ITEM_LIST_LENGTH", main=True),
    "precision": one_of(
        ("fp32", "bf16"), "bf16: matrix products of training and generation are in bfloat16", stamp="precision",
    ),
    "transform": other(
        "mask_itemseq, inverse_itemseq, crop_itemseq, reorder_itemseq, user_defined or ~",
        "RecBole's transformation of batches; for models that train on prefixes", shapes.is_transform, optional=True,
    ),
    "require_pow": flag("power in the regularisation of embeddings", read_by=("LightGCN", "SimpleX")),
})  # fmt: skip

_TRAINING = section(Role.RESULT, Part.TRAINING, {
    # RecBole's sparse_adam takes sparse gradients only, which no model has.
    "learner": one_of(("adam", "adamw", "sgd", "adagrad", "rmsprop"), "optimiser"),
    "learning_rate": number("learning rate", above=0, main=True),
    "weight_decay": from_zero("weight decay"),
    "clip_grad_norm": other(
        "~, or max_norm and optionally norm_type, numbers above 0, e.g. {max_norm: 5}", "clips the gradient's norm",
        shapes.is_clipping, optional=True,
    ),
    "train_batch_size": whole("training rows per batch: windows, prefixes or users", high=_MOST_ROWS, main=True),
    "train_neg_sample_args": other(
        "settings of RecBole's sampler, e.g. {distribution: uniform, sample_num: 1} (also alpha, dynamic and "
        "candidate_num; distribution can be popularity), or ~",
        "sampled negatives; models that learn from pairs or labels get one per row, RecBole's default",
        shapes.is_sampling, optional=True,
        keys=("distribution", "sample_num", "alpha", "dynamic", "candidate_num"),
    ),
    "shuffle": flag("shuffle the training rows in each epoch"),
    "bucket_by_length": flag(
        "put histories of similar length into one batch, which is as long as its longest", stamp="bucket_by_length",
    ),
    "prefixes_per_user": whole(
        "random prefixes per user and epoch; ~ is all prefixes (only if training rows are prefixes)", optional=True,
        formerly=("cut_points",),
    ),
    "window_overlap": share(
        "share of a window that repeats the previous one, as context without targets (train_on: windows)",
    ),
    "reproducibility": flag("the same seed gives the same numbers", fixed=True),
})  # fmt: skip

_COURSE = section(Role.RESULT, Part.COURSE, {
    "epochs": whole("largest number of epochs", main=True),
    "eval_step": whole("epochs between validations"),
    "stopping_step": whole("how many validations in a row may be without improvement; one more stops training", low=0),
    "worker": whole(
        "processes that load batches; it changes which negatives are sampled", low=0, high=_MOST_PROCESSES,
    ),
})  # fmt: skip

_DATA = section(Role.RESULT, Part.DATA, {
    "encoding": text("text encoding of the files, as Python names it; ~ is utf-8", optional=True),
    "field_separator": _separator("what separates two columns"),
    "seq_separator": _separator("what separates the parts of a sequence"),
    "USER_ID_FIELD": text("column of users", compared=True),
    "ITEM_ID_FIELD": text("column of items", compared=True),
    "TIME_FIELD": text("column of times", compared=True),
    "RATING_FIELD": text("column of ratings"),
    "LABEL_FIELD": text("column of labels that RecBole makes"),
    "NEG_PREFIX": text("beginning of the names of columns of sampled items"),
    "LIST_SUFFIX": text("end of the names of columns of histories"),
    "ITEM_LIST_LENGTH_FIELD": text("column of lengths of histories"),
    "TARGET_LIST_FIELD": text("column of the targets of a window, one for each position"),
    "HEAD_ENTITY_ID_FIELD": text("column of heads of a knowledge graph"),
    "TAIL_ENTITY_ID_FIELD": text("column of tails of a knowledge graph"),
    "RELATION_ID_FIELD": text("column of relations of a knowledge graph"),
    "ENTITY_ID_FIELD": text("column of entities of a knowledge graph"),
    "load_col": _of_files("columns to load; ~ is all", shapes.is_columns_or_all_of_files),
    "unload_col": _of_files("columns not to load"),
    "unused_col": _of_files("columns that are loaded for filters only, and then dropped"),
    "additional_feat_suffix": other(
        "a list of file suffixes, or ~", "further files to load", shapes.is_one_or_list_of(shapes.is_text),
        optional=True,
    ),
    "numerical_features": other("a list of columns", "float columns that models embed", shapes.is_texts),
    "threshold": other(
        "a column and a number, e.g. {rating: 3}, or ~", "rows with this value or more have label 1",
        shapes.is_threshold, optional=True,
    ),
    "seq_len": other(
        "columns and whole numbers >= 1, e.g. {column: 5}, or ~", "longest sequence in a sequence column",
        shapes.is_mapping_of(shapes.is_whole), optional=True,
    ),
    "val_interval": other(
        "columns and what to keep, e.g. {rating: '[3,inf)'} or {kind: [book, film]}, or ~", "rows to keep",
        shapes.is_mapping_of(lambda kept: shapes.is_interval(kept) or shapes.is_values(kept)), optional=True,
        compared=True,
    ),
    "rm_dup_inter": one_of(
        ("first", "last"), "which of several rows of the same user and item is kept; ~ keeps all", optional=True,
        compared=True,
    ),
    "filter_inter_by_user_or_item": flag("drop rows whose user or item is missing in the .user or .item file"),
    "user_inter_num_interval": _interval("keep users with so many rows", compared=True),
    "item_inter_num_interval": _interval("keep items with so many rows", compared=True),
    "alias_of_user_id": _columns("other columns that contain users"),
    "alias_of_item_id": _columns("other columns that contain items"),
    "preload_weight": other(
        "columns of ids and of vectors, e.g. {id: vector}, or ~", "vectors to start from",
        shapes.is_mapping_of(shapes.is_text), optional=True, read_by=("GRU4RecKG", "KSR"),
    ),
    "normalize_field": _columns("float columns to scale to 0 ... 1"),
    "normalize_all": flag("scale all float columns", optional=True),
    "discretization": other(
        "columns and methods, e.g. {price: {method: ED, bucket: 5}} or {price: {method: LD}}, or ~",
        "float columns to cut into bins", shapes.is_bins, optional=True,
    ),
    "benchmark_filename": other(
        "three different names of training, validation and test, e.g. [train, valid, test] for NAME.train.inter, "
        "NAME.valid.inter and NAME.test.inter; or ~",
        "files that are split already; their rows and splits are used as they are", compared=True,
    ),
    "POSITION_FIELD": refused("no model reads it"),
})  # fmt: skip

_KNOWLEDGE = section(Role.RESULT, Part.KNOWLEDGE, {
    "kg_reverse_r": flag("use relations in both directions"),
    "entity_kg_num_interval": _interval("keep entities with so many triples"),
    "relation_kg_num_interval": _interval("keep relations with so many triples"),
    "alias_of_entity_id": _columns("other columns that contain entities"),
    "alias_of_relation_id": _columns("other columns that contain relations"),
})  # fmt: skip

_SPEED = section(Role.SPEED, None, {
    "eval_batch_size": whole("rows per batch of evaluation", high=_MOST_ROWS),
    "max_cells": whole(
        "largest size of a matrix of rows by items, in numbers; a larger one is computed in parts",
    ),
})  # fmt: skip

# Device and threads change weights a little, by rounding. A run records them in addition to its settings.
_PLACE = section(Role.PLACE, None, {
    "data_path": path("folder that holds DATASET/DATASET.inter", main=True),
    "checkpoint_dir": path("folder of checkpoints"),
    "checkpoint_minutes": from_zero(
        "minutes after which the checkpoint that a stopped run goes on from is written within an epoch too; 0 is after "
        "each step, ~ only after an epoch", optional=True,
    ),
    "trust_checkpoint": flag(
        "also read RecBole's own checkpoints; they are pickles: opening one runs whatever code is in it",
    ),
    "gpu_id": other(
        "the number of a GPU, e.g. 0", "GPU to use, if torch finds one", shapes.is_device_number, optional=True,
        main=True,
    ),
    "use_gpu": flag("False uses the CPU"),
    "device": derived("use gpu_id, or use_gpu=False"),
    "local_rank": refused(_PROCESSES),
    "single_spec": refused(_PROCESSES),
})  # fmt: skip

_OUTPUT = section(Role.OUTPUT, None, {
    "show_progress": flag("RecBole's bars of batches instead of the bar of epochs"),
    "state": one_of(("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"), "lowest level of messages in the log"),
    "loss_decimal_place": whole("decimals of losses", high=_MOST_DECIMALS),
    "title_field": text("column of the .item file with the titles of items", optional=True),
    "log_wandb": flag("log to Weights & Biases; needs the package wandb"),
    "wandb_project": text("project on Weights & Biases; only with log_wandb=True"),
})  # fmt: skip

# Settings of RecBole that a run here would ignore or do wrongly. Only their defaults are allowed, which do nothing.
_REFUSED = section(Role.RESULT, Part.PROTOCOL, {
    "save_dataset": refused(_PICKLES),
    "dataset_save_path": refused(_PICKLES),
    "save_dataloaders": refused(_PICKLES),
    "dataloaders_save_path": refused(_PICKLES),
    "config_file": refused("files are named by --config_files"),
    "enable_amp": refused("use precision=bf16"),
    "enable_scaler": refused("use precision=bf16, which needs no scaling of the loss"),
    "nproc": refused(_PROCESSES),
    "world_size": refused(_PROCESSES),
    "offset": refused(_PROCESSES),
    "group_offset": refused(_PROCESSES),
    "ip": refused(_PROCESSES),
    "port": refused(_PROCESSES),
})  # fmt: skip

RUN_ROWS = {
    **_PROTOCOL, **_EVALUATION, **_NETWORK, **_TRAINING, **_COURSE, **_DATA, **_KNOWLEDGE, **_SPEED, **_PLACE,
    **_OUTPUT, **_REFUSED,
}  # fmt: skip
