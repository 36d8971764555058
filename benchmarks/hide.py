"""Starts a program of Hydra as if only the plugins in a folder were installed: python hide.py FOLDER PROGRAM ..."""

import runpy
import sys

import hydra_plugins

hydra_plugins.__path__ = [sys.argv[1]]
del sys.argv[:2]
sys.path[0] = "."
runpy.run_path(sys.argv[0], run_name="__main__")
