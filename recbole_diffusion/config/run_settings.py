"""The settings that every run has, with their types and limits."""

from __future__ import annotations

import dataclasses

from recbole_diffusion.config.settings import TypedSettings, setting


@dataclasses.dataclass(frozen=True)
class RunSettings(TypedSettings):
    """The settings every run has, of whatever model; RecBole itself does not check them."""

    seed: int = setting(low=0, high=2**32 - 1)
    epochs: int = setting(low=1)
    train_batch_size: int = setting(low=1)
    eval_batch_size: int = setting(low=1)
    eval_step: int = setting(low=1)
    stopping_step: int = setting(low=0)
    # RecBole's sparse_adam takes sparse gradients only, which no model has.
    learner: str = setting(choices=("adam", "adamw", "sgd", "adagrad", "rmsprop"))
    learning_rate: float = setting(above=0)
    weight_decay: float = setting(low=0)
    worker: int = setting(low=0)
    MAX_ITEM_LIST_LENGTH: int = setting(low=1)
    max_cells: int = setting(low=1)
    mask_history: bool = setting()
    candidate_seed: int = setting(low=0, high=2**32 - 1)
    reproducibility: bool = setting()
    show_progress: bool = setting()
    state: str = setting(choices=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
    log_wandb: bool = setting()
    use_gpu: bool = setting()
    loss_decimal_place: int = setting(low=1)
    metric_decimal_place: int = setting(low=1)
    shuffle: bool = setting()
    precision: str = setting(choices=("fp32", "bf16"))
    bucket_by_length: bool = setting()
    prefixes_per_user: int | None = setting(low=1, optional=True)
    window_overlap: float = setting(low=0, below=1)
    category_field: str | None = setting(optional=True)
    tail_ratio: float = setting(above=0)
    mmr_weight: float | None = setting(low=0, high=1, optional=True)
    mmr_candidates: int = setting(low=1)
