"""Reading what others pickled, without ever running it.

Checkpoints are opened by `torch.load(weights_only=True)`; its unpickler builds tensors and plain containers. Configuration
objects are let through by name: what is built in their place is an ordered dictionary, and nothing is ever
imported. The same names are let through in YAML with Python tags. Anything else is refused.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.limits import BoundedLoader, Budget, check_unpacked, read_short, yaml_problem
from scorefield.foundation.pickles import NUMPY, Array, Named, Number, check_pickle, unpickle

VALUES = 200_000  # of a checkpoint, containers included
ARCHIVE = b"PK\x03\x04"
LEGACY = 5  # pickles at the start of a file that torch wrote before it wrote archives
HUGE = 1024  # bits of a whole number


def _content(record: OrderedDict[Any, Any]) -> dict[Any, Any] | Any:
    """What a stand-in of a configuration object holds, in its items or in one of the fields of its state."""
    state = vars(record)
    for field in ("_map", "_fields", "_value"):  # DotMap, ConfigDict, FieldReference
        if field in state:
            return state[field]
    return dict(OrderedDict.items(record)) or dict(state)


CONFIGURATIONS = (
    "argparse.Namespace", "dotmap.DotMap", "dotmap.dotmap.DotMap", "easydict.EasyDict",
    "ml_collections.config_dict.config_dict.ConfigDict", "ml_collections.config_dict.config_dict.FieldReference",
    "ml_collections.config_dict.config_dict.FrozenConfigDict", "ml_collections.config_dict.ConfigDict",
    "types.SimpleNamespace",
)  # fmt: skip
TYPES = ("bool", "bytes", "dict", "float", "int", "list", "long", "object", "str", "tuple", "unicode", "NoneType")
STANDINS: dict[str, Any] = {
    **dict.fromkeys(CONFIGURATIONS, OrderedDict),
    **{f"{module}.{name}": Named for name in TYPES for module in ("builtins", "__builtin__")},
    **NUMPY,
}
PICKLED: dict[str, Any] = {  # in pickles that torch does not read
    **STANDINS,
    "collections.OrderedDict": OrderedDict,
    **{f"{module}._reconstructor": lambda standin, *_: standin() for module in ("copyreg", "copy_reg")},
    "torch.device": lambda *parts: ":".join(str(part) for part in parts),
}


# ---------------------------------------------------------------------------------------------------------- checkpoints
def read_checkpoint(path: Path) -> Any:
    """What a file of `torch.save` holds, as dictionaries, lists, numbers, strings and tensors.

    Raises:
        InputError: there is no such file, it is no checkpoint, or it needs code to be run.
    """
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path}.")
    try:
        _check_pickles(path)
        with torch.serialization.safe_globals([(standin, name) for name, standin in STANDINS.items()]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        return plain(content, Budget("its content", VALUES))
    except Exception as error:  # whatever a damaged file raises
        raise InputError(f"{path} cannot be read safely: {failure(error)}.") from error


def _check_pickles(path: Path) -> None:
    """Refuse a file of `torch.save` that claims more than it holds, or whose pickles are nested too deeply."""
    with path.open("rb") as file:
        if file.read(4) != ARCHIVE:  # as torch decides
            file.seek(0)
            for _ in range(LEGACY):
                check_pickle(file)
            return
    with zipfile.ZipFile(path) as archive:
        check_unpacked(archive.infolist(), path.stat().st_size, "it", most=4)  # torch does not deflate
        for member in archive.infolist():
            if member.filename.endswith("data.pkl"):
                check_pickle(io.BytesIO(archive.read(member)))


def failure(error: Exception) -> str:
    """What a pickle asks for, or what else is wrong with the file."""
    if isinstance(error, InputError):
        return str(error).rstrip(".")
    text = " ".join(str(error).split())
    if found := re.search(r"GLOBAL ([\w.]+)|(?:Unsupported class|function) ([\w.]+)", text):
        name = found[1] or found[2]
        return f"it asks for {name} to be called, and pickled code is not run (save it again with tensors and numbers alone)"
    return f"it is no checkpoint, or damaged ({brief(text.rpartition('WeightsUnpickler error: ')[2])})"


# -------------------------------------------------------------------------------------------------------- configurations
def read_config(path: Path) -> dict[str, Any]:
    """A configuration in JSON, in YAML, also with the tags of Python's objects, or pickled.

    Raises:
        InputError: there is no such file, it holds no mapping, or it needs code to be run.
    """
    if not path.is_file():
        raise InputError(f"There is no configuration {path}.")
    with path.open("rb") as file:
        if file.read(4) == ARCHIVE:
            return _mapping(read_checkpoint(path), path)
    data = read_short(path)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return _mapping(_unpickle(path, data), path)
    return _mapping(_parse(path, text), path)


def _mapping(content: Any, path: Path) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no configuration: give JSON or YAML, such as config.to_json() writes.")
    return content


def _unpickle(path: Path, data: bytes) -> Any:
    try:
        return plain(unpickle(data, PICKLED), Budget("its content"))
    except Exception as error:  # whatever a damaged file raises
        raise InputError(f"{path} cannot be read safely: {failure(error)}.") from error


class _Loader(BoundedLoader):
    """YAML with the tags of configuration objects, which become dictionaries."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse to merge mappings: what is merged doubles with each, and no program writes it."""
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise InputError("merges mappings by <<, which is not read")

    def tuple(self, node: yaml.Node) -> Any:
        return self.construct_sequence(node, deep=True)  # type: ignore[arg-type]

    def text(self, node: yaml.Node) -> Any:
        return yaml.load(str(self.construct_scalar(node)), Loader=BoundedLoader)  # type: ignore[arg-type]

    def name(self, suffix: str, node: yaml.Node) -> str:
        return suffix

    def instance(self, suffix: str, node: yaml.Node) -> Any:
        """An object by its class and the content of its node, which is data."""
        name = suffix.split(":", 1)[-1]
        value: Any
        if isinstance(node, yaml.MappingNode):
            value = self.construct_mapping(node, deep=True)
        else:
            value = self.construct_sequence(node, deep=True)  # type: ignore[arg-type]
        if name == "torch.device":
            return ":".join(str(part) for part in value)
        if name == "collections.OrderedDict":
            return dict(value[0]) if isinstance(value, list) and value else dict(value)
        if name not in CONFIGURATIONS:
            raise InputError(f"asks for {name}, and code in YAML is not run")
        if not isinstance(value, dict):
            return None
        new = suffix.startswith("/")  # python/object/new:NAME, where the state is one entry of several
        record = OrderedDict(value.get("dictitems") or {} if new else {})
        vars(record).update(value.get("state") or {} if new else value)
        return record


