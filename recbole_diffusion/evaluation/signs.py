"""Looks for signs of collapse in a trained model."""

from __future__ import annotations

from typing import Any

import pandas as pd

from recbole_diffusion.evaluation.collapse import accuracy_warning, coverage_warning, margin


def signs_of_collapse(name: str, trainer: Any, loaders: Any) -> list[str]:
    """Warnings for the trained model ``name``, as texts (:mod:`recbole_diffusion.evaluation.collapse`).

    They come from the validation of the epoch that was kept. The list is empty if there are no signs of collapse, for
    Pop, and if the run is not compared with Pop.
    """
    reference, found = trainer.reference, trainer.saved_validation
    if reference is None or found is None:
        return []
    texts: list[str | None] = []
    if found.accuracy is not None:
        of_pop = reference.valid
        model, pop = (pd.Series(v, of_pop.users) for v in (found.values, of_pop.values[found.accuracy]))
        texts.append(accuracy_warning(name, found.accuracy, model.mean(), pop.mean(), margin(model, pop)))
    dataset = loaders.valid.dataset
    taken = len(dataset.inter_feat[dataset.iid_field].unique())
    length, items = trainer.eval_collector.list_length, dataset.item_num - 1
    texts.append(coverage_warning(name, length, found.listed, taken, items))
    return [text for text in texts if text is not None]
