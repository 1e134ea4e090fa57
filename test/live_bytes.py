"""Counts what torch holds at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """The most bytes that were held at once of what was made inside.

    Memory inside one operator is not counted, as a matrix product's.

    Attributes:
        peak: Bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        self._given: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            if tensor.untyped_storage()._cdata not in self._held:
                self._given.add(tensor.untyped_storage()._cdata)
        made = func(*args, **kwargs)
        self._held = {key: one for key, one in self._held.items() if not one[0].expired()}
        for tensor in _tensors(made):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._given:
                self._held.setdefault(storage._cdata, (StorageWeakRef(storage), storage.nbytes()))
        self.peak = max(self.peak, sum(count for _, count in self._held.values()))
        return made


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
