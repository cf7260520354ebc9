"""Settings from files and from the command line, as nested mappings; no decisions here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from forensics.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-4 for a word; nobody else does. A key given twice is refused: PyYAML would
    take the last one in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{name} twice", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver(  # pyright: ignore[reportUnknownMemberType]
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def read_yaml(file: Path) -> dict[str, Any]:
    """The keys of a YAML file. Raises ConfigError naming it when it holds anything else."""
    try:
        return parse_yaml(file.read_text(encoding="utf-8"), str(file))
    except OSError as error:
        raise ConfigError(f"{file}: the configuration cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not valid YAML: {error}") from error


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """The keys of a YAML text; `source` goes into errors."""
    try:
        content: object = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from error
    if content is None:  # an empty file: all defaults
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{source}: expected settings as `key: value`, one per line")
    return {str(key): value for key, value in cast("dict[object, object]", content).items()}


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `overrides`, key by key; None there means: not given."""
    result = dict(base)
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            below = merged(result.get(key) or {}, cast("Mapping[str, Any]", value))
            if below:
                result[key] = below
        elif value is not None:
            result[key] = value
    return result


def with_settings(base: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`base` changed by `KEY.KEY=VALUE` of each `--set`; VALUE is YAML, `null` included."""
    result = dict(base)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not all(path.split(".")):
            raise ConfigError(f"--set {setting}: expected KEY=VALUE, such as optimizer.lr=1e-4")
        try:
            value: object = yaml.load(text, _Loader)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting}: the value is not valid YAML") from error
        _put(result, path.split("."), value)
    return result


def _put(mapping: dict[str, Any], path: Sequence[str], value: object) -> None:
    if len(path) == 1:
        mapping[path[0]] = value
        return
    below: object = mapping.get(path[0])
    inner = dict(cast("Mapping[str, Any]", below)) if isinstance(below, Mapping) else {}
    _put(inner, path[1:], value)
    mapping[path[0]] = inner
