"""How an op comes to be: one schema, one fake, the reference as the kernel that serves wherever no other does."""

from collections.abc import Callable
from typing import Any

import torch

#: Public op names in the order of their definition; dispatch and `python -m prism_kernels` list them.
OP_NAMES: list[str] = []


def define(schema: str, *, reference: Callable, fake: Callable) -> None:
    """Defines `prism::<schema>`, with `reference` as its default kernel and `fake` for shapes under torch.compile."""
    name = schema.split("(")[0]
    torch.library.define(f"prism::{name}", schema.removeprefix(name))
    torch.library.register_fake(f"prism::{name}", fake)
    torch.library.register_kernel(f"prism::{name}", "default", reference)
    if not name.startswith("_"):
        OP_NAMES.append(name)


def call(op: Callable, *arguments: Any) -> Any:
    """Calls an op that has a gradient, past the Python of its autograd wrapper where nothing needs one."""
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments)):
        return op(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return op(*arguments)


# Introspection of the compiled CPU library; without it the answers below say so.
torch.library.define("prism::_active_isa", "() -> str")
torch.library.define("prism::_force_isa", "(str name) -> str")
torch.library.define("prism::_last_kernel", "() -> str")
