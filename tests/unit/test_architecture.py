"""The modules of the package: who may import whom, none is too long, and whoever uses RecBole repairs it first."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "recbole_diffusion"
MODULES = sorted(PACKAGE.rglob("*.py"))
# Importing one of these runs ``compat.apply``.
MENDING = ("compat", "config.strict", "data", "evaluation", "model", "testing.fixtures")
# Modules of RecBole that need no repair, and load no module that does.
SOUND = ("recbole.utils", "recbole.evaluator.register")


def test_arrows_point_one_way(capsys: pytest.CaptureFixture[str]) -> None:
    """The contracts of setup.cfg."""
    code = lint_imports(config_filename=str(ROOT / "setup.cfg"), cache_dir=None)
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_has_more_than_300_lines(module: Path) -> None:
    assert len(module.read_text(encoding="utf-8").splitlines()) <= 300


def _imports(module: Path) -> set[str]:
    """The imports at the top of a module, as ``package.module`` and ``package.module.name``."""
    found = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_imports_recbole_mends_it(module: Path) -> None:
    imports = _imports(module)
    if not any(name.split(".")[0] == "recbole" and not name.startswith(SOUND) for name in imports):
        return
    own = ".".join(module.relative_to(PACKAGE).with_suffix("").parts)
    mended = tuple(f"recbole_diffusion.{name}" for name in MENDING)
    assert own.startswith(MENDING) or any(name.startswith(mended) for name in imports), own


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_tests_that_ship_need_pytest(module: Path) -> None:
    nodes = ast.walk(ast.parse(module.read_text(encoding="utf-8")))
    imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not any("pytest" in line for line in imports) or module.relative_to(PACKAGE).parts[0] == "testing"
