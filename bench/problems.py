"""Shapes of real models: (name, n, k) of one weight, and the numbers of tokens m."""

#: Llama-3.1-8B: MLP up/gate, MLP down, attention q/o.
SHAPES = {"mlp_up": (14336, 4096), "mlp_down": (4096, 14336), "attention": (4096, 4096)}
QUICK_SHAPES = {"attention": (4096, 4096)}
TOKENS = (1, 4, 16, 64, 256)
QUICK_TOKENS = (1, 16)
SPARSITY = 0.5
GROUP_SIZE = 64
