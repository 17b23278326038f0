"""Which compressed linear a stored tensor belongs to."""

from collections.abc import Container


def owner(name: str, linears: Container[str]) -> str | None:
    """The outermost of `linears` (full names) that the tensor `name` lies in, or None; a linear may have parts."""
    end = name.find(".")
    while end != -1:
        if name[:end] in linears:
            return name[:end]
        end = name.find(".", end + 1)
    return None
