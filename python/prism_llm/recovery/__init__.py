"""Training of what pruning left: weights recover, pruned ones stay exactly zero."""

from .expand import Sparse, expand_, repack_
from .finetune import finetune
from .progressive import prune_iteration, run_schedule
from .training import Training, TrainingResult, train

__all__ = [
    "Sparse",
    "Training",
    "TrainingResult",
    "expand_",
    "finetune",
    "prune_iteration",
    "repack_",
    "run_schedule",
    "train",
]
