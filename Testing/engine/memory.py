"""How much memory tensors take while code runs, counted operation by operation rather than asked of the system."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# They show what a sparse tensor, which is not counted, holds.
_PARTS_OF_SPARSE = {
    torch.ops.aten.crow_indices.default,
    torch.ops.aten.col_indices.default,
    torch.ops.aten.values.default,
}


class LiveBytes(TorchDispatchMode):
    """While active, follows the tensors that operations return; ``peak`` is the most they held at once, in bytes.

    What an operation takes only while it runs, such as a copy of its input in another layout, is not seen.
    """

    def __init__(self, *known: Tensor) -> None:
        """known: tensors that do not count, nor do views of them."""
        super().__init__()
        self.peak = 0
        self._known: dict[int, StorageWeakRef] = {}  # a weak reference keeps its address from being used again
        self._ignore(*known)
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def _ignore(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            reference = StorageWeakRef(tensor.untyped_storage())
            self._known[reference.cdata] = reference

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _PARTS_OF_SPARSE:
            self._ignore(result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:  # sparse ones hold strided ones
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                if reference.cdata not in self._known:
                    self._live[reference.cdata] = reference, storage.nbytes()
        self._live = {k: entry for k, entry in self._live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._live.values()))
        return result
