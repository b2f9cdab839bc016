"""A GPU that is not there: ``pytest --fake-device`` runs the suite as on a machine with one.

:func:`install` makes torch see one CUDA device. What is moved to it or made on it lives on the CPU, but says that it is
on ``cuda:0``, and fails where a tensor of a GPU would: beside tensors of the CPU, and in numpy. The device draws other
random numbers than the CPU, rounds sums of products otherwise, orders equal scores otherwise, and adds up in no fixed
order where CUDA does not either. Not simulated: speed, memory, and the kernels themselves. Child processes see no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
import torch._dynamo  # it reads torch.cuda as it is, so before that changes
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten: Any = torch.ops.aten
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
_PRODUCTS = (aten.mm, aten.addmm, aten.bmm, aten.baddbmm)
# Operations that add up in an order that changes from call to call on a GPU, unless it is told to be deterministic.
_UNORDERED = (
    aten.index_add, aten.index_add_, aten.scatter_add, aten.scatter_add_, aten.cumsum,
    aten._scaled_dot_product_flash_attention_for_cpu_backward,
)  # fmt: skip
_COPIES = (aten.copy_, aten._to_copy)
_INDEXED = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
_STRICT = (aten.cat, aten.stack, aten.mm, aten.bmm, aten.addmm, aten.embedding, aten.equal)  # 0-d tensors too


class CudaTensor(torch.Tensor):
    """A tensor of the CPU, ``inner``, that says that it is on the GPU."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, requires_grad: bool = False) -> CudaTensor:
        out = torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            layout=inner.layout, device=CPU, requires_grad=requires_grad,
        )  # fmt: skip
        out.inner = inner
        return out

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    data = property(lambda self: _data(self), lambda self, value: _set_data(self, value))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})

    def __tensor_flatten__(self) -> Any:
        """That it has this method makes ``Module.to`` keep the identity of a parameter, as on a GPU."""
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(inner_tensors: Any, context: Any, size: Any, stride: Any) -> CudaTensor:
        return CudaTensor(inner_tensors["inner"])

    def cpu(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return _ToCPU.apply(self)

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first (fake device).")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.inner.tolist()

    def get_device(self) -> int:
        return 0

    def __repr__(self, **kwargs: Any) -> str:
        return f"{self.inner!r} on the fake device"

    def __deepcopy__(self, memo: dict[int, Any]) -> CudaTensor:
        if id(self) not in memo:
            new = CudaTensor(self.inner.detach().clone(), self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                new = torch.nn.Parameter(new, self.requires_grad)
            memo[id(self)] = new
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _loaded, (self.inner.detach(), self.requires_grad)


class _ToCPU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: CudaTensor) -> torch.Tensor:
        return x.inner.detach().clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return CudaTensor(grad)


class _ToCUDA(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return CudaTensor(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, grad: Any) -> torch.Tensor:
        return grad.inner


_plain_data: Any = torch.Tensor.data


def _data(x: CudaTensor) -> torch.Tensor:
    return _plain_data.__get__(x)


def _set_data(x: CudaTensor, value: torch.Tensor) -> None:
    _plain_data.__set__(x, value)
    x.inner = value.inner


def _loaded(inner: torch.Tensor, requires_grad: bool) -> torch.Tensor:
    """What a file of a tensor on the GPU gives, wherever it is loaded to; ``torch.load`` moves it afterwards."""
    return CudaTensor(inner, requires_grad)


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, CudaTensor) else value


def _on_gpu(value: Any) -> Any:
    return CudaTensor(value) if isinstance(value, torch.Tensor) and not isinstance(value, CudaTensor) else value


def _tensors(values: Any) -> Iterable[torch.Tensor]:
    return [value for value in tree_flatten(values)[0] if isinstance(value, torch.Tensor)]


def _dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    """One operation with a tensor on the GPU among its arguments."""
    packet = func.overloadpacket
    _check_devices(packet, func, args, kwargs)
    inner_args, inner_kwargs = tree_map(_inner, (args, kwargs))
    with _random_numbers(func):
        out = _compute(packet, func, inner_args, inner_kwargs)
    written = [
        (args[place] if place < len(args) else kwargs.get(argument.name))
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    if written:
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():  # the shape that the wrapper tells
                func(*args, **kwargs)
        return tuple(written) if isinstance(out, tuple) else (None if out is None else written[0])
    return tree_map(_on_gpu, out)


def _check_devices(packet: Any, func: Any, args: Any, kwargs: Any) -> None:
    if packet in _COPIES:
        return
    checked = [*args[:1], *args[2:]] if packet in _INDEXED else args
    if packet in _INDEXED and not isinstance(args[0], CudaTensor):
        _refuse(func)  # indices on the GPU of a tensor on the CPU
    for value in _tensors((checked, kwargs)):
        if not isinstance(value, CudaTensor) and (value.dim() > 0 or packet in _STRICT):
            _refuse(func)


def _refuse(func: Any) -> None:
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({func})"
    )


def _compute(packet: Any, func: Any, args: Any, kwargs: Any) -> Any:
    if packet in _PRODUCTS and args[0].dtype == torch.float32:
        return func(*tree_map(_double, args), **kwargs).float()
    if packet is aten.topk and not kwargs:
        return _topk(func, *args)
    out = func(*args, **kwargs)
    if packet in _UNORDERED and not torch.are_deterministic_algorithms_enabled():
        for value in _tensors(out):
            if value.dtype == torch.float32:
                value.mul_(1 + 2e-7 * (torch.rand(value.shape, generator=_ORDER) - 0.5))
    return out


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, torch.Tensor) else value


