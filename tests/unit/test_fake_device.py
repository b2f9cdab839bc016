"""The fake GPU of ``pytest --fake-device`` fails where a GPU does; these tests run under that option only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def _only_there(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--fake-device"):
        pytest.skip("needs --fake-device")


def test_tensors_of_two_devices_do_not_meet() -> None:
    here, there = torch.ones(3), torch.ones(3).to("cuda")
    assert there.device.type == "cuda" and (there * 2).device == there.device and here.device.type == "cpu"
    for meet in (
        lambda: here + there,
        lambda: torch.stack([here, there]),
        lambda: nn.Linear(3, 2).cuda()(here),
        lambda: nn.Linear(3, 2)(there),
        lambda: here[torch.zeros(1, dtype=torch.long, device="cuda")],
        lambda: torch.equal(here, there),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            meet()
    for read in (there.numpy, lambda: there.data.numpy()):
        with pytest.raises(TypeError, match="numpy"):
            read()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device="cuda", generator=torch.Generator())


def test_what_a_gpu_allows_is_allowed() -> None:
    there = torch.arange(3.0, device="cuda")
    assert (there * torch.tensor(2.0)).tolist() == [0, 2, 4]
    assert there[torch.tensor([2, 0])].tolist() == [2, 0]
    assert there.cpu().numpy().tolist() == there.to("cpu").tolist() == [0, 1, 2]
    assert there.new_tensor([1.0]).device == there.new_zeros(2).device == there.device
    here = torch.zeros(3)
    here.copy_(there)
    assert here.tolist() == [0, 1, 2]


def test_a_module_learns_there_and_keeps_its_parameters(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4))
    weight = model[0].weight
    model.to("cuda")
    assert model[0].weight is weight and isinstance(weight, nn.Parameter) and weight.is_cuda
    before = weight.tolist()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.arange(5, device="cuda")).square().sum().backward()
    assert weight.grad.is_cuda
    optimizer.step()
    assert weight.tolist() != before
    torch.save(model.state_dict(), tmp_path / "model.pt")
    for device in ("cpu", "cuda"):
        loaded = torch.load(tmp_path / "model.pt", map_location=device, weights_only=True)
        assert {value.device.type for value in loaded.values()} == {device}
        assert loaded["0.weight"].tolist() == weight.tolist()


def test_it_draws_rounds_and_orders_as_no_cpu_does() -> None:
    def draw(device: str) -> list[float]:
        torch.manual_seed(0)
        return torch.rand(4, device=device).tolist()

    assert draw("cuda") == draw("cuda") != draw("cpu")
    a, b = torch.rand(50, 50), torch.rand(50, 50)
    assert not torch.equal((a.cuda() @ b.cuda()).cpu(), a @ b)
    torch.testing.assert_close((a.cuda() @ b.cuda()).cpu(), a @ b)
    assert torch.ones(4).cuda().topk(2).indices.tolist() == [3, 2]

    def sums() -> torch.Tensor:
        return torch.rand(99, generator=torch.Generator().manual_seed(0)).cuda().cumsum(0)

    assert torch.equal(sums(), sums())  # the fixture of conftest.py has asked for it
    torch.use_deterministic_algorithms(False)
    assert not torch.equal(sums(), sums())
