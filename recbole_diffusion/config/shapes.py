"""Which values have the right shape, for settings that are neither a number nor a text: lists, mappings, intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]
_TRANSFORMS = ("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq", "user_defined")
_DISTRIBUTIONS = ("uniform", "popularity", "none", None)
_MOST_NEGATIVES = 10_000  # sampled for one row


def is_text(value: Any) -> bool:
    """A text that is not empty."""
    return isinstance(value, str) and bool(value)


def is_number(value: Any) -> bool:
    """A finite number, and neither True nor False."""
    return type(value) in (int, float) and math.isfinite(value)


def is_whole(value: Any, low: int = 1, high: float = math.inf) -> bool:
    """A whole number from ``low`` to ``high``."""
    return type(value) is int and low <= value <= high


def is_list_of(check: Check) -> Check:
    """A list whose elements pass ``check`` and are all different."""

    def is_list(value: Any) -> bool:
        return isinstance(value, list) and all(map(check, value)) and len(set(value)) == len(value)

    return is_list


def is_one_or_list_of(check: Check) -> Check:
    """One value that passes ``check``, or a list of different ones that is not empty."""
    is_list = is_list_of(check)
    return lambda value: check(value) or (is_list(value) and len(value) > 0)


def is_mapping_of(check: Check) -> Check:
    """A mapping from texts to values that pass ``check``."""
    return lambda value: isinstance(value, dict) and all(is_text(key) and check(item) for key, item in value.items())


is_texts = is_list_of(is_text)


def is_columns_of_files(value: Any) -> bool:
    """``{inter: [user_id, item_id]}``."""
    return is_mapping_of(is_texts)(value)


def is_columns_or_all_of_files(value: Any) -> bool:
    """``{inter: [user_id, item_id], item: '*'}``."""
    return is_mapping_of(lambda columns: columns == "*" or is_texts(columns))(value)


def is_interval(value: Any) -> bool:
    """RecBole's intervals, such as ``[4,inf)`` or ``[1,2];(5,9]``, with ends in order; or a list of two numbers."""
    parts = str(value).split(";") if isinstance(value, str | list) else []
    return bool(parts) and all(map(_is_one_interval, parts))


def _is_one_interval(text: str) -> bool:
    text = text.strip()
    if not text.startswith(("[", "(")) or not text.endswith(("]", ")")):
        return False
    try:
        low, high = map(float, text[1:-1].split(","))
    except ValueError:
        return False
    return low <= high  # False for nan


def is_range(value: Any) -> bool:
    """A list of two numbers, the first smaller."""
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]


def is_values(value: Any) -> bool:
    """A list of numbers and texts that is not empty."""
    return isinstance(value, list) and bool(value) and all(type(item) in (int, float, str) for item in value)


def is_threshold(value: Any) -> bool:
    """``{rating: 3}``."""
    return is_mapping_of(is_number)(value) and len(value) == 1


def is_bins(value: Any) -> bool:
    """``{price: {method: ED, bucket: 5}}`` or ``{price: {method: LD}}``."""

    def is_method(bins: Any) -> bool:
        if not isinstance(bins, dict):
            return False
        return bins == {"method": "LD"} or (bins.keys() == {"method", "bucket"} and _is_equal_distance(bins))

    return is_mapping_of(is_method)(value)


def _is_equal_distance(bins: dict[str, Any]) -> bool:
    return bins["method"] == "ED" and is_whole(bins["bucket"])


def is_transform(value: Any) -> bool:
    """The name of one of RecBole's transformations."""
    return value in _TRANSFORMS


def is_clipping(value: Any) -> bool:
    """``{max_norm: 5}``, optionally with ``norm_type``."""
    known = isinstance(value, dict) and "max_norm" in value and value.keys() <= {"max_norm", "norm_type"}
    return known and all(type(number) in (int, float) and number > 0 for number in value.values())


def is_sampling(value: Any) -> bool:
    """Settings of RecBole's sampler of training negatives."""
    if not isinstance(value, dict):
        return False
    return (
        value.get("distribution", "uniform") in _DISTRIBUTIONS
        and is_whole(value.get("sample_num", 1), high=_MOST_NEGATIVES)
        and is_number(value.get("alpha", 1))
        and isinstance(value.get("dynamic", False), bool)
        and is_whole(value.get("candidate_num", 0), low=0, high=_MOST_NEGATIVES)
    )


def is_device_number(value: Any) -> bool:
    """The number of a GPU, which may be a text. RecBole's word for no GPU is an empty text."""
    return value == "" or is_whole(value, low=0) or (isinstance(value, str) and value.isascii() and value.isdigit())
