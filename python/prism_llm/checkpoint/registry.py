"""Which class stands for a format name. The only way from a name in a file to code: nothing is imported by name."""

from dataclasses import dataclass

from prism_kernels.formats import (
    BitmapDualShiftWeight,
    BitmapWeight,
    CsrWeight,
    DualShiftWeight,
    LowRankWeight,
    PackedWeight,
    PermutedWeight,
    Sparse24DualShiftWeight,
    Sparse24Weight,
    TieredWeight,
)
from prism_kernels.nn import (
    BitmapDualShiftLinear,
    BitmapLinear,
    CsrLinear,
    DualShiftLinear,
    LowRankLinear,
    PackedLinear,
    PermutedLinear,
    Sparse24DualShiftLinear,
    Sparse24Linear,
    TieredLinear,
)


@dataclass(frozen=True)
class Format:
    """A storage format and the module that computes with it."""

    weight: type[PackedWeight]
    module: type[PackedLinear]


FORMATS: dict[str, Format] = {
    weight.NAME: Format(weight, module)
    for weight, module in (
        (BitmapWeight, BitmapLinear),
        (BitmapDualShiftWeight, BitmapDualShiftLinear),
        (CsrWeight, CsrLinear),
        (DualShiftWeight, DualShiftLinear),
        (LowRankWeight, LowRankLinear),
        (PermutedWeight, PermutedLinear),
        (Sparse24DualShiftWeight, Sparse24DualShiftLinear),
        (Sparse24Weight, Sparse24Linear),
        (TieredWeight, TieredLinear),
    )
}
