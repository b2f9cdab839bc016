"""Models of other packages: by a name that the package registers, or by ``package.module:Class``.

To register a model, a package has an entry point ``NAME = package.module:Class`` in the group
``recbole_diffusion.models``. Importing this module loads neither torch nor a model.
"""

from __future__ import annotations

import importlib
import re
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import NamedTuple

from recbole_diffusion.config.settings import UserError, did_you_mean

GROUP = "recbole_diffusion.models"
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class Registered(NamedTuple):
    """An entry point. ``distribution`` is the installed package that has it, ``target`` is ``package.module:Class``."""

    name: str
    target: str
    distribution: str


def registered() -> list[Registered]:
    """The models that the installed packages register, sorted. None is imported."""
    return sorted(
        {
            Registered(point.name, point.value, point.dist.name if point.dist else "")
            for point in entry_points(group=GROUP)
        }
    )


def names() -> list[str]:
    """The names that the installed packages register."""
    return [claim.name for claim in registered()]


def is_module(name: str) -> bool:
    """Whether there is a module ``name``. It is not imported, but the packages that contain it are."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a package that should contain it is missing, or it cannot be a module's name
        return False


def load(target: str, where: str) -> object:
    """The object that ``target`` names, normally a class.

    Args:
        target: ``package.module:Class``, from an entry point or ``--model``.
        where: the beginning of an error message, which says where ``target`` comes from.

    Raises:
        UserError: ``target`` is malformed, there is no such module or class, or the module needs a missing package.
    """
    if not _TARGET.fullmatch(target):
        raise UserError(f"{where}: {target!r} must be package.module:Class, such as mypackage.model:MyModel.")
    module, _, name = target.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UserError(f"{where}: module {module!r} needs {error.name!r}, which is not installed.") from error
        raise UserError(
            f"{where}: there is no module {error.name!r}. Install its package, or put its folder into PYTHONPATH."
        ) from error
    except ImportError as error:
        raise UserError(f"{where}: module {module!r} cannot be imported ({' '.join(str(error).split())}).") from error
    if not hasattr(found, name):
        raise UserError(f"{where}: module {module!r} has no class {name!r}.{did_you_mean(name, vars(found))}")
    return getattr(found, name)
