"""The page: one HTML file with its data, its styles and its scripts, which asks the network for nothing."""

from __future__ import annotations

import importlib.resources
import json
import re
import string

from hydra_exca.errors import ConfigError

from .data import Json

_SCRIPTS = ("table.js", "details.js", "plots.js", "page.js")
_ESCAPES = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"})


def plot_library() -> str:
    """The source of plotly.js. Raises ConfigError if it is not installed."""
    try:
        import plotly.offline
    except ImportError as error:
        message = "a report needs plotly: pip install hydra-exca-launcher[report]"
        raise ConfigError(f"{message} ({error})") from error
    return str(plotly.offline.get_plotlyjs())


def assemble(data: Json, plotly: str) -> str:
    """The text of the whole page."""
    parts = {
        "css": _read("page.css"),
        "data": as_script_json(data),
        "plotly": re.sub(r"</(?=script)", r"<\\/", plotly, flags=re.IGNORECASE),
        "script": "\n".join(map(_read, _SCRIPTS)),
    }
    return string.Template(_read("page.html")).substitute(parts)


def as_script_json(data: Json) -> str:
    """JSON that cannot end the script that it is in."""
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


def _read(name: str) -> str:
    return (importlib.resources.files("hydra_exca.report") / name).read_text(encoding="utf8")
