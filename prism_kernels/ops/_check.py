"""Argument checks of the public functions: `<op>: <argument> must <rule>, got <value>`."""

import torch

FLOAT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def require(condition: bool, op: str, argument: str, rule: str, got: object) -> None:
    if not condition:
        raise ValueError(f"{op}: {argument} must {rule}, got {got}")


def require_tensor(
    tensor: torch.Tensor,
    op: str,
    argument: str,
    *,
    shape: tuple[int | None, ...] | None = None,
    dtype: torch.dtype | tuple[torch.dtype, ...] | None = None,
    device: torch.device | None = None,
) -> None:
    """Type, dtype, shape (None = any size) and device of one tensor argument."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{op}: {argument} must be a tensor, got {type(tensor).__name__}")
    dtypes = (dtype,) if isinstance(dtype, torch.dtype) else dtype
    if dtypes is not None and tensor.dtype not in dtypes:
        names = " or ".join(str(d).removeprefix("torch.") for d in dtypes)
        raise TypeError(f"{op}: {argument} must have dtype {names}, got {tensor.dtype}")
    if shape is not None:
        fits = tensor.dim() == len(shape) and all(
            want is None or want == have for want, have in zip(shape, tensor.shape, strict=True)
        )
        if not fits:  # the text is made only here: torch.compile cannot trace it for symbolic sizes
            wanted = "[" + ", ".join("*" if s is None else str(s) for s in shape) + "]"
            raise ValueError(f"{op}: {argument} must have shape {wanted}, got {list(tensor.shape)}")
    if device is not None and tensor.device != device:
        raise ValueError(f"{op}: {argument} must be on {device}, got {tensor.device}")


def require_float(tensor: torch.Tensor, op: str, argument: str, **kwargs) -> None:
    require_tensor(tensor, op, argument, dtype=FLOAT_DTYPES, **kwargs)
