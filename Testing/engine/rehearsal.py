"""A CUDA device played on the CPU: code runs on it with its true numbers, though no GPU and no CUDA build is at hand.

Tensors "on" it say that they are on cuda:0 and hold a tensor of the CPU, where every operation is carried out.  As on a
real device, an operation that is given tensors of both is refused, and so is a generator of the other one.  Whatever
makes the host wait for the device is counted: a value that is read, a copy from or to memory that is not pinned, a
choice by a mask, a synchronisation.

torch's own FakeTensorMode does not serve: on a build without CUDA it can neither index nor convert such tensors, it has
no values to answer ``float(tensor)`` with, and it lets a CPU tensor be indexed with one of the device.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any, ClassVar
from unittest import mock
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
aten = torch.ops.aten
_RealGenerator = torch.Generator

_COPIES = {aten._to_copy.default, aten.copy_.default}
_INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
_WAITING = {aten._linalg_eigh.default, aten._linalg_check_errors.default}  # cuSOLVER's verdict is read by the host
_WAITING_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class DeviceError(RuntimeError):
    """What torch raises as a RuntimeError where tensors of two devices meet."""


class OnDevice(Tensor):
    """A tensor that says it is on cuda:0, and the one of the CPU that holds its numbers, in the same layout."""

    held: Tensor
    home: Rehearsal

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: Tensor, home: Rehearsal) -> OnDevice:
        place = {}
        if inner.layout == torch.strided:
            place = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, layout=inner.layout, device=CUDA, **place
        )
        if inner.layout == torch.strided:  # bits that torch resolves lazily, above the rehearsal
            torch._C._set_conj(made, inner.is_conj())
            torch._C._set_neg(made, inner.is_neg())
        made.held, made.home = inner, home
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.held})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise DeviceError(f"{func} on a tensor of a rehearsal that is over")

    def __deepcopy__(self, memo: dict[int, Any]) -> OnDevice:
        twin = OnDevice(self.held.clone(), self.home)
        if getattr(self, "_is_param", False):
            twin._is_param = True
        memo[id(self)] = twin
        return twin

    # What follows would ask a build without CUDA to choose the device before it asks the rehearsal.

    def item(self) -> Any:
        return aten._local_scalar_dense(self) if self.numel() == 1 else self.held.item()  # raises

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return self.item().__index__()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        return aten.contiguous(self, memory_format=memory_format)

    def copy_(self, src: Tensor, non_blocking: bool = False) -> Tensor:
        return aten.copy_(self, src, non_blocking)

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        return aten.nonzero_numpy(self) if as_tuple else aten.nonzero(self)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __getitem__(self, key: Any) -> Any:
        return self.home.carry_out(Tensor.__getitem__, (self, key), {}, indexed=True)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.home.carry_out(Tensor.__setitem__, (self, key, value), {}, indexed=True)


class PlayedGenerator(torch.Generator):
    """A generator of the played device.  Its numbers are those of the CPU's, so that results can be compared."""

    device = CUDA
    living: ClassVar[WeakValueDictionary[int, PlayedGenerator]] = (
        WeakValueDictionary()
    )  # by the address of what they wrap

    def __init__(self) -> None:
        self.living[_address(self)] = self

    @classmethod
    def device_of(cls, generator: torch.Generator) -> torch.device:
        """That of the generator which torch hands on in a new wrapping."""
        return CUDA if _address(generator) in cls.living else CPU


def _address(generator: Any) -> int:
    return int(generator._cdata)


class _EitherGenerator(torch.Generator):
    """What makes a generator of the device that is asked for."""

    def __new__(cls, device: Any = "cpu") -> torch.Generator:  # type: ignore[misc]
        return PlayedGenerator() if torch.device(device).type == "cuda" else _RealGenerator(device)


