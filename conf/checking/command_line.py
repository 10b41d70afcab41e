"""Command line as the user typed it: Hydra's options and the overrides, read without starting Hydra."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.annotations import record_fields
from twinlens.conf.checking.config_folders import ConfigTree
from twinlens.conf.checking.suggestions import nearest
from twinlens.conf.checking.top_level import RunConfig

_HYPHENS = re.compile(r"--(([\w./@]+)=.*)", re.DOTALL)


@dataclass(frozen=True)
class CommandLine:
    """A parsed command line.

    Attributes:
        overrides: `key=value` arguments in the order typed.
        multirun: `-m` was given.
        informational: Hydra only prints something about itself and composes nothing.
        primary: name of the configuration to start from.
        tree: folders that configuration files are read from.
        project: the project's own configuration folder.
        typed: the whole command line, settings without hyphens.
        options: Hydra's options alone, values joined to their names.
        places: outputs and store where a file from elsewhere names others, as overrides that put them back.
    """

    overrides: list[str]
    multirun: bool
    informational: bool
    primary: str
    tree: ConfigTree
    project: Path
    typed: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    places: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """What Hydra is to read: the command line as typed, with `places` where there are any."""
        return [*self.options, *self.overrides, *self.places] if self.places else list(self.typed)

    @property
    def prints(self) -> bool:
        """Whether Hydra only prints a configuration or help."""
        printing = ("--help", "--hydra-help", "--cfg", "--info", "--version", "--shell-completion")
        return any(option.split("=")[0] in printing for option in self.options)

    @property
    def is_foreign(self) -> bool:
        """Whether any file from outside the project's own folder may have a part in the configuration."""
        return any(folder != self.project for folder in self.tree.folders)

    @property
    def home(self) -> Path:
        """The folder that holds the primary configuration."""
        home = self.tree.home_of(self.primary)
        if home is None:
            near = nearest(self.primary, self.tree.primaries())
            raise UserError(
                f"--config-name {self.primary}: there is no {self.primary}.yaml in "
                f"{' or '.join(str(folder) for folder in self.tree.folders)}; "
                + (f"did you mean {near!r}?" if near else "give --config-dir the folder that holds it.")
            )
        return home

    @property
    def is_replay(self) -> bool:
        """True where the run starts from a file outside the project's own configuration folder."""
        return self.home != self.tree.folders[0]


def parse_command_line(arguments: Sequence[str], config_dir: Path, primary: str = "train") -> CommandLine:
    """Read Hydra's options and the overrides from `arguments` (`sys.argv[1:]`).

    Raises:
        UserError: for an unknown option, a missing value of one, a folder that does not exist.
    """
    arguments = without_hyphens(arguments, ConfigTree((config_dir,)))
    options = _parser().parse_args(arguments)
    if options.experimental_rerun is not None:
        raise UserError(
            "--experimental-rerun opens a pickle, which can run any code; repeat a run with "
            "--config-dir RUN --config-name config instead."
        )
    main = (config_dir / options.config_path) if options.config_path else config_dir
    folders = [_folder(main, "--config-path")]
    if options.config_dir:
        folders.append(_folder(Path(options.config_dir), "--config-dir"))
    return CommandLine(
        overrides=list(options.overrides),
        multirun=options.multirun,
        informational=options.hydra_help or options.version or options.shell_completion,
        primary=(options.config_name or primary).removesuffix(".yaml"),
        tree=ConfigTree(tuple(folders)),
        project=config_dir.resolve(),
        typed=tuple(arguments),
        options=tuple(_as_typed(options)),
    )


def without_hyphens(arguments: Sequence[str], tree: ConfigTree) -> list[str]:
    """Arguments with `--KEY=VALUE` as `KEY=VALUE`, as an agent of Weights & Biases writes settings; options stay.

    Args:
        arguments: as typed.
        tree: the project's configuration folder. What begins with the name of a group or of a key at the top level
            is a setting.
    """
    keys = {*tree.groups(), *record_fields(RunConfig)}
    return [
        found[1] if (found := _HYPHENS.fullmatch(argument)) and re.split(r"[./@]", found[2])[0] in keys else argument
        for argument in arguments
    ]


def _as_typed(options: argparse.Namespace) -> Iterator[str]:
    for name, value in vars(options).items():
        if name != "overrides" and value not in (None, False):
            option = "--" + name.replace("_", "-")
            yield option if value is True else f"{option}={value}"


def _folder(path: Path, option: str) -> Path:
    if not path.is_dir():
        raise UserError(f"{option} {path}: there is no such folder; expected a folder that holds YAML configurations.")
    return path.resolve()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        unknown = re.search(r"unrecognized arguments: (\S+)", message)
        if unknown is None:
            raise UserError(f"command line: {message}; `python train.py --hydra-help` lists the options.")
        name = unknown[1]
        if not name.startswith("-"):
            raise UserError(f"command line: {name!r} stands after an option; put all key=value arguments side by side.")
        near = nearest(name, [option for action in self._actions for option in action.option_strings])
        if "=" in name and near is None:
            raise UserError(f"unknown option {name!r}: settings are given without dashes; write {name.lstrip('-')}.")
        meant = f"did you mean {near}?" if near else "`python train.py --hydra-help` lists the options."
        raise UserError(f"unknown option {name!r}; {meant}")


def _parser() -> argparse.ArgumentParser:
    """Hydra's own options; the names and arities are those of hydra-core 1.3."""
    parser = _Parser(add_help=False)
    parser.add_argument("overrides", nargs="*")
    for names in (
        ("--help", "-h"),
        ("--hydra-help",),
        ("--version",),
        ("--resolve",),
        ("--run", "-r"),
        ("--multirun", "-m"),
        ("--shell-completion", "-sc"),
    ):
        parser.add_argument(*names, action="store_true")
    parser.add_argument("--cfg", "-c", choices=["job", "hydra", "all"])
    parser.add_argument("--package", "-p")
    parser.add_argument("--config-path", "-cp")
    parser.add_argument("--config-name", "-cn")
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--experimental-rerun")
    parser.add_argument("--info", "-i", nargs="?", const="all")
    return parser
