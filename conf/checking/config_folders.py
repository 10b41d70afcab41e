"""The folders that configuration files are read from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PACKAGE = re.compile(r"^\s*#\s*@package\s+(\S+)\s*$")


@dataclass(frozen=True)
class ConfigTree:
    """Config folders in the order in which they are searched."""

    folders: tuple[Path, ...]

    def groups(self) -> list[str]:
        """Names of all groups that hold at least one option."""
        return sorted({path.parent.name for folder in self.folders for path in folder.glob("*/*.yaml")})

    def is_group(self, name: str) -> bool:
        """True for the name of a group, nested ones (`hydra/launcher`) included."""
        return bool(name) and any((folder / name).is_dir() for folder in self.folders)

    def options(self, group: str) -> list[str]:
        """Names of a group's options, those in folders of its own as `folder/name`."""
        roots = [folder / group for folder in self.folders]
        return sorted(
            {path.relative_to(root).with_suffix("").as_posix() for root in roots for path in root.rglob("*.yaml")}
        )

    def file(self, group: str, option: str) -> Path | None:
        """The file of an option, or None."""
        candidates = (folder / group / f"{option.removesuffix('.yaml')}.yaml" for folder in self.folders)
        return next((path for path in candidates if path.is_file()), None)

    def package(self, group: str, option: str) -> str | None:
        """Where an option's content goes (its `# @package` line, else its group), or None for no such option."""
        path = self.file(group, option)
        if path is None:
            return None
        for line in path.read_text(encoding="utf-8").splitlines():
            match = _PACKAGE.match(line)
            if match:
                return match[1].replace("_group_", group).replace("_name_", option)
            if line.strip() and not line.lstrip().startswith("#"):
                break
        return group

    def primaries(self) -> list[str]:
        """Names of the configurations that a run can start from."""
        return sorted({path.stem for folder in self.folders for path in folder.glob("*.yaml")})

    def home_of(self, primary: str) -> Path | None:
        """The first folder that holds the configuration `primary`, or None."""
        name = f"{primary.removesuffix('.yaml')}.yaml"
        return next((folder for folder in self.folders if (folder / name).is_file()), None)
