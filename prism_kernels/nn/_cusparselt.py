"""Products of many tokens with a 2:4 weight by cuSPARSELt, as torch carries it; on a GPU only.

y = x @ weight^T is `torch._cslt_sparse_mm(compressed, x^T, transpose_result=True)`. The compressed weight is opaque, 9
bits per weight, and stands beside the one that `sparse24_linear` reads. cuSPARSELt has several algorithms per problem,
whose times differ by several times; each shape is searched once per device for a few numbers of tokens, when the first
weight of that shape is compressed. Rows and columns must be multiples of 16.
"""

import torch
import torch.nn.functional as F

#: Numbers of tokens that are searched; a call takes the algorithm of the largest that it reaches, or of the first.
SEARCHED_TOKENS = (1024, 4096)
#: cuSPARSELt's rules for 16-bit elements.
SIZE_MULTIPLE, TOKEN_MULTIPLE = 16, 8

_algorithms: dict[tuple[torch.device, torch.dtype, int, int], tuple[int, ...]] = {}


def is_available(device: torch.device) -> bool:
    return device.type == "cuda" and torch.backends.cusparselt.is_available()


def takes(n: int, k: int, dtype: torch.dtype) -> bool:
    """Whether cuSPARSELt multiplies by weights [n, k] of dtype."""
    whole = n > 0 and k > 0 and n % SIZE_MULTIPLE == 0 and k % SIZE_MULTIPLE == 0
    return whole and dtype in (torch.float16, torch.bfloat16)


def may_prepare(x: torch.Tensor) -> bool:
    """Whether a call on x may compress a weight and search: neither captured nor compiled, where both would break."""
    return not torch.compiler.is_compiling() and not (x.is_cuda and torch.cuda.is_current_stream_capturing())


def compress(weight: torch.Tensor) -> torch.Tensor:
    """A 2:4 weight [n, k] in cuSPARSELt's order."""
    return torch._cslt_compress(weight.contiguous())


def search(compressed: torch.Tensor, n: int, k: int) -> tuple[int, ...]:
    """The best algorithm for each of SEARCHED_TOKENS on the device of `compressed`; measures, once per shape."""
    key = (compressed.device, compressed.dtype, n, k)
    if key not in _algorithms:
        found = []
        for tokens in SEARCHED_TOKENS:
            x = torch.zeros(tokens, k, dtype=compressed.dtype, device=compressed.device)
            found.append(int(torch._cslt_sparse_mm_search(compressed, x.t(), transpose_result=True)))
        _algorithms[key] = tuple(found)
    return _algorithms[key]


def multiply(
    x: torch.Tensor, compressed: torch.Tensor, algorithms: tuple[int, ...], bias: torch.Tensor | None, n: int
) -> torch.Tensor:
    """x [..., k] -> [..., n] in the dtype of x, which is that of the weight; `algorithms` of `search`."""
    tokens = x.reshape(-1, x.shape[-1])
    m = tokens.shape[0]
    reached = sum(m >= least for least in SEARCHED_TOKENS[1:])
    padded = F.pad(tokens, (0, 0, 0, -m % TOKEN_MULTIPLE)).contiguous()
    y = torch._cslt_sparse_mm(compressed, padded.t(), bias, transpose_result=True, alg_id=algorithms[reached])
    return y[:m].reshape(*x.shape[:-1], n)