def _topk(func: Any, x: torch.Tensor, k: int, dim: int = -1, largest: bool = True, sort: bool = True) -> Any:
    """``topk`` that takes equal values from the end, where the CPU takes them (mostly) from the front."""
    values, places = torch.sort(x.flip(dim), dim=dim, descending=largest, stable=True)
    return values.narrow(dim, 0, k).clone(), (x.shape[dim] - 1 - places).narrow(dim, 0, k).clone()


_ORDER = torch.Generator()
_ORDER.seed()
_state = torch.Generator().manual_seed(1).get_state()


@contextmanager
def _random_numbers(func: Any = None) -> Any:
    """The GPU's own random numbers, while something is drawn from the default generator."""
    global _state
    if func is not None and torch.Tag.nondeterministic_seeded not in func.tags:
        yield
        return
    of_cpu = torch.random.default_generator.get_state()
    torch.random.default_generator.set_state(_state)
    try:
        yield
    finally:
        _state = torch.random.default_generator.get_state()
        torch.random.default_generator.set_state(of_cpu)


def _set_state(state: torch.Tensor, *args: Any) -> None:
    global _state
    _state = state


def _seed(seed: int) -> None:
    global _state
    _state = _PlainGenerator().manual_seed((int(seed) ^ 0x5DEECE66D) % 2**63).get_state()


def _is_cuda(device: Any) -> bool:
    return isinstance(device, int) or (device is not None and torch.device(device).type == "cuda")


class _Made(TorchDispatchMode):
    """Puts on the GPU what an operation makes inside torch beside its arguments, e.g. the mask of causal attention."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        return out if _tensors((args, kwargs)) else tree_map(_on_gpu, out)


class _Move(TorchFunctionMode):
    """Gives the factories of torch and the methods that move tensors the fake device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to:
            return _to(*args, **kwargs)
        if func is torch.Tensor.cuda:
            return _to(args[0], CUDA)
        if func is torch.Tensor.new_tensor and isinstance(args[0], CudaTensor):
            kwargs.setdefault("device", CUDA)
        device = kwargs.get("device")
        if device is None:
            with _Made() if any(isinstance(value, CudaTensor) for value in args) else nullcontext():
                return func(*args, **kwargs)
        kwargs["device"] = CPU if _is_cuda(device) else device
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != torch.device(device).type:
            raise RuntimeError(f"Expected a '{device}' device type for generator but found '{generator.device}'")
        args, kwargs = tree_map(_inner, (args, kwargs))
        if not _is_cuda(device):
            return func(*args, **kwargs)
        requires_grad = kwargs.pop("requires_grad", False)
        with _random_numbers():
            out = func(*args, **kwargs)
        return tree_map(_on_gpu, out).requires_grad_(requires_grad)


