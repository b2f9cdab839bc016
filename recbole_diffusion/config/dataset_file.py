"""The user's YAML file beside a data set: ``DATA_PATH/NAME/NAME.yaml``, with settings that describe the data."""

from __future__ import annotations

import os
from pathlib import Path

from recbole_diffusion.config.reading import load_settings
from recbole_diffusion.config.row import Part
from recbole_diffusion.config.settings import Settings, UserError, did_you_mean
from recbole_diffusion.config.table import TABLE

_FOLDER = "dataset"  # RecBole's default data_path
_TEXTS = ("title_field", "category_field")


def beside_the_data(dataset: str, settings: Settings) -> Settings:
    """What ``DATA_PATH/NAME/NAME.yaml`` says; empty if there is no such file. The user's other settings win over it.

    Args:
        dataset: the name of the data set.
        settings: the user's, of which ``data_path`` counts.

    Raises:
        UserError: it has a setting that does not describe data, or a value that is not allowed.
    """
    path = Path(settings.get("data_path") or _FOLDER, dataset, f"{dataset}.yaml")
    if not os.path.isfile(path):  # Path.is_file raises an error for some names
        return {}
    found = load_settings([path])
    allowed = [key for key, row in TABLE.items() if row.settable and (row.part is Part.DATA or key in _TEXTS)]
    for key, value in found.items():
        if key not in allowed:
            raise UserError(
                f"{path}: {key}={value!r}: only settings that describe data can be here, such as title_field "
                f"or USER_ID_FIELD. Give others by --{key}= or --config_files.{did_you_mean(key, allowed)}"
            )
        if TABLE[key].kind != "any":
            try:
                TABLE[key].read(key, value)
            except UserError as error:
                raise UserError(f"{path}: {error}") from error
    return found
