"""Build step: a wheel holds `train.py` as `twinlens.train`, as the checkout does through the package's search path."""

from setuptools.command.build_py import build_py


class BuildWithTrain(build_py):
    """The package `twinlens` with the module that lies beside its folder."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Modules of a package as (package, module, file)."""
        found = super().find_package_modules(package, package_dir)
        return [*found, (package, "train", "train.py")] if package == "twinlens" else found
