"""Which folder is which package; everything else is in pyproject.toml.

`lethe` is found, so that a new subpackage needs no entry, and the studies in
`search_spaces/` become its data package: pyproject.toml can do either, not both.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages("platform"), "lethe.search_spaces"],
    package_dir={"lethe": "platform/lethe", "lethe.search_spaces": "search_spaces"},
)
