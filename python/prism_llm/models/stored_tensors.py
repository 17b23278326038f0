"""What a folder of safetensors files holds, and how the tensors of a model come from it.

Names and layouts on disk need not be the model's: transformers renames tensors while it loads, and fuses the experts
that many checkpoints store one by one. Its own rules for that are applied here, to a few tensors at a time.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .safetensors_file import SafetensorsFile


class NotStreamable(Exception):
    """The checkpoint cannot be read tensor by tensor into the model; says why."""


class StoredTensors:
    """The tensors of a folder of safetensors files, read one by one into memory of their own."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[Path, SafetensorsFile] = {}
        index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
        if index.is_file():
            files = json.loads(index.read_text("utf-8"))["weight_map"]
            self._file_of = {name: folder / Path(file).name for name, file in files.items()}
        elif single.is_file():
            self._file_of = dict.fromkeys(self._names(single), single)
        else:
            raise NotStreamable(f"{folder} has neither model.safetensors nor model.safetensors.index.json")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all tensors, from the headers alone."""
        return {name: self._open(path).shape(name) for name, path in self._file_of.items()}

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The tensors by name."""
        return {name: self._open(self._file_of[name]).read(name) for name in names}

    def _names(self, path: Path) -> list[str]:
        return self._open(path).names

    def _open(self, path: Path) -> SafetensorsFile:
        if path not in self._files:
            self._files[path] = SafetensorsFile(path)
        return self._files[path]


@dataclass
class Source:
    """How some stored tensors become some of the model's.

    Attributes:
        first: the target by which transformers knows the conversion.
        dtype: of the targets.
        stored: (pattern of the converter, stored name), in the order in which transformers collects them.
        converter: of transformers; None where one stored tensor is the one target.
        targets: the tensors that come of it, by name; each with the name of its place, another one where it is tied.
    """

    first: str
    dtype: torch.dtype
    stored: list[tuple[str, str]] = field(default_factory=list)
    converter: Any = None
    targets: dict[str, str] = field(default_factory=dict)

    def read(self, model: nn.Module, stored: StoredTensors) -> dict[str, Tensor]:
        """The tensors by the names of their places."""
        made = self.convert(model, stored.read(name for _, name in self.stored))
        return {place: made[name] for name, place in self.targets.items()}

    def convert(self, model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What comes of the stored tensors (which may be on the meta device), by name; `tensors` is emptied."""
        if self.converter is None:
            return {self.first: tensors.pop(self.stored[0][1]).to(self.dtype)}
        converter = copy.deepcopy(self.converter)
        for pattern, name in self.stored:
            converter.add_tensor(self.first, name, pattern, tensors.pop(name).to(self.dtype))
        made = converter.convert(self.first, model=model, config=model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


def find_sources(model: nn.Module, stored: StoredTensors) -> list[Source]:
    """Where each tensor of a model on the meta device comes from; of tied ones the one that the model lists first.

    Raises:
        NotStreamable: a tensor of the model is not stored, has another shape, or cannot be converted.
    """
    places = model.state_dict(keep_vars=True)
    first_of: dict[int, str] = {}
    tied = {name: first_of.setdefault(id(tensor), name) for name, tensor in places.items()}
    shapes = stored.shapes()
    found: dict[str, tuple[Source, str, list[int]]] = {}
    for source in _collect(model, shapes, places):
        given = {name: torch.empty(shapes[name], device="meta") for _, name in source.stored}
        try:
            made = source.convert(model, given)
        except Exception as error:  # whatever a rule raises on tensors that it does not expect
            raise NotStreamable(f"{source.first} cannot be made of {source.stored[0][1]}: {error}") from error
        for name in made.keys() & places.keys():
            if name == tied[name] or tied[name] not in found:
                found[tied[name]] = (source, name, list(made[name].shape))
    for place in dict.fromkeys(tied.values()):
        if place not in found:
            raise NotStreamable(f"the checkpoint has no tensor {place}, which its model needs")
        source, name, shape = found[place]
        if list(places[place].shape) != shape:
            raise NotStreamable(f"{place} must have shape {list(places[place].shape)}, got {shape}")
        source.targets[name] = place
    return list({id(source): source for source, _, _ in found.values()}.values())


def _collect(model: Any, stored: Iterable[str], places: dict[str, Tensor]) -> list[Source]:
    """Which stored tensors become which of `places`, as `from_pretrained` finds it out."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    rules, prefix = get_model_conversion_mapping(model), model.base_model_prefix
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    converter_of = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    sources: dict[str, Source] = {}
    for name in sorted(stored, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, prefix, places)
        if target not in places and name in places:
            target, pattern = name, None
        if target not in places:
            continue
        dtype = places[target].dtype
        if pattern is None:  # the first of several names of one tensor
            sources.setdefault(target, Source(target, dtype, [(name, name)]))
        else:
            made = Source(target, dtype, converter=converter_of[pattern])
            sources.setdefault(target, made).stored.append((pattern, name))
    return list(sources.values())
