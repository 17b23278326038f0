"""How an op comes to be: one schema, one fake, the reference as the kernel that serves wherever no other does."""

from collections.abc import Callable

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


# Introspection of the compiled CPU library; without it the answers below say so.
torch.library.define("prism::_active_isa", "() -> str")
torch.library.define("prism::_force_isa", "(str name) -> str")
torch.library.define("prism::_last_kernel", "() -> str")
