"""Names of our models and of RecBole's. Importing this module loads neither torch nor RecBole."""

from __future__ import annotations

import pkgutil
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

PACKAGE = __name__.partition(".")[0]
# A new model needs one line here, one file in model/ and one YAML file in properties/model/.
OURS = MappingProxyType(
    {
        "DiffRec": "recbole_diffusion.model.diffrec",
        "DreamRec": "recbole_diffusion.model.dreamrec",
        "DiffDiv": "recbole_diffusion.model.diffdiv",
        "ADIGRec": "recbole_diffusion.model.adigrec",
        "DiffuRec": "recbole_diffusion.model.diffurec",
        "WindowSASRec": "recbole_diffusion.model.windowsasrec",
        "eSASRec": "recbole_diffusion.model.esasrec",
        "BSARec": "recbole_diffusion.model.bsarec",
        "HSTU": "recbole_diffusion.model.hstu",
    }
)
# Field of a batch, if the model's class has ``reads_ages = True``: seconds from each event of the history to its last
# one, [batch, length].
AGE_LIST = "age_list"
RECBOLE_PREFIX = "recbole."
_RECBOLE_KINDS = (
    "sequential_recommender",
    "general_recommender",
    "context_aware_recommender",
    "knowledge_aware_recommender",
)


class RecBoleMissing(ImportError):
    """RecBole is not installed; the message says how to install it."""

    def __init__(self) -> None:
        super().__init__(
            "recbole_diffusion needs RecBole 1.2.1, which is not installed: pip install --no-deps recbole==1.2.1",
            name="recbole",
        )


def recbole_folder() -> Path:
    """The folder of RecBole's package. RecBole is not imported.

    Raises:
        RecBoleMissing: RecBole is not installed.
    """
    spec = find_spec("recbole")
    if spec is None or spec.origin is None:
        raise RecBoleMissing
    return Path(spec.origin).parent


def recbole_models(*kinds: str) -> dict[str, str]:
    """``name -> module`` of RecBole's models of these kinds (default: all kinds except tree models). None is imported.

    Raises:
        RecBoleMissing: RecBole is not installed.
    """
    folder = recbole_folder()
    names = [file.stem for file in (folder / "properties" / "model").glob("*.yaml")]
    by_lower = {name.lower(): name for name in names}
    found = {}
    for kind in kinds or _RECBOLE_KINDS:
        for module in pkgutil.iter_modules([str(folder / "model" / kind)]):
            if module.name in by_lower:
                found[by_lower[module.name]] = f"recbole.model.{kind}.{module.name}"
    return dict(sorted(found.items()))
