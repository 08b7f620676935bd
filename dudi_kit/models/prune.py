"""A smaller model cut from a bigger one: some of its layers, and some rows of its embeddings. Nothing is trained.

What goes where is decided on models without memory (`device="meta"`), from the configuration alone; the weights are
then read one by one from the safetensors files, so that a large model is never held whole.
"""

import copy
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from dudi_kit.errors import EnvironmentLack, ModelError

UNCUT = ("num_kv_shared_layers", "first_k_dense_replace", "vocab_size_per_layer_input")
"""Settings that tie a layer to its place, or pieces to a layer: such a model is another one when it is cut."""

TEXT_PART = "language_model."
"""Part of the names of a text model's weights in a checkpoint that reads pictures as well."""

KEY = "cut.sha256"
"""File in the smaller model's folder."""


class Cut(NamedTuple):
    """What stays of a model."""

    layers: tuple[int, ...]
    """Ascending, from 0."""

    rows: tuple[int, ...] | None
    """Rows of the embeddings, ascending; None: all."""


class Taken(NamedTuple):
    """Where a weight of the smaller model comes from."""

    name: str
    """In the whole model."""

    rows: bool
    """Only the rows that stay."""


def chosen_layers(wish: str | int | Sequence[int], count: int) -> tuple[int, ...]:
    """The layers that stay of `count`: `all`, a list, or a number of evenly spaced ones, the first and last among them.

    ModelError: there are not as many.
    """
    if isinstance(wish, str):
        return tuple(range(count))
    if isinstance(wish, int):
        if wish > count:
            raise ModelError(f"student.layers: {wish} layers are to stay, and the model has {count}. Lower it.")
        return tuple((2 * i * (count - 1) + wish - 1) // (2 * (wish - 1)) for i in range(wish)) if wish > 1 else (0,)
    if beyond := [layer for layer in wish if layer >= count]:
        raise ModelError(
            f"student.layers: there is no layer {beyond[0]}: the model has {count}, numbered 0 to {count - 1}."
        )
    return tuple(wish)


def cut_config(config: PreTrainedConfig, cut: Cut) -> PreTrainedConfig:
    """The configuration of the smaller model. What a list says of each layer (`layer_types`) goes with the layers.

    ModelError: a model of this kind can't be cut so.
    """
    made = copy.deepcopy(config)
    count = config.num_hidden_layers
    whole = cut.layers == tuple(range(count)) and cut.rows is None
    if not whole and (name := next((name for name in UNCUT if getattr(config, name, None)), None)):
        raise ModelError(
            f"student.init: prune: a {config.model_type} model can't be cut: its {name} is {getattr(config, name)}. "
            "Choose another model, or init: pretrained."
        )
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == count and not name.endswith(("_token_id", "architectures")):
            setattr(made, name, [value[layer] for layer in cut.layers])
    made.num_hidden_layers = len(cut.layers)
    if cut.rows is not None:
        new = {old: i for i, old in enumerate(cut.rows)}
        for name, value in config.to_dict().items():
            if name.endswith(("_token_id", "_token_index")):
                setattr(made, name, _renumbered(value, new))
        made.vocab_size = len(cut.rows)
    return made


def _renumbered(piece: Any, new: Mapping[int, int]) -> Any:
    """A special piece's new id, or those of several; None where it is gone."""
    if isinstance(piece, list):
        return [new[one] for one in piece if one in new] or None
    return new.get(piece)


def taken(config: PreTrainedConfig, cut: Cut) -> dict[str, Taken]:
    """Weight of the smaller model → where it comes from. ModelError: they do not fit each other."""
    with torch.device("meta"):
        whole, small = (AutoModelForCausalLM.from_config(c) for c in (config, cut_config(config, cut)))
    stack = _stack(whole, config.num_hidden_layers)
    by_piece = _embeddings(whole) if cut.rows is not None else frozenset()
    theirs, ours = _weights(whole), _weights(small)
    found = {name: Taken(_above(name, stack, cut.layers), name in by_piece) for name in ours}
    for name, source in found.items():
        shape = list(theirs[source.name].shape) if source.name in theirs else None
        if shape is not None and source.rows and cut.rows is not None:
            shape[0] = len(cut.rows)
        if shape != list(ours[name].shape):
            raise ModelError(
                f"student.init: prune: a {config.model_type} model can't be cut so: {name} would be "
                f"{list(ours[name].shape)}, and {source.name} gives {shape}. Set layers: all or vocabulary: all."
            )
    return found


def _stack(model: nn.Module, count: int) -> str:
    """Beginning of the names of all layers."""
    stacks = [
        name for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not stacks:
        raise ModelError(f"student.init: prune: no stack of {count} layers was found in a {type(model).__name__}.")
    return f"{stacks[0]}."


def _above(name: str, stack: str, layers: Sequence[int]) -> str:
    """The name in the whole model: layer i was layer layers[i]."""
    if not name.startswith(stack):
        return name
    number, _, rest = name.removeprefix(stack).partition(".")
    return f"{stack}{layers[int(number)]}.{rest}"


def _embeddings(model: PreTrainedModel) -> frozenset[str]:
    """Weights that have a row for each piece."""
    owners = [owner for owner in (model.get_input_embeddings(), model.get_output_embeddings()) if owner is not None]
    ours = {id(parameter) for owner in owners for parameter in owner.parameters()}
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in ours)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint holds: parameters, tied ones once, and buffers."""
    parameters = dict(model.named_parameters())
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - parameters.keys()
    return {name: tensor for name, tensor in model.state_dict().items() if name not in tied}


class Lazy(Mapping[str, Tensor]):
    """The weights in a folder's safetensors files, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, tuple[Path, str]] = {}
        for file in sorted(folder.glob("*.safetensors")):
            with safe_open(file, framework="pt") as weights:
                self._places |= {name.replace(TEXT_PART, ""): (file, name) for name in weights.keys()}  # noqa: SIM118

    def __getitem__(self, name: str) -> Tensor:
        file, written = self._places[name]
        with safe_open(file, framework="pt") as weights:
            tensor: Tensor = weights.get_tensor(written)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def cut_weights(
    config: PreTrainedConfig, cut: Cut, lazy: Mapping[str, Tensor], load: Callable[[], PreTrainedModel]
) -> dict[str, Tensor]:
    """The weights of the smaller model, by name, in the precision that they had.

    lazy: the whole model's weights. load: the whole model, for checkpoints that name their weights in another way than
    the model does (a GGUF file, fused experts).
    """
    needed = taken(config, cut)
    source = lazy if all(where.name in lazy for where in needed.values()) else load().state_dict()
    rows = torch.tensor(cut.rows) if cut.rows is not None else None
    return {
        name: source[where.name][rows] if where.rows and rows is not None else source[where.name].clone()
        for name, where in needed.items()
    }


def write_folder(
    folder: Path, config: PreTrainedConfig, tensors: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase, key: str
) -> None:
    """Write a transformers folder aside and put it in place, so that it is there whole or not at all.

    config: of this very model. key: tells by what it was made (`made_by`). EnvironmentLack: it can't be written.
    """
    made = copy.deepcopy(config)
    made.architectures = [type(_shell(made)).__name__]
    made.dtype = next(iter(tensors.values())).dtype
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        made.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / KEY).write_text(key, encoding="utf-8")
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:  # the latter is what a full disk raises in safetensors
        raise EnvironmentLack(f"can't write {folder}: {getattr(error, 'strerror', None) or error}.") from error


def made_by(folder: Path) -> str | None:
    """The key with which a folder was written; None where there is none."""
    try:
        return (folder / KEY).read_text(encoding="utf-8")
    except OSError:
        return None


def _shell(config: PreTrainedConfig) -> PreTrainedModel:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)
