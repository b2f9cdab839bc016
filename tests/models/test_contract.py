"""What every model of this package must do; ``cases.py`` lists them."""

from __future__ import annotations

from cases import CASES

from recbole_diffusion.testing import contract

TestContract = contract(*CASES)
