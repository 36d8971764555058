"""``python -m hydra_exca.cli``, where the command is not in the path."""

from __future__ import annotations

from . import main

main(prog_name="hydra-exca")
