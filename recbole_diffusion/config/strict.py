"""RecBole's ``Config``, made strict.

RecBole reads a missing key as None, takes an unknown one in silence, evaluates strings as Python and reads
``sys.argv``. Here every key must be known, values are YAML, and nothing is read that was not passed in.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from recbole.config import Config as RecBoleConfig
from recbole.evaluator.register import metric_information
from recbole.utils import EvaluatorType, InputType, ModelType
from recbole.utils.argument_list import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_diffusion import compat
from recbole_diffusion.config import recbole_models, roles
from recbole_diffusion.config.model_files import model_files, model_name
from recbole_diffusion.config.protocol import check_pre_split, check_protocol, is_sampled, phase_modes
from recbole_diffusion.config.reading import YamlLoader, read_properties, recbole_properties
from recbole_diffusion.config.row import Part, Row
from recbole_diffusion.config.rows_run import RUN_ROWS
from recbole_diffusion.config.settings import (
    Settings,
    UserError,
    check_finite,
    check_name,
    did_you_mean,
)
from recbole_diffusion.config.table import TABLE

compat.apply()

# What a model of RecBole's looks up, though none of RecBole's YAML files lists it.
_UNLISTED = {"HRM": ("reg_weight",)}
# RecBole's sequential models that learn from the label of each row.
_LABELLED = ("DIEN", "DIN")
# What metrics of recommended lists are computed from: they have one value for each k of topk.
_LIST_RESOURCES = {"rec.items", "rec.topk"}


class Config(RecBoleConfig):
    """RecBole's ``Config`` for one model and data set, from settings that were read before.

    Args:
        model_class: the recommender, ours or RecBole's.
        dataset: the data set's name.
        settings: what the user set (:func:`load_settings`); wins over every YAML file.
        ours: whether the model runs as ours do. RecBole has a YAML file of the same name for some of our models; ours
            then reads only its own.
        preset: ``default``, or ``paper`` for ``properties/paper/<Model>.yaml`` on top of the model's YAML.

    Raises:
        UserError: an unknown key, a value RecBole refuses, a metric to validate by that is not computed.
    """

    def __init__(self, model_class: Any, dataset: str, settings: Settings, ours: bool, preset: str = "default") -> None:
        check_name("dataset", dataset)
        self._ours = ours
        self._preset = preset
        folders = ("data_path", "checkpoint_dir")
        settings = {key: value for key, value in settings.items() if key not in folders or value is not None}
        check_finite(settings)
        settings = {
            key: str(value) if key in roles.PATHS and value is not None else value for key, value in settings.items()
        }
        try:
            super().__init__(model=model_class, dataset=dataset, config_dict=settings)
        except UserError:
            raise
        except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
            raise UserError(f"settings of {model_class.__name__} on {dataset}: {error}") from error
        self.final_config_dict["preset"] = preset
        own = Path(settings.get("data_path") or self.internal_config_dict["data_path"], dataset)
        files = own.iterdir() if own.is_dir() else ()
        # RecBole takes its own ml-100k whatever data_path says.
        if any(file.name.startswith(f"{dataset}.") and file.suffix == ".inter" for file in files):
            self.final_config_dict["data_path"] = str(own)
        self._check_values()
        if self["precision"] == "bf16" and model_class.type != ModelType.SEQUENTIAL:
            raise UserError(f"precision=bf16: only sequential models train in it; {model_class.__name__} is none.")
        if self["log_wandb"] and find_spec("wandb") is None:
            raise UserError("log_wandb=True: needs the package wandb. Install it (pip install wandb), or set False.")
        if "wandb_project" in settings and not self["log_wandb"]:
            raise UserError(f"wandb_project={self['wandb_project']!r}: is read only with log_wandb=True.")
        if "candidate_seed" in settings and not any(is_sampled(mode) for mode in phase_modes(self)):
            raise UserError(
                f"candidate_seed={self['candidate_seed']}: is read only with eval_args mode uniN or popN, which sample."
            )
        if self["mmr_weight"] is not None:
            self._check_re_ranking()
        self._check_valid_metric()

    def compatibility_settings(self) -> None:
        compat.numpy_aliases()

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return YamlLoader

    def _convert_config_dict(self, config_dict: Settings) -> Settings:
        return config_dict  # typed when they were read; RecBole would eval() strings

    def _load_cmd_line(self) -> Settings:
        return {}  # the arguments of the process are not ours to read

    def _init_parameters_category(self) -> None:
        # Copies: RecBole appends the keys of each data set it meets to these module-level lists.
        self.parameters = {
            "General": list(general_arguments),
            "Training": list(training_arguments),
            "Evaluation": list(evaluation_arguments),
            "Dataset": list(dataset_arguments),
        }

    def _get_model_and_dataset(self, model: Any, dataset: str) -> tuple[str, Any, str]:
        return model_name(model), model, dataset

    def _load_internal_config_dict(self, model: str, model_class: Any, dataset: str) -> None:
        # A name that no RecBole file has keeps e.g. RecBole's DiffRec.yaml out of our DiffRec.
        super()._load_internal_config_dict(f"recbole_diffusion.{model}" if self._ours else model, model_class, dataset)
        recbole_eval_args = self.internal_config_dict.get("eval_args")
        negatives = self.internal_config_dict["train_neg_sample_args"]
        self.internal_config_dict.update(read_properties("overall.yaml"))
        self.internal_config_dict.update(read_properties("dataset", f"{dataset}.yaml"))
        if model_class.type not in (ModelType.SEQUENTIAL, ModelType.GENERAL, ModelType.TRADITIONAL):
            self.internal_config_dict["eval_args"] = recbole_eval_args
        self._load_named_fields(model_class.type == ModelType.SEQUENTIAL)
        if self._samples_negatives(model_class):
            self.internal_config_dict["train_neg_sample_args"] = negatives
        own = model_files(model_class).settings(model, self._preset)
        for key in own:
            if self._ours and key not in TABLE:
                raise UserError(f"{key} of {model}'s YAML has no role: declare it in the model's settings.")
        self.internal_config_dict.update(own)
        self._check_keys(model_class)
        self._derive_repeatable(model_class)
        if not self._ours:
            self._check_model_of_recbole(model)

    def _check_model_of_recbole(self, model: str) -> None:
        """Hold the model's settings to types, limits and stages, and load the item columns that they name."""
        user = self.external_config_dict
        defaults = recbole_properties("model", f"{model}.yaml")
        recbole_models.check_types(defaults, {**self.internal_config_dict, **user})
        recbole_models.check_stage(model, self.internal_config_dict, user)
        recbole_models.load_item_columns(self.internal_config_dict, user)

    def _load_named_fields(self, sequential: bool) -> None:
        """Load what the user calls users, items and times, and pre-split histories: of a data set that it does not know
        RecBole loads user_id and item_id only."""
        columns = self.internal_config_dict["load_col"].get("inter")
        settings = {**self.internal_config_dict, **self.external_config_dict}
        names = [settings[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")]
        if sequential and settings.get("benchmark_filename") is not None:
            names.append(f"{settings['ITEM_ID_FIELD']}{settings['LIST_SUFFIX']}")
        for name in names:
            if isinstance(columns, list) and name not in columns:
                columns.append(name)

    def _samples_negatives(self, model_class: Any) -> bool:
        """Whether RecBole's default of one uniform negative a row stands: models that learn from pairs or labels."""
        if model_class.type != ModelType.SEQUENTIAL:
            return True
        loss_type = self.external_config_dict.get("loss_type", self.internal_config_dict.get("loss_type"))
        pairs = getattr(model_class, "input_type", None) == InputType.PAIRWISE or loss_type == "BPR"
        return pairs or model_class.__name__ in _LABELLED

    def _derive_repeatable(self, model_class: Any) -> None:
        """RecBole's ``repeatable``: items of the history stay in the ranking. Here it follows from ``mask_history``."""
        mask_history = self.external_config_dict.get("mask_history", self.internal_config_dict["mask_history"])
        # Sequential models insist on repeatable; their evaluation loader says which items to mask.
        self.internal_config_dict["repeatable"] = model_class.type == ModelType.SEQUENTIAL or not mask_history

    def _check_keys(self, model_class: Any) -> None:
        known = {*self.internal_config_dict, *_UNLISTED.get(self.model, ()), "model", "dataset"}
        known.update(key for keys in self.parameters.values() for key in keys)
        for key, value in self.external_config_dict.items():
            if new_name := roles.new_name(key):
                raise UserError(f"{key}={value!r}: is called {new_name} now.")
            row = RUN_ROWS.get(key, Row("any"))
            reason = TABLE.get(key, row).derived
            if not reason and value != self.internal_config_dict.get(key):
                reason = row.refused or self._why_unread(row, model_class)
            if reason:
                raise UserError(f"{key}={value!r}: cannot be set; {reason}.")
            if key not in known and not row.refused:
                raise UserError(f"unknown setting {key!r}.{did_you_mean(key, known)}")
            for part in value if row.keys and isinstance(value, dict) else ():
                if part not in row.keys:
                    raise UserError(f"{key}: unknown key {part!r}. Allowed: {', '.join(row.keys)}.")
        if self._ours and self.external_config_dict.get("train_neg_sample_args") is not None:
            value = self.external_config_dict["train_neg_sample_args"]
            raise UserError(
                f"train_neg_sample_args={value}: {self.model} draws no negative rows, they would be trained on as if "
                "they were real. Only ~ (none) is allowed."
            )

    def _why_unread(self, row: Row, model_class: Any) -> str:
        """Why this model would ignore a setting that it knows; empty if it does not."""
        if row.part is Part.KNOWLEDGE and model_class.type != ModelType.KNOWLEDGE:
            return "only models of knowledge graphs read it"
        unread = row.read_by and self.model not in row.read_by
        return f"only {' and '.join(row.read_by)} read it" if unread else ""

    def _check_values(self) -> None:
        """The values of the settings that every run has; a model checks its own."""
        for key, row in RUN_ROWS.items():
            if row.settable:
                row.read(key, self[key])

    def _init_device(self) -> None:
        if not self.final_config_dict["use_gpu"]:
            self.final_config_dict["gpu_id"] = ""  # the only key RecBole chooses the device by
        super()._init_device()
        wanted = self.external_config_dict.get("gpu_id")
        if self.final_config_dict["use_gpu"] and wanted not in (None, "") and self["device"].type == "cpu":
            raise UserError(f"gpu_id={wanted!r}: torch sees no such GPU. use_gpu=False takes the CPU.")

    def _set_default_parameters(self) -> None:
        """Complete a partial ``eval_args``, which RecBole would fill up with a random split, and check the lists."""
        given = self.external_config_dict.get("eval_args")
        if isinstance(given, dict):
            self.final_config_dict["eval_args"] = {**self.internal_config_dict["eval_args"], **given}
        topk, metrics = self.final_config_dict["topk"], self.final_config_dict["metrics"]
        cuts = topk if isinstance(topk, list) else [topk]
        if not cuts or any(type(k) is not int or k < 1 for k in cuts):
            raise RUN_ROWS["topk"].error("topk", topk)
        names = metrics if isinstance(metrics, list) else [metrics]
        if not names or any(type(name) is not str for name in names):
            raise RUN_ROWS["metrics"].error("metrics", metrics)
        self._check_clipping(self.final_config_dict["clip_grad_norm"])
        self.final_config_dict["state"] = str(self.final_config_dict["state"]).upper()
        self.final_config_dict["valid_metric"] = str(self.final_config_dict["valid_metric"])
        check_protocol(self.final_config_dict, self.final_config_dict["MODEL_TYPE"] == ModelType.SEQUENTIAL)
        if self.final_config_dict.get("benchmark_filename") is not None:
            check_pre_split(self.external_config_dict, self.internal_config_dict)
        super()._set_default_parameters()

    @staticmethod
    def _check_clipping(clip: Any) -> None:
        right = isinstance(clip, dict) and "max_norm" in clip and clip.keys() <= {"max_norm", "norm_type"}
        if clip is None or (right and all(type(value) in (int, float) and value > 0 for value in clip.values())):
            return
        raise RUN_ROWS["clip_grad_norm"].error("clip_grad_norm", clip)

    def _check_re_ranking(self) -> None:
        if self["eval_type"] != EvaluatorType.RANKING:
            raise UserError(f"mmr_weight={self['mmr_weight']}: metrics={self['metrics']} are not of lists to re-rank.")
        candidates, longest = self["mmr_candidates"], max(self["topk"])
        if candidates < longest:
            raise UserError(f"mmr_candidates={candidates}: must be {longest} or more, the largest of topk.")

    def _check_valid_metric(self) -> None:
        computed = []
        for metric in self["metrics"]:
            at_k = not _LIST_RESOURCES.isdisjoint(metric_information[metric.lower()])
            computed += [f"{metric}@{k}" for k in self["topk"]] if at_k else [metric]
        if self["valid_metric"].lower() not in (name.lower() for name in computed):
            raise UserError(
                f"valid_metric={self['valid_metric']!r} is not computed. With these metrics and topk it can be one of "
                f"{', '.join(computed)}."
            )
