"""What single choices in the Transformer save: a forward and a backward pass of each, in turn, in one process.

    python benchmarks/layers.py [--threads 2] [--repeats 30]

- dropout with four elements a random number, against torch's;
- attention by ``scaled_dot_product_attention``, against the products written out;
- a block that computes one position, against the same block at all of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from recbole_diffusion.model.layers import Dropout, TransformerBlock

BATCH, DIM, HEADS = 512, 128, 4


def written_out(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention without the fused operator."""
    scores = (query @ key.transpose(-1, -2)) * query.shape[-1] ** -0.5
    return scores.masked_fill(~mask, -torch.inf).softmax(dim=-1) @ value


def compare(name: str, plain: Callable[[], Tensor], ours: Callable[[], Tensor], repeats: int) -> None:
    """Print milliseconds of both and their ratio."""
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    for repeat in range(-2, repeats):
        for kind, function in (("plain", plain), ("ours", ours)):
            start = time.perf_counter()
            function().sum().backward()
            if repeat >= 0:
                times[kind].append((time.perf_counter() - start) * 1e3)
    medians = {kind: statistics.median(values) for kind, values in times.items()}
    ratio = statistics.median(p / o for p, o in zip(times["plain"], times["ours"], strict=True))
    print(f"{name}: {medians['plain']:.1f} ms, ours {medians['ours']:.1f} ms, {ratio:.2f} times", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    for length in (10, 50):
        x = torch.randn(BATCH, length, DIM, requires_grad=True)
        ours, theirs = Dropout(0.1), nn.Dropout(0.1)
        compare(f"dropout, length {length}", lambda f=theirs, x=x: f(x), lambda f=ours, x=x: f(x), arguments.repeats)
        mask = torch.ones(BATCH, 1, 1, length, dtype=torch.bool)
        parts = [torch.randn(BATCH, HEADS, length, DIM // HEADS, requires_grad=True) for _ in range(3)]
        compare(
            f"attention, length {length}",
            lambda parts=parts, mask=mask: written_out(*parts, mask),
            lambda parts=parts, mask=mask: nn.functional.scaled_dot_product_attention(*parts, attn_mask=mask),
            arguments.repeats,
        )
        block = TransformerBlock(DIM, HEADS, dropout=0.1)
        at = torch.full((BATCH,), length - 1)
        compare(
            f"block, length {length}, one position",
            lambda block=block, x=x, mask=mask: block(x, mask),
            lambda block=block, x=x, mask=mask, at=at: block(x, mask, at=at),
            arguments.repeats,
        )


if __name__ == "__main__":
    main()
