"""Packs config/, the one place of the YAML files, as geo_seg/yaml; all else stands in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithYaml(build_py):
    """Build that copies config/ into the package; an editable install reads it where it is."""

    def run(self) -> None:
        """Build the package, then copy the YAML files."""
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / "geo_seg" / "yaml"
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            for file in Path("config").rglob("*.yaml"):
                copy = target / file.relative_to("config")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)


setup(cmdclass={"build_py": BuildWithYaml})
