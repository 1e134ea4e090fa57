"""Counts what torch holds at once: the same on every machine, unlike a process's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that were held at once of what was made inside.

    Memory inside one operator is not counted, as a matrix product's.

    Attributes:
        peak: Bytes.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
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
        for tensor in tensors_in((args, kwargs)):
            if tensor.untyped_storage()._cdata not in self._held:
                self._given.add(tensor.untyped_storage()._cdata)
        made = func(*args, **kwargs)
        self._held = {
            key: (reference, size)
            for key, (reference, size) in self._held.items()
            if not reference.expired()  # type: ignore[no-untyped-call]
        }
        for tensor in tensors_in(made):
            storage = tensor.untyped_storage()
            if storage._cdata not in self._given and storage._cdata not in self._held:
                reference = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._held[storage._cdata] = reference, storage.nbytes()
        self.peak = max(self.peak, sum(count for _, count in self._held.values()))
        return made


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors of arguments or results, however they are nested."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
