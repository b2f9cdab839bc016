"""The tests that every model must pass, for this package and for other packages. They need pytest.

A package with a model uses them in a file of its own tests::

    from recbole_diffusion.testing import Case, contract

    TestMyModel = contract(Case("mypackage.model:MyModel", small={"embedding_size": 16, "num_layers": 1}))
"""

from __future__ import annotations

import pytest

from recbole_diffusion.testing.case import Case

__all__ = ["Case", "contract"]

pytest.register_assert_rewrite(f"{__name__}.behaviour", f"{__name__}.learning")


def contract(*cases: Case) -> type:
    """A class of tests for these models. Assign it to a name that begins with ``Test``, so that pytest collects it.

    Tests that take longer are marked ``slow``.
    """
    # Imported here, because pytest rewrites assertions only in modules that are imported after they are registered.
    from recbole_diffusion.testing.behaviour import Behaviour
    from recbole_diffusion.testing.learning import Learning

    tests = type("Contract", (Behaviour, Learning), {})
    return pytest.mark.parametrize("case", cases, ids=[case.id for case in cases])(tests)
