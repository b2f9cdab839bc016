"""Loss functions compared with closed forms."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_diffusion.model.diagnostics import nearest_neighbour_rank, table_statistics
from recbole_diffusion.model.losses import (
    catalogue_cross_entropy,
    covariance_penalty,
    gaussian_kl,
    robust_divergence,
    softmax_cross_entropy,
)


def test_catalogue_cross_entropy_leaves_padding_out() -> None:
    table = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 2.0]])
    x_0 = torch.tensor([[1.0, 1.0]])
    expected = -math.log(math.exp(2.0) / (math.exp(1.0) + math.exp(2.0)))
    loss = catalogue_cross_entropy(x_0, table, torch.tensor([2]), 1.0, max_cells=100)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_catalogue_cross_entropy_of_sequences_is_that_of_their_real_positions_and_0_at_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(10, 4, generator=generator)
    x_0 = torch.randn(2, 3, 4, generator=generator, requires_grad=True)
    items = torch.tensor([[5, 9, 1], [3, 0, 0]])
    loss = catalogue_cross_entropy(x_0, table, items, 0.5, max_cells=20)
    real = items != 0
    assert loss.shape == (2, 3) and (loss[~real] == 0).all()
    flat = catalogue_cross_entropy(x_0[real], table, items[real], 0.5, max_cells=1000)
    torch.testing.assert_close(loss[real], flat)
    (gradient,) = torch.autograd.grad(loss.sum(), x_0)
    torch.testing.assert_close(gradient, torch.autograd.grad(flat.sum(), x_0)[0])
    assert (gradient[~real] == 0).all() and (gradient[real] != 0).any()


@pytest.mark.parametrize("max_cells", [1, 20, 69])  # one row at a time, two rows, all but one
def test_softmax_in_parts_has_the_loss_and_the_gradients_of_the_whole(max_cells: int) -> None:
    generator = torch.Generator().manual_seed(0)
    table, rows = torch.randn(10, 4, generator=generator), torch.randn(7, 4, generator=generator)
    index = torch.randint(10, (7,), generator=generator)
    results = []
    for cells in (max_cells, 70):
        e, x = table.clone().requires_grad_(), rows.clone().requires_grad_()
        losses = softmax_cross_entropy(x, e, index, cells)
        (losses * torch.arange(7.0)).sum().backward()
        results.append((losses.detach(), e.grad, x.grad))
    torch.testing.assert_close(*results)


def test_softmax_in_parts_never_holds_all_scores() -> None:
    table, x = torch.randn(1000, 4), torch.randn(64, 4, requires_grad=True)
    largest = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    with Largest():
        softmax_cross_entropy(x, table, torch.zeros(64, dtype=torch.long), 8000).sum().backward()
    assert largest == 8000


def test_softmax_in_parts_keeps_no_scores_for_the_gradient() -> None:
    table, x = torch.randn(1000, 4), torch.randn(64, 4, requires_grad=True)
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        softmax_cross_entropy(x, table, torch.zeros(64, dtype=torch.long), 8000)
    assert max(kept, default=0) < 8000


def test_gaussian_kl_against_torch() -> None:
    mean, log_variance = torch.randn(3, 4), torch.randn(3, 4)
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)


@pytest.mark.parametrize("order", [0.25, 0.5])
def test_divergences_by_their_printed_forms(order: float) -> None:
    squared, variance = 0.7, 0.3
    r = squared / (2 * variance)
    base = 2 * math.pi * variance
    expected = {
        "alpha": 1 / (order - 1) * math.log(base ** (-order / 2) * math.exp(-r) ** (1 - order)),
        "beta": -(order + 1) / order * (base ** (-order / 2) * math.exp(-order * r) - 1),
        "gamma": -(order + 1) / order * base ** (-order / 2) * math.exp(-order * r),
        "none": squared,
    }
    for kind, value in expected.items():
        got = robust_divergence(kind, torch.tensor([squared]), torch.tensor([variance]), order)
        assert got.item() == pytest.approx(value, rel=1e-5), kind


@pytest.mark.parametrize("kind", ["alpha", "beta", "gamma", "none"])
def test_minimising_a_divergence_brings_c_hat_to_c(kind: str) -> None:
    squared = torch.linspace(0, 3, 20)
    values = robust_divergence(kind, squared, torch.ones(20), 0.5)
    assert (values.diff() > 0).all()


def test_beta_is_gamma_and_a_constant() -> None:
    squared, variance = torch.rand(20) * 3, torch.rand(20) + 0.2
    beta, gamma = (robust_divergence(kind, squared, variance, 0.4) for kind in ("beta", "gamma"))
    torch.testing.assert_close(beta - gamma, torch.full((20,), 1.4 / 0.4))


def test_robust_divergences_forgive_outliers_where_squared_error_does_not() -> None:
    far = torch.tensor([4.0, 40.0])
    for kind in ("beta", "gamma"):
        near, outlier = robust_divergence(kind, far, torch.ones(2), 0.5)
        assert outlier - near < 1.0  # bounded; squared error grows by 36


def test_table_statistics_of_tables_that_are_known() -> None:
    same = table_statistics(torch.ones(50, 8))
    assert same["table_cosine"] == pytest.approx(1, abs=1e-5) and same["table_rank"] == pytest.approx(1, abs=1e-3)
    assert same["table_norm"] == pytest.approx(1, rel=1e-5)
    axes = table_statistics(torch.eye(8) * 3)
    assert axes["table_cosine"] == pytest.approx(0, abs=1e-6) and axes["table_rank"] == pytest.approx(8, rel=1e-5)
    assert axes["table_norm"] == pytest.approx(3 / 8**0.5, rel=1e-5)


def test_nearest_neighbour_rank_by_hand() -> None:
    table = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [5.0, 0.0]])  # the padding row would be nearest
    x_0 = torch.tensor([[0.1, 0.0], [0.1, 0.0], [4.0, 0.0]])
    assert nearest_neighbour_rank(x_0, table, torch.tensor([1, 3, 2])).tolist() == [1, 3, 2]


def test_covariance_penalty_by_hand_and_blind_to_padding() -> None:
    w = torch.tensor([[0.5, 0.1], [0.3, 0.2], [0.2, 0.7]])
    c = (w - w.mean(dim=0)).T @ (w - w.mean(dim=0)) / 3
    expected = c.norm(dim=1).sum()
    padded = torch.cat([w, torch.zeros(2, 2)]).unsqueeze(0)
    real = torch.tensor([[True, True, True, False, False]])
    assert covariance_penalty(padded, real).item() == pytest.approx(expected.item(), rel=1e-4)
    alone = torch.ones(1, 1, 2, requires_grad=True)
    covariance_penalty(alone, torch.ones(1, 1, dtype=torch.bool)).sum().backward()
    assert torch.isfinite(alone.grad).all()
