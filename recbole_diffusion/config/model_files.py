"""Where the YAML files of a model are, and the name of a model in settings and checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from recbole_diffusion.config.reading import EXTENDS, extended, load_settings, properties_file
from recbole_diffusion.config.settings import Settings, UserError
from recbole_diffusion.names import PACKAGE

PRESETS = ("default", "paper")
_RECBOLE = "recbole"


def package_of(model_class: type) -> str:
    """The top-level package that a class comes from: ``recbole_diffusion``, ``recbole`` or another."""
    return model_class.__module__.partition(".")[0]


def is_recboles(model_class: type) -> bool:
    """Whether a model is RecBole's own."""
    return package_of(model_class) == _RECBOLE


def model_name(model_class: type) -> str:
    """The name of a model in settings and checkpoints.

    It is the name of the class for our models and RecBole's (``DreamRec``). For other packages it is always
    ``package.module:Class``, because two packages may have a class with the same name.
    """
    name = model_class.__name__
    return name if package_of(model_class) in (PACKAGE, _RECBOLE) else f"{model_class.__module__}:{name}"


class ModelFiles(NamedTuple):
    """The YAML files of a model: ``folder/KIND/name``, where KIND is ``model``, ``paper`` or ``space``."""

    folder: Path
    name: str

    def path(self, kind: str) -> Path | None:
        """The file of a kind, or None if there is no such file."""
        path = self.folder / kind / self.name
        return path if path.is_file() else None

    def read(self, kind: str) -> Settings:
        """The settings in the file of a kind, and for ``model`` also those of the file that it extends.

        Empty if there is no file.

        Raises:
            UserError: a file that cannot extend another one does.
        """
        path = self.path(kind)
        settings = load_settings([path]) if path else {}
        if kind != "model" and EXTENDS in settings:
            raise UserError(f"{path}: {EXTENDS}: only the file in model/ extends another.")
        return extended(settings, str(path))

    @property
    def presets(self) -> tuple[str, ...]:
        """The presets that the model has."""
        return PRESETS if self.path("paper") else PRESETS[:1]

    def settings(self, model: str, preset: str) -> Settings:
        """The defaults of ``model`` with a preset.

        Raises:
            UserError: the model has no such preset.
        """
        if preset not in self.presets:
            raise UserError(f"preset={preset}: {model} has no such preset. Allowed: {', '.join(self.presets)}.")
        return {**self.read("model"), **(self.read("paper") if preset == "paper" else {})}


def shipped_files(model: str, recboles: bool) -> ModelFiles:
    """The YAML files in this package's ``properties`` for one of our models, or for one of RecBole's."""
    overall = properties_file("overall.yaml")
    assert overall is not None, "this package is installed without its properties"
    return ModelFiles(overall.parent, f"{_RECBOLE}.{model}.yaml" if recboles else f"{model}.yaml")


def model_files(model_class: type) -> ModelFiles:
    """The YAML files of a model.

    For our models and RecBole's they are in this package's ``properties``; those for RecBole's models are called
    ``recbole.NAME.yaml``. A model of another package has them in a folder ``properties`` next to its module, or in one
    of the packages that contain the module.

    Raises:
        UserError: a model of another package has no ``properties/model/CLASS.yaml``.
    """
    file = f"{model_class.__name__}.yaml"
    if package_of(model_class) in (PACKAGE, _RECBOLE):
        return shipped_files(model_class.__name__, is_recboles(model_class))
    tried = [folder / "properties" for folder in _folders_around(model_class.__module__)]
    for folder in tried:
        if (folder / "model" / file).is_file():
            return ModelFiles(folder, file)
    missing = tried[0] / "model" / file if tried else f"properties/model/{file}: its module has no file"
    raise UserError(f"model={model_name(model_class)}: its settings are missing: no {missing}.")


def _folders_around(module: str) -> Iterator[Path]:
    """The folder of an imported module, then the folders of the packages that contain it, the innermost first."""
    file = getattr(sys.modules[module], "__file__", None)
    if file is not None:
        yield Path(file).parent
    while module := module.rpartition(".")[0]:
        yield from map(Path, sys.modules[module].__path__)


def class_path(model_class: type) -> str:
    """Module and name of a class, e.g. ``recbole_diffusion.model.dreamrec.DreamRec``."""
    return f"{model_class.__module__}.{model_class.__qualname__}"