PYTHON = "tag:yaml.org,2002:python/"
_Loader.add_constructor(PYTHON + "tuple", _Loader.tuple)
for _tag in ("str", "unicode", "none", "bytes", "bool", "int", "long", "float"):
    _Loader.add_constructor(PYTHON + _tag, _Loader.text)
_Loader.add_multi_constructor(PYTHON + "name:", _Loader.name)
_Loader.add_multi_constructor(PYTHON + "object", _Loader.instance)


def _parse(path: Path, text: str) -> Any:
    try:
        return plain(
            json.loads(text) if text.lstrip().startswith("{") else yaml.load(text, Loader=_Loader), Budget("it")
        )
    except InputError as error:
        raise InputError(f"{path} cannot be read safely: {failure(error)}.") from error
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is neither JSON nor YAML that can be read safely: {yaml_problem(error)}.") from error


# ---------------------------------------------------------------------------------------------------------------- common
def plain(value: Any, budget: Budget, depth: int = 0) -> Any:
    """Containers and stand-ins as dictionaries and lists; anything else that is no data is left out as None.

    Raises:
        InputError: more or deeper values than the budget has, and tensors that claim more numbers than are stored.
    """
    budget.spend(depth)
    if isinstance(value, Number | Array):
        content = value.content()
        budget.spend(depth, content.size if isinstance(content, np.ndarray) else 0)
        return content.tolist() if isinstance(content, np.ndarray) else content
    if isinstance(value, OrderedDict):
        return plain(_content(value), budget, depth + 1)
    if isinstance(value, Mapping):
        return {key: plain(entry, budget, depth + 1) for key, entry in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(entry, budget, depth + 1) for entry in value]
    if isinstance(value, Tensor):
        return stored(value)
    if isinstance(value, int) and value.bit_length() > HUGE:
        raise InputError(f"a whole number of {value.bit_length()} bits is no setting")
    return value if isinstance(value, bool | int | float | str | type(None)) else None


def stored(tensor: Tensor) -> Tensor:
    """A tensor whose numbers are all in the file: a single one can be said to be as many as one likes."""
    whole = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not whole or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f"a tensor of shape {tuple(tensor.shape)} is not stored number by number")
    return tensor


class Settings:
    """A nested configuration by dotted keys; a key that is missing is named.

    Args:
        content: nested dictionaries.
        origin: where they come from, for messages.
    """

    def __init__(self, content: Mapping[str, Any], origin: str) -> None:
        self.content, self.origin = content, origin

    def get(self, *keys: str, default: Any = None) -> Any:
        """The value of the first of the keys that there is."""
        for key in keys:
            value: Any = self.content
            for part in key.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None and value != {}:  # a DotMap makes an empty one of any key that is asked for
                return value
        return default

    def __getitem__(self, key: str) -> Any:
        return self.first(key)

    def first(self, *keys: str) -> Any:
        """The value of the first of the keys that there is, which must be one."""
        value = self.get(*keys)
        if value is None:
            raise InputError(f"{self.origin} lacks {' or '.join(keys)}: give the original program's own with --config.")
        return value

    def number(self, *keys: str) -> float:
        """A finite number."""
        value = self.first(*keys)
        while isinstance(value, list) and len(value) == 1:
            value = value[0]
        try:
            number = float(value)  # type: ignore[arg-type] - what is no number raises
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InputError(f"{self.origin}: {keys[0]} is {value}, which is no number.")
        return number

    def word(self, *keys: str) -> str:
        """A word in lower case."""
        return str(self.first(*keys)).lower()

    def flag(self, *keys: str) -> bool:
        """Whether something is on; what is not mentioned is off."""
        return bool(self.get(*keys, default=False))
