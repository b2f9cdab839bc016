"""RecBole's ``Config``, made strict.

RecBole's ``Config`` returns None for a missing key, accepts unknown keys silently, evaluates strings as Python and
reads ``sys.argv``. Here every key must be known, values are YAML, and only what is passed in is read.
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
from recbole_diffusion.config.dataset_file import beside_the_data
from recbole_diffusion.config.launch import own_gpu
from recbole_diffusion.config.model_files import model_files, model_name, shipped_files
from recbole_diffusion.config.protocol import check_pre_split, check_protocol, is_sampled, phase_modes
from recbole_diffusion.config.reading import YamlLoader, read_properties, recbole_properties
from recbole_diffusion.config.row import Part, Row
from recbole_diffusion.config.rows_run import RUN_ROWS
from recbole_diffusion.config.settings import Settings, UserError, check_finite, check_name, did_you_mean, shown
from recbole_diffusion.config.splitting import choose_split
from recbole_diffusion.config.table import TABLE
from recbole_diffusion.names import OURS

compat.apply()

# Settings that a RecBole model reads, although none of RecBole's YAML files lists them.
_UNLISTED = {"HRM": ("reg_weight",)}
# RecBole's sequential models that learn from the label of each row.
_LABELLED = ("DIEN", "DIN")
# A metric that needs one of these is a metric of recommended lists: it has one value for each k of topk.
_LIST_RESOURCES = {"rec.items", "rec.topk"}


class Config(RecBoleConfig):
    """RecBole's ``Config`` for one model and data set, from settings that were already read.

    Args:
        model_class: the recommender: ours, of another package, or RecBole's.
        dataset: the name of the data set.
        settings: what the user set (:func:`load_settings`). It wins over YAML files, also over that beside the data.
        ours: whether the model is not one of RecBole's. If so, RecBole's YAML file of the same name is not read.
        beside_data: whether the YAML file beside the data set is read.
        preset: ``default``, or ``paper`` for ``properties/paper/<Model>.yaml`` on top of the model's YAML file.

    Raises:
        UserError: a key is unknown, a value is not allowed, or ``valid_metric`` is not computed.
    """

    def __init__(
        self, model_class: Any, dataset: str, settings: Settings, ours: bool, preset: str = "default",
        beside_data: bool = True,
    ) -> None:  # fmt: skip
        check_name("dataset", dataset)
        self._ours = ours
        self._preset = preset
        folders = ("data_path", "checkpoint_dir")
        settings = {key: value for key, value in settings.items() if key not in folders or value is not None}
        check_finite(settings)
        settings = {
            key: TABLE[key].read(key, value) if key in roles.PATHS else value for key, value in settings.items()
        }
        settings = {**(beside_the_data(dataset, settings) if beside_data else {}), **settings}
        try:
            super().__init__(model=model_class, dataset=dataset, config_dict=settings)
        except UserError:
            raise
        except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError) as error:
            raise UserError(f"settings of {model_class.__name__} on {dataset}: {error}") from error
        self.final_config_dict["preset"] = preset
        own = Path(settings.get("data_path") or self.internal_config_dict["data_path"], dataset)
        try:
            files = list(own.iterdir()) if own.is_dir() else []
        except OSError as error:
            where = shown(settings.get("data_path"))
            raise UserError(f"data_path={where}: cannot be read ({error.strerror}).") from error
        # For ml-100k RecBole uses its own files, and ignores data_path.
        if any(file.name.startswith(f"{dataset}.") and file.suffix == ".inter" for file in files):
            self.final_config_dict["data_path"] = str(own)
        self._check_values()
        if self["precision"] == "bf16" and model_class.type != ModelType.SEQUENTIAL:
            raise UserError(f"precision=bf16: only sequential models can use it; {model_class.__name__} is not one.")
        if self["log_wandb"] and find_spec("wandb") is None:
            raise UserError("log_wandb=True: needs the package wandb. Install it (pip install wandb), or set False.")
        if "wandb_project" in settings and not self["log_wandb"]:
            raise UserError(f"wandb_project={self['wandb_project']!r}: has an effect only with log_wandb=True.")
        if "candidate_seed" in settings and not any(is_sampled(mode) for mode in phase_modes(self)):
            raise UserError(
                f"candidate_seed={self['candidate_seed']}: has an effect only with eval_args mode uniN or popN."
            )
        if "variance" in settings and self["sampler"] not in (None, "ddpm"):
            raise UserError(
                f"variance={self['variance']!r}: has an effect only with sampler=ddpm, not {self['sampler']}."
            )
        if self["mmr_weight"] is not None:
            self._check_re_ranking()
        self._check_valid_metric()

    def compatibility_settings(self) -> None:
        compat.numpy_aliases()

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return YamlLoader

    def _convert_config_dict(self, config_dict: Settings) -> Settings:
        return config_dict  # the values have their types already; RecBole would eval() strings

    def _load_cmd_line(self) -> Settings:
        return {}  # a library must not read the arguments of the process

    def _init_parameters_category(self) -> None:
        # Copies, because RecBole appends keys of each data set to these module-level lists.
        self.parameters = {
            "General": list(general_arguments),
            "Training": list(training_arguments),
            "Evaluation": list(evaluation_arguments),
            "Dataset": list(dataset_arguments),
        }

    def _get_model_and_dataset(self, model: Any, dataset: str) -> tuple[str, Any, str]:
        return model_name(model), model, dataset

    def _load_internal_config_dict(self, model: str, model_class: Any, dataset: str) -> None:
        # With this name RecBole finds no YAML file, so that our DiffRec does not read RecBole's DiffRec.yaml.
        super()._load_internal_config_dict(f"recbole_diffusion.{model}" if self._ours else model, model_class, dataset)
        recbole_eval_args = self.internal_config_dict.get("eval_args")
        negatives = self.internal_config_dict["train_neg_sample_args"]
        self.internal_config_dict.update(read_properties("overall.yaml"))
        self.internal_config_dict.update(read_properties("dataset", f"{dataset}.yaml"))
        if model_class.type not in (ModelType.SEQUENTIAL, ModelType.GENERAL, ModelType.TRADITIONAL):
            self.internal_config_dict["eval_args"] = recbole_eval_args
        self._load_named_fields(model_class.type == ModelType.SEQUENTIAL)
        own = model_files(model_class).settings(model, self._preset)
        for key in own:
            if self._ours and key not in TABLE:
                raise UserError(f"{key} of {model}'s YAML has no role: declare it in the model's settings.")
        self._own_keys = tuple(own)
        self.internal_config_dict.update(own)
        if "train_neg_sample_args" not in own and self._samples_negatives(model_class):
            self.internal_config_dict["train_neg_sample_args"] = negatives
        self._check_keys(model_class)
        self._derive_repeatable(model_class)
        if not self._ours:
            self._check_model_of_recbole(model)

    def _check_model_of_recbole(self, model: str) -> None:
        """Check types, limits and stages of a RecBole model's settings, and load the item columns that they name."""
        user = self.external_config_dict
        defaults = recbole_properties("model", f"{model}.yaml")
        values = {**self.internal_config_dict, **user}
        recbole_models.check_types(defaults, values)
        recbole_models.check_stage(model, self.internal_config_dict, user)
        recbole_models.load_item_columns(self.internal_config_dict, user)

    def _load_named_fields(self, sequential: bool) -> None:
        """Load the columns that the user named for users, items, times and histories that are split already.

        Of a data set that RecBole does not know, it loads only user_id and item_id.
        """
        columns = self.internal_config_dict["load_col"].get("inter")
        settings = {**self.internal_config_dict, **self.external_config_dict}
        names = [settings[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")]
        if sequential and settings.get("benchmark_filename") is not None:
            names.append(f"{settings['ITEM_ID_FIELD']}{settings['LIST_SUFFIX']}")
        for name in names:
            if isinstance(columns, list) and name not in columns:
                columns.append(name)

    def _samples_negatives(self, model_class: Any) -> bool:
        """Whether the model learns from pairs or labels, so that RecBole's default of one negative per row stays."""
        if self._ours:
            return False
        if model_class.type != ModelType.SEQUENTIAL:
            return True
        return self._learns_from_pairs(model_class) or model_class.__name__ in _LABELLED

    def _learns_from_pairs(self, model_class: Any) -> bool:
        loss_type = self.external_config_dict.get("loss_type", self.internal_config_dict.get("loss_type"))
        return getattr(model_class, "input_type", None) == InputType.PAIRWISE or loss_type == "BPR"

    def _derive_repeatable(self, model_class: Any) -> None:
        """Set RecBole's ``repeatable`` (items of the history stay in the ranking) from ``mask_history``."""
        mask_history = self.external_config_dict.get("mask_history", self.internal_config_dict["mask_history"])
        # RecBole requires repeatable=True for sequential models; our evaluation loader says which items to mask.
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
                readers = [name for name in OURS if key in shipped_files(name, recboles=False).read("model")]
                if readers:
                    raise UserError(f"{key}={value!r}: {self.model} does not read it; {', '.join(readers)} can.")
                raise UserError(f"unknown setting {key!r}.{did_you_mean(key, known)}")
            for part in value if row.keys and isinstance(value, dict) else ():
                if part not in row.keys:
                    raise UserError(f"{key}: unknown key {part!r}. Allowed: {', '.join(row.keys)}.")
            # RecBole would fail on another type before _check_values.
            if row.settable and (row.kind == "any" or (row.kind == "str" and row.choices is None)):
                row.read(key, value)
        if "train_neg_sample_args" in self.external_config_dict:
            self._check_negatives(self.external_config_dict["train_neg_sample_args"], model_class)

    def _check_negatives(self, value: Any, model_class: Any) -> None:
        if self._ours and value is not None:
            raise UserError(
                f"train_neg_sample_args={value}: {self.model} would train on sampled negatives as if they were real. "
                "Only ~ (none) is allowed."
            )
        none = value is None or value.get("distribution", "uniform") in ("none", None)
        if none and not self._ours and self._learns_from_pairs(model_class):
            raise UserError(
                f"train_neg_sample_args={value}: {self.model} learns from pairs of an item and a sampled negative. "
                "Set e.g. {distribution: uniform, sample_num: 1}."
            )

    def _why_unread(self, row: Row, model_class: Any) -> str:
        """Why this model would ignore a known setting; empty if it reads the setting."""
        if row.part is Part.KNOWLEDGE and model_class.type != ModelType.KNOWLEDGE:
            return "only models of knowledge graphs read it"
        unread = row.read_by and self.model not in row.read_by
        return f"only {' and '.join(row.read_by)} read it" if unread else ""

    def _check_values(self) -> None:
        """Check the values of the settings that every run has. A model checks its own settings."""
        rows = RUN_ROWS
        if self._ours and not hasattr(self.model_class, "config_class"):
            rows = RUN_ROWS | {key: TABLE[key] for key in self._own_keys}
        for key, row in rows.items():
            if row.settable and row.kind != "any":  # the others were checked as the user gave them; RecBole fills them
                row.read(key, self[key])

    def _init_device(self) -> None:
        settings, wanted = self.final_config_dict, self.external_config_dict.get("gpu_id")
        # RecBole chooses the device only by this key.
        settings["gpu_id"] = own_gpu(wanted, settings["gpu_id"]) if settings["use_gpu"] else ""
        super()._init_device()
        if self.final_config_dict["use_gpu"] and wanted not in (None, "") and self["device"].type == "cpu":
            raise UserError(f"gpu_id={wanted!r}: torch finds no such GPU. Set use_gpu=False to use the CPU.")

    def _set_default_parameters(self) -> None:
        """Complete a partial ``eval_args`` from our defaults (RecBole would split at random), and check the lists."""
        given = self.external_config_dict.get("eval_args")
        if isinstance(given, dict):
            self.final_config_dict["eval_args"] = {**self.internal_config_dict["eval_args"], **given}
        sequential = self.final_config_dict["MODEL_TYPE"] == ModelType.SEQUENTIAL
        choose_split(self.final_config_dict, self.external_config_dict, sequential)
        metrics = self.final_config_dict["metrics"]
        for name in metrics if isinstance(metrics, list) else [metrics]:
            if name.lower() not in metric_information:
                raise UserError(f"metrics: there is no metric {name!r}.{did_you_mean(name, metric_information)}")
        self.final_config_dict["state"] = str(self.final_config_dict["state"]).upper()
        self.final_config_dict["valid_metric"] = str(self.final_config_dict["valid_metric"])
        check_protocol(self.final_config_dict, sequential)
        if self.final_config_dict.get("benchmark_filename") is not None:
            check_pre_split(self.external_config_dict, self.internal_config_dict)
        super()._set_default_parameters()

    def _check_re_ranking(self) -> None:
        if self["eval_type"] != EvaluatorType.RANKING:
            raise UserError(
                f"mmr_weight={self['mmr_weight']}: needs metrics of ranked lists, not metrics={self['metrics']}."
            )
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