@contextlib.contextmanager
def rehearsed() -> Iterator[Rehearsal]:
    """Within it, in inference mode as reconstructions are, there is one device "cuda"."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        rehearsal = Rehearsal()
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "get_device_capability": lambda device=None: (9, 0),
            "is_bf16_supported": lambda including_emulation=True: True,
            "synchronize": rehearsal.synchronize,
            "empty_cache": lambda: None,
            "_lazy_init": lambda: None,
        }.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(torch, "Generator", _EitherGenerator))
        for name in ("tensor", "as_tensor"):
            stack.enter_context(mock.patch.object(torch, name, partial(_made_and_moved, getattr(torch, name))))
        stack.enter_context(_new_parameters())
        stack.enter_context(rehearsal)
        yield rehearsal


class Rehearsal(TorchDispatchMode):
    """The played device.  ``waits`` counts what made the host wait for it, by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        # Within an operation torch hides what it has dealt with, such as lazy conjugation; its parts need it again.
        self._outside = (torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set())

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and to be skipped takes seconds to import

    def synchronize(self, device: Any = None) -> None:
        """In the place of ``torch.cuda.synchronize``."""
        self._count("synchronize")

    @property
    def total(self) -> int:
        """How often the host waited so far."""
        return self.waits.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = [_numbered(leaf) for leaf in args], {k: _numbered(v) for k, v in (kwargs or {}).items()}
        if _is_composite(func):  # it is made of others, some of which may wait
            with torch._C._ForceDispatchKeyGuard(*self._outside), self:
                made = func.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
        return self.carry_out(func, args, kwargs, indexed=func in _INDEXED)

    def carry_out(self, func: Any, args: Any, kwargs: dict[str, Any], *, indexed: bool) -> Any:
        """The result of an operation that is made of no others, on the device where its tensors or its words say."""
        tensors = [*_tensors(args), *_tensors(kwargs.values())]
        on_device = any(isinstance(t, OnDevice) for t in tensors)
        place = kwargs.get("device") or (CUDA if on_device else CPU)
        self._check(func, args, kwargs, tensors, place, indexed)
        own = {id(_inner(t)): t for t in tensors}
        args, kwargs = [_inner(leaf) for leaf in args], {k: _inner(v) for k, v in kwargs.items()}
        if place == CUDA and "device" in kwargs:
            kwargs["device"] = CPU
        with torch._C._ForceDispatchKeyGuard(*self._outside):
            result = func(*args, **kwargs)
        if "out" in kwargs and any(_inner(t).shape != t.shape for t in tensors):
            raise NotImplementedError(f"the rehearsal cannot follow {func}, which changed the shape of its argument")

        def placed(leaf: Any) -> Any:
            if id(leaf) in own:  # written into
                return own[id(leaf)]
            if isinstance(leaf, list | tuple):
                return type(leaf)([placed(entry) for entry in leaf])
            return OnDevice(leaf, self) if place == CUDA and isinstance(leaf, Tensor) else leaf

        return placed(result)

    def _check(
        self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor], place: torch.device, indexed: bool
    ) -> None:
        """Refuse what a real device would, and count what it would be waited for."""
        generator = kwargs.get("generator")
        if generator is not None and PlayedGenerator.device_of(generator) != place:
            raise DeviceError(f"{func}: a generator of the other device, for a tensor on {place}")
        if indexed:
            return self._check_index(func, *args[:3])
        apart = [t for t in tensors if isinstance(t, OnDevice) != (place == CUDA)]
        if func in _COPIES:
            self._count("copy", bool(apart))
        elif apart and not _like(func):
            raise DeviceError(f"{func}: tensors on cuda:0 and on cpu meet: {[tuple(t.shape) for t in tensors]}")
        elif place == CUDA and func in _WAITING:
            self._count("solver")
        elif place == CUDA and not _WAITING_TAGS.isdisjoint(func.tags):
            self._count("value" if torch.Tag.data_dependent_output in func.tags else "shape")

    def _check_index(self, func: Any, indexed: Tensor, key: Any, value: Any = 0) -> None:
        """Indices of the CPU are copied to the device; masks are counted there, unless one number fills them."""
        indices = list(_tensors([key]))
        values = list(_tensors([value]))
        for tensor in (*indices, *values):
            if isinstance(tensor, OnDevice) > isinstance(indexed, OnDevice):
                raise DeviceError(f"{func}: a tensor on cpu and an index or a value on cuda:0")
        if isinstance(indexed, OnDevice):
            if not all(isinstance(t, OnDevice) for t in values):
                raise DeviceError(f"{func}: a tensor on cuda:0 and a value on cpu")
            self._count("copy", sum(not isinstance(t, OnDevice) for t in indices))
            if func is Tensor.__getitem__ or func is aten.index.Tensor or any(t.numel() > 1 for t in values):
                self._count("shape", sum(t.dtype in (torch.bool, torch.uint8) for t in indices))

    def _count(self, kind: str, times: int = 1) -> None:
        if times:
            self.waits[kind] += times


def _like(func: Any) -> bool:
    """Whether an operation takes no more than shape and type from its tensor."""
    name = func.overloadpacket.__name__
    return name.endswith("_like") or name.startswith("new_")


def _made_and_moved(make: Callable[..., Tensor], data: Any, *, device: Any = None, **options: Any) -> Tensor:
    """A tensor of numbers in memory, made there and copied, which torch does inside, where no rehearsal sees it."""
    made = make(data, **options)
    return made if device is None else made.to(device)


@cache
def _is_composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _numbered(leaf: Any) -> Any:
    return CUDA if isinstance(leaf, torch.device) and leaf.type == "cuda" else leaf


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among values and in their lists."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _inner(value: Any) -> Any:
    """What a tensor on the device holds; of a list, those of its entries."""
    if isinstance(value, OnDevice):
        return value.held
    if isinstance(value, list | tuple):
        return type(value)([_inner(entry) for entry in value])
    return value


@contextlib.contextmanager
def _new_parameters() -> Iterator[None]:
    """Networks that move get new parameters: the old ones cannot take up a tensor of another kind."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        yield
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def on_both(run: Callable[[str], Any]) -> tuple[Any, Any, Counter[str]]:
    """(what ``run(device)`` returns on the CPU, on the played device, what made the host wait there).

    Tensors from the device must be there, and come as those of the CPU that hold their numbers.
    """
    with torch.inference_mode():
        expected = run("cpu")
    with rehearsed() as device:
        found = run("cuda")
    for tensor in _tensors([found]):
        assert isinstance(tensor, OnDevice), "a result is not on the device"
    return expected, _inner(found), device.waits
