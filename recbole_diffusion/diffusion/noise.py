"""Noise that belongs to a row: a function of the row's key, not of its place in a batch.

A usual generator gives its numbers in the order of the calls, so the noise of a row depends on the rows before it. Here
each number is computed from its purpose, as in counter-based generators (Salmon et al., "Parallel Random Numbers: As
Easy as 1, 2, 3", SC 2011). A 64-bit mix of key, purpose, step and place gives two uniform numbers, and the Box-Muller
transform makes two normal numbers from them.

The bits come from integer arithmetic, so they are the same on every device and for every number of threads. Logarithm,
root, sine and cosine are rounded as the device rounds them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Purposes. Numbers for different purposes are independent; the values are far apart, so that key + purpose is unique.
START, STEP, GUIDANCE = 0x243F6A8885A308D3, 0x13198A2E03707344, 0x082EFA98EC4E6C89

_PAIRS_AT_ONCE = 1 << 15  # fits into a CPU's cache: three times as fast as all at once
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio: its multiples are far apart
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


def mix(x: Tensor) -> Tensor:
    """A one-to-one mix of int64: the output function of SplitMix64 (Steele et al., OOPSLA 2014). A new tensor."""
    x = (x ^ _shifted(x, 30)).mul_(_FIRST)
    x = x.bitwise_xor_(_shifted(x, 27)).mul_(_SECOND)
    return x.bitwise_xor_(_shifted(x, 31))


def history_keys(item_seq: Tensor, length: Tensor, seed: int) -> Tensor:
    """A key for each history, from its items, their order and ``seed``. What is beyond ``length`` is ignored.

    Args:
        item_seq: items from oldest to newest, then padding of any value, [batch, width].
        length: number of real items, [batch].
        seed: 0 ... 2^63 - 1.

    Returns:
        int64 [batch].
    """
    place = torch.arange(1, item_seq.shape[1] + 1, device=item_seq.device)
    scrambled = mix(mix(item_seq + 1) + place * _GOLDEN)  # [batch, width]
    history = (scrambled * (place <= length.unsqueeze(-1))).sum(dim=-1)
    return mix(history + mix(torch.tensor(seed, device=item_seq.device)))


class RowNoise:
    """Standard normal noise for rows with ``keys`` [rows]. Equal key, purpose, step and size give equal numbers."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys

    def channels(self, count: int) -> RowNoise:
        """Noise for ``count`` chains per row, [rows * count]; the chains of one row are together."""
        channel = torch.arange(count, device=self.keys.device)
        return RowNoise(mix(self.keys.unsqueeze(-1) + channel * _GOLDEN).view(-1))

    def normal(self, purpose: int, *size: int, t: Tensor | int = 0) -> Tensor:
        """Noise of ``size`` for each row, float32 [rows, *size].

        If ``size`` has two or more dimensions and its first one is longer, the first numbers stay the same.

        Args:
            purpose: one of the constants of this module.
            t: the step, one for all rows or one per row [rows].
        """
        *leading, last = size
        half = -(-last // 2)
        keys = mix(mix(self.keys + purpose) + t).unsqueeze(-1)
        place = torch.arange(1, math.prod(leading) * half + 1, device=keys.device) * _GOLDEN
        noise = torch.empty(len(keys), *leading, 2 * half, device=keys.device)
        rows = max(1, _PAIRS_AT_ONCE // len(place)) if keys.device.type == "cpu" else max(1, len(keys))
        for own, out in zip(torch.split(keys, rows), torch.split(noise, rows), strict=True):
            _box_muller(mix(own + place).view(-1, *leading, half), out)
        return noise[..., :last]

    def uniform(self, purpose: int, *size: int, t: Tensor | int = 0) -> Tensor:
        """Uniform numbers in [0, 1] of ``size`` for each row, float32 [rows, *size]; arguments as in :meth:`normal`."""
        return 0.5 * (1 + torch.erf(self.normal(purpose, *size, t=t) / math.sqrt(2)))


def _box_muller(bits: Tensor, out: Tensor) -> None:
    """Fill ``out`` [..., 2n] with standard normal numbers: two from each of ``bits`` [..., n]."""
    # The two halves of the 64 bits become numbers in (0, 1] and [0, 1].
    radius = (bits & 0xFFFFFFFF).float().add_(0.5).mul_(2**-32).log_().mul_(-2).sqrt_()
    angle = _shifted(bits, 32).float().mul_(2 * math.pi * 2**-32)
    first, second = out.chunk(2, dim=-1)
    torch.mul(radius, angle.cos(), out=first)
    torch.mul(radius, angle.sin_(), out=second)


def _shifted(x: Tensor, bits: int) -> Tensor:
    """``x`` shifted to the right as an unsigned number."""
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)
