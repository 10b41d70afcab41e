"""Run inside somebody else's process: composed and run as a command is, and the process left as it was."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from threading import RLock
from typing import Any

from omegaconf import OmegaConf, open_dict

from twinlens import train as entry
from twinlens.attribution.errors import UserError
from twinlens.callbacks.fit.stage import n_processes
from twinlens.callbacks.passes.memory import is_out_of_memory
from twinlens.callbacks.processes.terminal import notebook_bars
from twinlens.callbacks.run.folder_lock import release
from twinlens.callbacks.run.quiet_libraries import quiet_libraries
from twinlens.callbacks.run.run_outcome import OUT_OF_MEMORY
from twinlens.callbacks.store.failures import chain_of, writing
from twinlens.caller_state import as_it_was, usual_tensors, with_gradients
from twinlens.conf.checking.checks import check_command_line
from twinlens.conf.checking.config_sources import compose, parse_typed
from twinlens.conf.checking.plain_values import without_hydra
from twinlens.method_names import node_of

_ONE_AT_A_TIME = RLock()
"""Of several threads: what a run prints, and what it sets in the process, is its own."""
DEVICES = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}
"""Kind of a torch device → Lightning's word for it."""


def run_here(
    overrides: Sequence[str],
    methods: Mapping[str, Any],
    settings: Mapping[str, Any] | Sequence[str],
    folder: Path,
    quiet: bool,
    bars: bool = False,
) -> str:
    """Compose, check and run what a command line would; what it printed.

    Args:
        overrides: arguments of the command.
        methods: by name: names of `conf/method/`, or configured methods.
        settings: further arguments, as text or by key.
        folder: of the run.
        quiet: whether nothing is printed.
        bars: whether every pass shows a moving bar of a notebook.

    Raises:
        UserError: anything the caller can mend.
    """
    more = [override(key, value) for key, value in settings.items()] if isinstance(settings, Mapping) else settings
    shipped = [name for name, method in methods.items() if method == name]
    arguments = [*overrides, f"method=[{','.join(shipped)}]", *more]
    told = io.StringIO()
    shown = notebook_bars() if bars else nullcontext()
    with (
        _ONE_AT_A_TIME,
        as_it_was(),
        with_gradients(),
        usual_tensors(),
        redirect_stdout(told) if quiet else nullcontext(),
        shown,
    ):
        quiet_libraries()
        check_command_line(arguments, entry.CONFIG_DIR, compose, parse_typed)
        config = without_hydra(compose(entry.CONFIG_DIR, "train", list(arguments)))
        _require_one_look(config)
        with open_dict(config):
            for name, method in methods.items():
                if method != name:
                    OmegaConf.update(config, f"method.{name}", node_of(method), force_add=True)
        try:
            with writing(folder, "folder"):
                entry.train(config, folder, list(arguments))
        except UserError:
            raise
        except Exception as error:
            if any(map(is_out_of_memory, chain_of(error))):
                raise UserError(OUT_OF_MEMORY) from error
            raise
        finally:
            release(folder)
    return told.getvalue()


def _require_one_look(config: Any) -> None:
    """Refuse what would train the caller's model, or run the caller's script again.

    Raises:
        UserError: naming the setting.
    """
    if config.fit:
        raise UserError(
            "the settings turn fit on, and explain explains a model as it is; expected fit=false: train the model "
            "first, or run the command."
        )
    if (n := n_processes(config.trainer)) > 1:
        raise UserError(
            f"the settings of the trainer ask for {n} processes, each of which would run the calling script from its "
            "beginning; expected one: leave trainer.devices and trainer.num_nodes out, or run the command."
        )


def override(key: str, value: Any, quoted: bool = True) -> str:
    """One argument of a command line.

    Args:
        key: of the configuration.
        value: text, number, yes or no, None, a list or a dict of these.
        quoted: whether a text stands between quotes, so that nothing in it is grammar.
    """
    return f"{key}={_written(value) if quoted else value}"


def _written(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(_written, value)) + "]"
    text = str(value).replace("'", "\\'")
    trailing = len(text) - len(text.rstrip("\\"))
    return f"'{text}{chr(92) * trailing}'"
