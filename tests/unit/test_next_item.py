"""Encoders of the history: BSARec's filter, eSASRec's gates, HSTU's attention and its times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import Built
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_diffusion.model.bsarec import FrequencyFilter, low_pass
from recbole_diffusion.model.esasrec import LiGRBlock
from recbole_diffusion.model.hstu import HSTUBlock, RelativeBias
from recbole_diffusion.names import AGE_LIST
from recbole_diffusion.testing.fixtures import builder

SMALL = {"embedding_size": 16, "num_layers": 2, "num_heads": 2}


@pytest.mark.parametrize("length", [9, 10])
def test_the_filter_keeps_the_low_frequencies_wherever_the_sequence_lies(length: int, device: str) -> None:
    x = torch.randn(3, 6, 4, device=device)
    for start in (0, length - 6):
        padded = torch.zeros(3, length, 4, device=device)
        padded[:, start : start + 6] = x
        spectrum = torch.fft.rfft(padded, dim=1)
        spectrum[:, 3:] = 0
        low = torch.fft.irfft(spectrum, n=length, dim=1)[:, start : start + 6]
        torch.testing.assert_close(low_pass(length, 3).to(device)[:6, :6] @ x, low, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(low_pass(length, length // 2 + 1), torch.eye(length), rtol=0, atol=1e-6)


def test_beta_weighs_the_high_frequencies_and_padding_is_zero(device: str) -> None:
    layer = FrequencyFilter(8, 4, frequencies=2, dropout=0.0).to(device).eval()
    x, real = torch.randn(2, 5, 4, device=device), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], device=device)
    low = layer.low_pass[:3, :3] @ x[1, :3]
    expected = layer.norm(x[1, :3] + low + layer.beta**2 * (x[1, :3] - low))
    torch.testing.assert_close(layer(x, real.unsqueeze(-1))[1, :3], expected)


def test_a_closed_gate_lets_nothing_through_and_an_open_one_all(device: str) -> None:
    block = LiGRBlock(8, 2, dropout=0.0).to(device).eval()
    x = torch.randn(2, 5, 8, device=device)
    for gate in (block.attention_gate, block.feed_forward_gate):
        torch.nn.init.zeros_(gate.weight)
        torch.nn.init.constant_(gate.bias, -100.0)
    torch.testing.assert_close(block(x), x)
    torch.nn.init.constant_(block.attention_gate.bias, 100.0)
    attended = x + block.attention(block.attention_norm(x), causal=True)
    torch.testing.assert_close(block(x), attended)
    torch.nn.init.constant_(block.feed_forward_gate.bias, 0.0)
    torch.testing.assert_close(block(x), attended + 0.5 * block.feed_forward(block.feed_forward_norm(attended)))


def test_hstus_block_is_the_papers_formula(device: str) -> None:
    settings: Any = SimpleNamespace(embedding_size=4, num_heads=2, dropout=0.0, time_bias=True)
    block = HSTUBlock(10, settings).to(device).eval()
    x, age = torch.randn(1, 3, 4, device=device), torch.tensor([[5000.0, 20.0, 0.0]], device=device)
    gate, value, query, key = torch.nn.functional.silu(block.input_norm(x[0]) @ block.project.weight.T).split(4, dim=-1)
    attended = torch.zeros(3, 4, device=device)
    for head in (slice(0, 2), slice(2, 4)):
        for i in range(3):
            for j in range(i + 1):
                seconds = max(float(age[0, j] - age[0, i]), 1.0)
                bucket = int(torch.tensor(seconds).log() / 0.301)
                score = query[i, head] @ key[j, head] + block.bias.of_distance[i - j] + block.bias.of_time[bucket]
                attended[i, head] += torch.nn.functional.silu(score) / 10 * value[j, head]
    torch.testing.assert_close(block(x, age)[0], x[0] + block.out(gate * block.attended_norm(attended)))


def test_any_time_has_a_bucket(device: str) -> None:
    bias = RelativeBias(4, with_time=True).to(device)
    found = bias(torch.tensor([[1e30, 1e9, 1.0, 0.0]], device=device))
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("model", ["eSASRec", "HSTU"])
def test_a_windows_states_are_those_of_its_prefixes(model: str, build: Callable[..., Built]) -> None:
    """So training sees nothing of the target, and ranks as evaluation does."""
    built = build(model, **SMALL)
    model_ = built.model.eval()
    window = next(iter(built.loaders.train))
    states = model_.encode(window)
    longest = int(window[model_.ITEM_SEQ_LEN].argmax())
    for length in range(1, int(window[model_.ITEM_SEQ_LEN][longest]) + 1):
        prefix = {model_.ITEM_SEQ: window[model_.ITEM_SEQ][longest, :length][None]}
        prefix[model_.ITEM_SEQ_LEN] = torch.tensor([length])
        if AGE_LIST in window:
            age = window[AGE_LIST][longest, :length][None]
            prefix[AGE_LIST] = age - age.min()
        found = model_(Interaction(prefix))
        torch.testing.assert_close(found[0], states[longest, length - 1], rtol=1e-4, atol=1e-5)


def _write_times(folder: Path, times: list[int]) -> Path:
    """Data set ``times``: three users with the same times."""
    rows = [f"u{user}\ti{(user + place) % 9}\t{time}" for user in range(3) for place, time in enumerate(times)]
    (folder / "times").mkdir()
    text = "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]) + "\n"
    (folder / "times" / "times.inter").write_text(text)
    return folder


def test_ages_are_exact_seconds_before_the_last_event_that_is_read(tmp_path: Path) -> None:
    """32-bit floats near 1.7e9 are 128 seconds apart."""
    times = [1_700_000_000, 1_700_000_003, 1_700_000_010, 1_700_000_100, 1_700_001_000, 1_700_001_001]
    build = builder(_write_times(tmp_path, times))
    small: dict[str, Any] = {**SMALL, "topk": [1], "valid_metric": "NDCG@1"}
    built = build("HSTU", "times", **small)
    batch = next(iter(built.loaders.train))  # targets: events 1, 2 and 3
    for ages, items in zip(batch[AGE_LIST], batch["item_id_list"], strict=True):
        assert ages[items != 0].tolist() == [10, 7, 0] and not ages[items == 0].any()
    valid: Tensor = built.loaders.valid.dataset[[0]][AGE_LIST]
    assert valid[0, :4].tolist() == [100, 97, 90, 0]
    assert AGE_LIST not in next(iter(build("eSASRec", "times", **small).loaders.train))


def test_hstu_reads_the_times(tmp_path: Path, random_data: Path) -> None:
    built = builder(random_data)("HSTU", **SMALL)
    rows = built.loaders.valid.dataset[:5]
    built.model.eval()
    with_times = built.model.full_sort_predict(rows)
    rows[AGE_LIST] = rows[AGE_LIST] * 1000
    assert not torch.allclose(built.model.full_sort_predict(rows), with_times)
    plain = builder(random_data)("HSTU", **SMALL, time_bias=False)
    assert not any("of_time" in name for name, _ in plain.model.named_parameters())
