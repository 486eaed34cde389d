"""Finds where the host would wait for a device: on a CPU by watching what asks for values, on a GPU by CUDA's own check."""

from contextlib import ExitStack
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_ASKING = {  # operations whose result, or whose size, the host must know
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_consecutive",
    "aten::unique_dim",
    "aten::equal",
    "aten::is_nonzero",
    "aten::bincount",
}
_METHODS = ("cpu", "numpy", "tolist")


class Waits(TorchDispatchMode):
    """Counts what would wait, inside the ``with``; ``stamp`` is kept beside each, so that a test can say when."""

    def __init__(self):
        super().__init__()
        self.found, self.stamp, self._stack = [], None, ExitStack()

    def __enter__(self):
        for name in _METHODS:
            self._stack.enter_context(patch.object(torch.Tensor, name, self._watched(name)))
        return super().__enter__()

    def __exit__(self, *error):
        self._stack.close()
        return super().__exit__(*error)

    def _watched(self, name):
        own = getattr(torch.Tensor, name)

        def method(tensor, *args, **kwargs):
            self.found.append((self.stamp, name))
            with torch.utils._python_dispatch._disable_current_modes():  # counted once
                return own(tensor, *args, **kwargs)

        return method

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split(".")[0]
        by_mask = name in ("aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in _ASKING or by_mask:
            self.found.append((self.stamp, name))
        return func(*args, **(kwargs or {}))
