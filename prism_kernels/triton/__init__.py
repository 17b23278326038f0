"""Triton kernels; none yet. They register only where no compiled CUDA kernel fills the slot."""
