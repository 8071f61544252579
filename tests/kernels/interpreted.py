"""Triton interprets its kernels on the CPU, unless there is a GPU: it must be told before it is loaded.

The environment is as before afterwards, so that nothing else is changed, and what other tests start neither.
"""

import os
import sys
from importlib.util import find_spec

import torch

if find_spec("triton") and "triton" not in sys.modules and not torch.cuda.is_available():
    before = os.environ.get("TRITON_INTERPRET")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        import triton.experimental.gluon  # noqa: F401  which the interpreter loads when it first runs

        import ramda_theory.kernels.triton.table  # noqa: F401
    finally:
        if before is None:
            del os.environ["TRITON_INTERPRET"]
        else:
            os.environ["TRITON_INTERPRET"] = before

    from triton.runtime.interpreter import InterpretedFunction

    patching = InterpretedFunction.__call__

    def call(self, *args, **kwargs):
        """A call inside a kernel, whose language the kernel's own call has made the interpreter's already."""
        if self.fn.__module__.startswith("ramda_theory"):
            return self.rewrite()(*args, **kwargs)
        return patching(self, *args, **kwargs)

    InterpretedFunction.__call__ = call  # in half the time
