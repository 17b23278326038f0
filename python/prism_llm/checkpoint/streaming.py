"""From a dense checkpoint to a compressed one, with one block at a time in memory."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from prism_kernels.nn import PackedLinear

from .saver import stored_config
from .writer import SHARD_BYTES, CheckpointWriter


def compress_to_checkpoint(
    model: str | Path | None,
    out: str | Path,
    recipe: Any = "prism",
    *,
    calibration: Tensor | None = None,
    tokenizer: Any = None,
    data_dir: str | Path | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int, str], object] | None = None,
    shard_bytes: int = SHARD_BYTES,
    iteration: int = 0,
    **changes: Any,
) -> Path:
    """Compresses a dense checkpoint and writes each block as soon as it is done; `out` appears complete or not at all.

    Args:
        model: a folder, a repository of the hub, or None for the model that ships with the package.
        out: directory to produce; an existing one is refused unless `overwrite`.
        recipe, calibration, data_dir, progress, changes: as `prism_llm.compress`.
        tokenizer: stored beside the weights; by default the checkpoint's.
        overwrite: replace an existing checkpoint once the new one is complete.
        shard_bytes: largest weight file.
        iteration: what the tier maps of a three-tier recipe say they are of.

    Returns:
        The directory.

    Raises:
        CheckpointError: the output is refused. Others as `prism_llm.compress`.
    """
    from ..models import load_tokenizer
    from ..pipeline import compress
    from ..pipeline.tier_maps import FILE, TierMaps, tile_maps

    tiles: dict[str, Tensor] = {}
    with CheckpointWriter(out, overwrite=overwrite, shard_bytes=shard_bytes) as writer:
        if tokenizer is None:
            tokenizer = load_tokenizer(model)

        def store(index: int, block: str, modules: Mapping[str, PackedLinear]) -> None:
            for name, module in modules.items():
                writer.add_module(name, module)
            tiles.update(tile_maps(modules))

        result = compress(
            model,
            recipe,
            calibration=calibration,
            tokenizer=tokenizer,
            data_dir=data_dir,
            on_block=store,
            on_tensors=writer.add_tensors,
            keep_blocks=False,
            progress=progress,
            **changes,
        )
        if tiles:
            chosen = result.recipe
            maps = TierMaps.of_tiles(iteration, chosen.tier_block_size, chosen.topk_per_block, tiles)
            (writer.directory / FILE).write_bytes(maps.to_bytes())
        return writer.finish(
            config=stored_config(result.model),
            tokenizer=tokenizer,
            generation_config=getattr(result.model, "generation_config", None),
            recipe=result.recipe.to_dict(),
            report=result.report.to_dict(),
        )