def _to(x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """``Tensor.to`` in all its forms."""
    device, others = kwargs.pop("device", None), list(args)
    if "other" in kwargs:
        others.insert(0, kwargs.pop("other"))
    if others and isinstance(others[0], torch.Tensor):
        device, others[0] = others[0].device, others[0].dtype
    elif others and not isinstance(others[0], torch.dtype):
        device = others.pop(0)
    kwargs.update(zip(("dtype", "non_blocking", "copy"), others, strict=False))
    if device is not None and _is_cuda(device) != isinstance(x, CudaTensor):
        x = _ToCUDA.apply(x) if _is_cuda(device) else _ToCPU.apply(x)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    if device is not None and torch.device(device).type == "meta":
        kwargs["device"] = device
    return torch.Tensor.to(x, **kwargs) if kwargs else x


_PlainGenerator: Any = torch.Generator


class _Generators(type(_PlainGenerator)):  # type: ignore[misc]
    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, _PlainGenerator)


class Generator(_PlainGenerator, metaclass=_Generators):
    """A generator that says what device it is of."""

    _device: torch.device

    def __new__(cls, device: Any = "cpu") -> Generator:
        self = super().__new__(cls, CPU)
        self._device = CUDA if _is_cuda(device) else CPU
        return self

    device = property(lambda self: self._device)


_plain_load, _plain_manual_seed = torch.load, torch.manual_seed


def _load(*args: Any, map_location: Any = None, **kwargs: Any) -> Any:
    to_gpu = map_location is not None and _is_cuda(map_location)
    loaded = _plain_load(*args, map_location=CPU if to_gpu else map_location, **kwargs)
    if map_location is None:
        return loaded
    return tree_map(_on_gpu if to_gpu else (lambda value: _inner(value)), loaded)


def _manual_seed(seed: int) -> torch.Generator:
    _seed(seed)
    return _plain_manual_seed(seed)


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _always(value: Any) -> Callable[..., Any]:
    return lambda *args, **kwargs: value


def install() -> None:
    """Make torch see the fake GPU, in this process and from now on."""
    patches: dict[str, Any] = {
        "is_available": _always(True),
        "device_count": _always(1),
        "current_device": _always(0),
        "get_device_name": _always("fake"),
        "get_device_properties": _always(SimpleNamespace(total_memory=2**34, name="fake")),
        "is_bf16_supported": _always(True),
        "manual_seed": _seed,
        "manual_seed_all": _seed,
        "max_memory_reserved": _always(0),
        "max_memory_allocated": _always(0),
        "synchronize": _nothing,
        "empty_cache": _nothing,
        "reset_peak_memory_stats": _nothing,
        "set_device": _nothing,
        "get_rng_state": lambda *args: _state,
        "set_rng_state": _set_state,
        "_lazy_init": _nothing,
    }
    for name, value in patches.items():
        setattr(torch.cuda, name, value)
    torch.backends.cudnn.is_acceptable = _always(False)
    torch.load, torch.manual_seed = _load, _manual_seed  # type: ignore[assignment]
    torch.random.manual_seed = _manual_seed
    torch.Generator = Generator  # type: ignore[assignment, misc]
    torch.serialization.add_safe_globals([_loaded])
    _Move().__enter__()
