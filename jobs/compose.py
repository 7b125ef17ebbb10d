"""Hydra lives and ends here: a command's root file in `conf/`, its groups and what was typed, as plain values."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple, cast

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jobs.words import Words, nearest
from pipeline.errors import ConfigError

MISSING = "???"
INSTEAD = {  # a key -> the one that says it to commands without its group
    "parallel": "tp",
    "parallel.tp": "tp",
    "parallel.groups": "gpus",
    "parallel.enlarging_groups": "gpus",
    "cluster.num_encoders": "encoders",
    "cluster.num_finishers": "finishers",
}
Values = dict[str, Any]


class Group(NamedTuple):
    """A folder of `conf/`: the file that is taken when nothing is typed, and all there are."""

    chosen: str
    names: list[str]


def compose_values(root: str, words: Words, *, positional: Collection[str] = ()) -> Values:
    """All values of a command. Raises ConfigError for keys and choices that do not exist, and for what is missing."""
    _, groups = defaults(root)
    choices = {key: str(value) for key, value in words.values.items() if key in groups}
    for group, choice in choices.items():
        if choice not in groups[group].names:
            raise ConfigError(f"{group}={choice} is none of its choices: {', '.join(groups[group].names)}")
    with initialize_config_module("conf", version_base=None):
        config = compose(root, [f"{group}={choice}" for group, choice in choices.items()])
    known = [*leaves(_plain(config)), *_tables(_plain(config)), *groups]
    _check_keys(root, typed=[*words.texts, *leaves(words.values)], known=known)
    values = _updated(config, {key: value for key, value in words.values.items() if key not in choices})
    missing = [key for key, value in values.items() if value == MISSING and key not in words.texts]
    if missing:
        named = (key.upper() if key in positional else f"{key}=..." for key in missing)
        raise ConfigError(f"{root} needs {' and '.join(named)}")
    return values | words.texts


def defaults(root: str) -> tuple[Values, dict[str, Group]]:
    """A command's values when nothing is typed, and its groups."""
    with initialize_config_module("conf", version_base=None):
        chosen = compose(root, return_hydra_config=True).hydra.runtime.choices
        loader = GlobalHydra.instance().config_loader()
        groups = {
            group: Group(chosen[group], loader.get_group_options(group, ObjectType.CONFIG))
            for group in loader.list_groups("")
            if group in chosen
        }
        return _plain(compose(root)), groups


def leaves(values: Mapping[str, Any], prefix: str = "") -> Values:
    """Dotted key -> value. A value left open is `???`."""
    found: Values = {}
    for key, value in values.items():
        found |= leaves(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _tables(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of the tables inside the groups, which may be given whole: model.sampling={steps:8}."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            if prefix:
                yield f"{prefix}{key}"
            yield from _tables(value, f"{prefix}{key}.")


def _check_keys(root: str, *, typed: list[str], known: list[str]) -> None:
    unknown = [key for key in typed if key not in known]
    if unknown:
        lines = [f"unknown key {key}{_meant(root, key, known)}" for key in unknown]
        raise ConfigError("\n".join([*lines, f"(`happyhorse {root} --help` lists them all)"]))


def _meant(root: str, key: str, known: list[str]) -> str:
    instead = INSTEAD.get(key)
    if instead in known:
        shares = " and shares them out to groups itself" if instead == "gpus" else ""
        return f"; {root} takes {instead}=N{shares}"
    near = nearest(key, known)
    return f"; the nearest known one is {near}" if near else ""


def _updated(config: DictConfig, values: Values) -> Values:
    try:
        for key, value in values.items():
            OmegaConf.update(config, key, value)
        return _plain(config, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{', '.join(values)}: {error}") from error


def _plain(config: DictConfig, *, resolve: bool = False) -> Values:
    return cast(Values, OmegaConf.to_container(config, resolve=resolve))
