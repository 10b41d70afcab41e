"""Memory of what Hydra does again and again with the same files: a command composes its configuration three times, and
most commands of the suite compose what others have composed before.

What comes of it is the same, see test_quick_hydra.py.
"""

from __future__ import annotations

import copy
import io
import os
import pickle
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache, partial, wraps
from pathlib import Path
from typing import Any

import omegaconf.base
import yaml
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.utils import JobRuntime
from omegaconf import grammar_parser

MOST = 1000
"""Texts, and configurations, that are remembered."""


def do_once(conf: Path) -> None:
    """From now on, in this process, a text is parsed once and a configuration of the folder `conf` composed once."""
    yaml.load = _remembering(yaml.load)
    # trees are read and never changed; errors are not remembered
    omegaconf.base.parse = omegaconf._utils.parse = lru_cache(MOST)(grammar_parser.parse)
    defaults_list._create_interpolation_map = _for_interpolations(defaults_list._create_interpolation_map)
    of_conf = conf.resolve()
    config_loader_impl.create_defaults_list = _choosing(defaults_list.create_defaults_list, of_conf)
    ConfigLoaderImpl._compose_config_from_defaults_list = _merging(
        ConfigLoaderImpl._compose_config_from_defaults_list, of_conf
    )
    ConfigLoaderImpl._load_configuration_impl = _composing(ConfigLoaderImpl._load_configuration_impl, of_conf)


class _Named(io.StringIO):
    """A text with the name of the file that it was read from, which errors of YAML tell."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


def _remembering(load: Any) -> Any:
    """`yaml.load` that gives what a text holds anew each time; errors are not remembered."""
    known: dict[tuple[str, str], bytes] = {}

    @wraps(load)
    def remembering(stream: Any, Loader: Any) -> Any:
        name = getattr(stream, "name", None)
        text = stream.read() if hasattr(stream, "read") else stream
        if not isinstance(text, str):
            return load(text, Loader)
        key = f"{Loader.__module__}.{Loader.__qualname__}", text
        if key not in known:
            found = load(text if name is None else _Named(text, name), Loader)
            if len(known) < MOST:
                with suppress(RecursionError):  # nested deeply on purpose
                    known[key] = pickle.dumps(found)
            return found
        return pickle.loads(known[key])

    return remembering


def _for_interpolations(create: Any) -> Any:
    """The map of choices, which only entries of a defaults list that name another choice read."""

    @wraps(create)
    def created(overrides: Any, entries: Any, self_added: bool) -> Any:
        return create(overrides, entries, self_added) if any(entry.is_interpolation() for entry in entries) else None

    return created


def _choosing(create: Any, conf: Path) -> Any:
    """The list of files that the choices of a command line come to; its values, which choose none, are put in anew."""
    known: dict[Any, Callable[[], Any]] = {}  # errors are not remembered

    def sets_values(repo: Any, override: Any) -> bool:
        return isinstance(override.value(), dict) or not repo.group_exists(override.key_or_group)

    @wraps(create)
    def created(repo: Any, config_name: Any, overrides_list: list[Any], prepend_hydra: bool, skip_missing: bool) -> Any:
        if not _are_of(conf, _folders(repo), (override.input_line for override in overrides_list)):
            return create(repo, config_name, overrides_list, prepend_hydra, skip_missing)
        single = [override for override in overrides_list if not override.is_sweep_override()]
        values = [override for override in single if sets_values(repo, override)]
        choices = [override for override in single if override not in values]
        texts = [override.input_line for override in choices]
        key = config_name, tuple(texts), prepend_hydra, skip_missing
        if key not in known:
            known[key] = _anew(create(repo, config_name, choices, prepend_hydra, skip_missing))
        found = known[key]()
        found.config_overrides.extend(values)
        return found

    return created


def _merging(merge: Any, conf: Path) -> Any:
    """What a list of files of `conf` alone comes to, before a command line's values."""
    known: dict[Any, Callable[[], Any]] = {}

    @wraps(merge)
    def merged(loader: Any, defaults: list[Any], repo: Any) -> Any:
        if not _are_of(conf, _folders(repo), (str(default.config_path) for default in defaults)):
            return merge(loader, defaults, repo)
        key = pickle.dumps(defaults)
        if key not in known:
            known[key] = _anew(merge(loader, defaults, repo))
        return known[key]()

    return merged


def _anew(found: Any) -> Callable[[], Any]:
    """What gives copies of something, as it is now."""
    try:
        pickled = pickle.dumps(found)
    except pickle.PicklingError:  # a test has loaded a module of Hydra's a second time
        return partial(copy.deepcopy, copy.deepcopy(found))
    return partial(pickle.loads, pickled)


def _folders(repo: Any) -> list[str]:
    """Folders that a repository reads; Hydra's own files lie in packages."""
    return [source.path for source in repo.get_sources() if source.scheme() == "file"]


def _are_of(conf: Path, folders: Iterable[str], paths: Iterable[str]) -> bool:
    """Whether `conf` is the only folder that is composed of; paths may lead out of it."""
    return all(Path(folder).resolve() == conf for folder in folders) and not any(".." in path for path in paths)


def _composing(compose: Any, conf: Path) -> Any:
    """Hydra's composition that remembers what it made of files of `conf` alone, which no test changes."""
    known: dict[Any, tuple[Callable[[], Any], bool]] = {}

    @wraps(compose)
    def composed(
        loader: Any,
        config_name: Any,
        overrides: list[str],
        run_mode: Any,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> Any:
        entries = [(entry.provider, entry.path) for entry in loader.config_search_path.get_path()]
        folders = [path.removeprefix("file://") for _, path in entries if path.startswith("file://")]
        key = tuple(entries), config_name, tuple(overrides), run_mode, validate_sweep_overrides
        if key in known:
            anew, is_named = known[key]
            config = anew()
            config._metadata.resolver_cache.clear()  # of now
            config.hydra.runtime.cwd = os.getcwd()
            if not is_named:
                config.hydra.job.name = _job_name()
            return config
        config = compose(loader, config_name, overrides, run_mode, from_shell, validate_sweep_overrides)
        elsewhere = any("searchpath" in override for override in overrides)
        if _are_of(conf, folders, overrides) and not elsewhere and not config.hydra.job.env_copy and len(known) < MOST:
            is_named = config.hydra.job.name != _job_name() or any("job" in override for override in overrides)
            known[key] = _anew(config), is_named
        return config

    return composed


def _job_name() -> str:
    return str(JobRuntime.instance().get("name"))
