"""Reading and composing configuration files as Hydra does; those from elsewhere are checked before that."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra._internal.core_plugins.importlib_resources_config_source import ImportlibResourcesConfigSource
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.foreign_files import check_foreign_file

parse_typed = OverridesParser.create().parse_overrides
"""Hydra's own reader of `key=value` arguments."""


def check_what_is_read(project: Path) -> None:
    """From now on Hydra checks every file outside `project`, the project's own configuration folder, as it reads it.

    Also those that a search path, a defaults list or `..` in a name leads to.
    """
    Plugins.instance()  # registers Hydra's own first
    CheckedFiles.project = project.resolve()
    types: dict[str, Any] = SourcesRegistry.instance().types
    types.update({"file": CheckedFiles, "pkg": HydrasOwnPackages})


def compose(home: Path, primary: str, overrides: list[str]) -> DictConfig:
    """A configuration with Hydra's own node, composed without starting a job; a Hydra application that goes on in this
    process keeps its state."""
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(home.resolve()), version_base="1.3"):
            return hydra_compose(primary, overrides, return_hydra_config=True)
    finally:
        GlobalHydra.instance().hydra = before


class CheckedFiles(FileConfigSource):
    """Files of a folder.

    Attributes:
        project: files below this folder are the project's own; in a launcher's worker, which nothing else tells, those
            of this checkout.
    """

    project: ClassVar[Path] = Path(__file__).resolve().parents[1]

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file.

        Raises:
            UserError: see `twinlens.conf.checking.foreign_files.check_foreign_file`.
        """
        path = Path(os.path.realpath(os.path.join(self.path, self._normalize_file_name(config_path))))
        if path.is_file() and not path.is_relative_to(self.project):
            check_foreign_file(path)
        return super().load_config(config_path)


class HydrasOwnPackages(ImportlibResourcesConfigSource):
    """Configurations inside Python packages: Hydra's and its plugins'; any other would be imported to be found."""

    def __init__(self, provider: str, path: str) -> None:
        package = path.partition("://")[2].split(".")[0].split("/")[0]
        if package not in ("hydra", "hydra_plugins"):
            raise UserError(
                f"hydra.searchpath={path}: a package would be imported to find its configurations; expected a folder: "
                "give it as file://DIR."
            )
        super().__init__(provider, path)


# A launcher's worker registers Hydra's own classes once more, which leaves what has the same name in its place.
CheckedFiles.__name__ = FileConfigSource.__name__
HydrasOwnPackages.__name__ = ImportlibResourcesConfigSource.__name__
