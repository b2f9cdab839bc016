"""From a checkpoint back to the settings of its run, and to its model without the data set's files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from recbole.data.interaction import Interaction
from scipy.sparse import coo_matrix

from recbole_diffusion import registry
from recbole_diffusion.config import outside
from recbole_diffusion.config.model_files import shipped_files
from recbole_diffusion.config.refusals import setting_up
from recbole_diffusion.config.roles import EVALUATION, GENERATION, NO_RESULT, PATHS
from recbole_diffusion.config.settings import Settings, UserError, did_you_mean
from recbole_diffusion.config.splitting import OF_ONE_SPLIT
from recbole_diffusion.config.strict import Config
from recbole_diffusion.config.table import TABLE
from recbole_diffusion.data.known import Known
from recbole_diffusion.names import OURS, RECBOLE_PREFIX, recbole_models
from recbole_diffusion.quick_start import Request, request
from recbole_diffusion.storage import checkpoint
from recbole_diffusion.storage.checkpoint import Vocabulary, plain
from recbole_diffusion.storage.parts import check_model_parts, understood

_RERANKING = ("mmr_weight", "mmr_candidates")


class Loaded(NamedTuple):
    """A trained model in evaluation mode, and what is needed to use it."""

    model: Any
    config: Config
    resolved: registry.Resolved
    vocabulary: Vocabulary
    known: Known
    state: dict[str, Any]  # the checkpoint
    path: str


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of this package.

    Raises:
        UserError: it is none, or it is one of RecBole, which does not say of which items and users it is.
    """
    state = checkpoint.load(path)
    check_model_parts(state, str(path))
    return state


def request_of(
    state: Mapping[str, Any], path: str, changes: Settings, model: str | None = None, evaluates: bool = False
) -> Request:
    """The model, data set and settings of the run that wrote a checkpoint, with ``changes``.

    Args:
        state: from :func:`read_checkpoint`.
        path: names the file in errors.
        changes: settings that can change after training: those of generation, of re-ranking, and of speed and place.
        model: ``package.module:Class``, which must be given for a model of another package that is not registered.

        evaluates: whether the settings of evaluation can change too.

    Raises:
        UserError: a setting cannot be changed, or the model does not exist here.
    """
    stored = dict(state["config"])
    for key in changes:
        if not (key in GENERATION or key in NO_RESULT or key in _RERANKING or (evaluates and key in EVALUATION)):
            near = did_you_mean(key, [*GENERATION, *_RERANKING, *(EVALUATION if evaluates else ())])
            known = "a trained model depends on it" if key in TABLE else f"there is no such setting.{near}"
            known = "it is for evaluation" if key in EVALUATION else known
            known += "; the length of a list is k" if key == "topk" else ""
            raise UserError(f"{key}={changes[key]!r}: cannot be set here; {known.removesuffix('.')}.")
    dataset, preset = stored.get("dataset"), stored.get("preset", "default")
    if not isinstance(dataset, str) or not isinstance(preset, str):
        raise UserError(f"{path}: is no checkpoint of this version: it names no data set.")
    name = model or _model_of(stored, path)
    # What a YAML file beside the data said is in the checkpoint; the file may be another one now.
    bare = request(name, dataset, {}, preset)._replace(beside_data=False).config()
    defaults = plain(dict(bare.final_config_dict))
    given = {
        key: value
        for key, value in stored.items()
        if (key in TABLE or key in bare.internal_config_dict)
        and value != defaults.get(key)
        and (key not in TABLE or TABLE[key].settable)
        and key not in NO_RESULT
    }
    if "eval_args" in given and stored.get("split") is not None:  # only the modes are the user's own
        given["eval_args"] = {"mode": stored["eval_args"]["mode"]}
    for key, split in OF_ONE_SPLIT.items():
        if stored.get("split") != split:
            given.pop(key, None)
    for key in PATHS:
        given.pop(key, None)
    if "data_path" not in changes and isinstance(stored.get("data_path"), str):
        changes = {"data_path": str(Path(stored["data_path"]).parent), **changes}
    return request(name, dataset, {**given, **changes}, preset)._replace(beside_data=False)


def _model_of(stored: Mapping[str, Any], path: str) -> str:
    """The model of a checkpoint, as a name for a command.

    Raises:
        UserError: it is in a package that is not registered. A file must not choose what is imported.
    """
    name = stored.get("model")
    if not isinstance(name, str):
        raise UserError(f"{path}: is no checkpoint of this version: it names no model.")
    if ":" in name and name not in {claim.target for claim in outside.registered()}:
        raise UserError(f"{path}: its model {name!r} is in a package that is not registered. Give it: --model={name}.")
    if name in OURS and name in recbole_models():
        own = shipped_files(name, recboles=False).settings(name, "default")
        return name if own.keys() <= stored.keys() else RECBOLE_PREFIX + name
    return name


def load_model(state: dict[str, Any], path: str | Path, changes: Settings, model: str | None = None) -> Loaded:
    """The model of a checkpoint. The files of its data set are not read.

    Args:
        state: from :func:`read_checkpoint`.
        path: names the file in errors.
        changes, model: as for :func:`request_of`.

    Raises:
        UserError: it has no interactions, or its model needs more than the checkpoint has.
    """
    where = str(path)
    wanted = request_of(state, where, changes, model)
    config, vocabulary = wanted.config(), Vocabulary(state["items"], state["users"], state["fields"])
    checkpoint.check(state, where, vocabulary, config.final_config_dict, resume=False)
    known = Known.read(state, where)
    with setting_up(f"{config['model']} of {where}", wanted.resolved.ours):
        try:
            made = wanted.resolved.model_class(config, KnownDataset(config, vocabulary, known)).to(config["device"])
        except AttributeError as error:
            raise UserError(
                f"{where}: {config['model']} needs more of its data set than a checkpoint has ({error})."
            ) from error
        with understood(where):
            checkpoint.restore(made, state, config["device"])
    return Loaded(made.eval(), config, wanted.resolved, vocabulary, known, state, where)


class KnownDataset:
    """What a model reads of its data set when it is built: sizes, tokens and interactions, as RecBole names them."""

    def __init__(self, config: Config, vocabulary: Vocabulary, known: Known) -> None:
        self.config, self.dataset_name = config, config["dataset"]
        self.uid_field, self.iid_field = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
        self.time_field = config["TIME_FIELD"]
        self.field2id_token = {self.uid_field: vocabulary.users, self.iid_field: vocabulary.items}
        self.user_num, self.item_num = len(vocabulary.users), len(vocabulary.items)
        users = torch.repeat_interleave(torch.arange(self.user_num), known.starts.diff())
        self.inter_feat = Interaction({self.uid_field: users, self.iid_field: known.items.long()})
        self.inter_num = len(users)

    def num(self, field: str) -> int:
        """How many values a field has, with the padding."""
        if field not in self.field2id_token:
            raise AttributeError(f"column {field!r}")
        return len(self.field2id_token[field])

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Sparse users-by-items matrix of ones."""
        if value_field is not None:
            raise AttributeError(f"column {value_field!r}")
        users, items = (self.inter_feat[field].numpy() for field in (self.uid_field, self.iid_field))
        matrix = coo_matrix((torch.ones(len(users)).numpy(), (users, items)), (self.user_num, self.item_num))
        return matrix.asformat(form)
