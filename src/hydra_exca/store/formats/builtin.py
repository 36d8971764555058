"""Text, JSON, arrays and tensors: which of them come back exactly, and how they are written and read.

numpy and torch are taken from ``sys.modules``: a program with such values has imported them. Only loading imports them.
"""

from __future__ import annotations

import importlib
import io
import json
import re
import sys
import typing as tp

ARRAY_KINDS = "biufcmMSU"  # without records and objects, which neither .npy nor raw bytes return exactly
# the dtypes of tensors that every version of torch reads as it wrote them
_DTYPE = re.compile(r"torch\.(bool|u?int8|int(16|32|64)|b?float16|float(32|64)|complex(64|128))")
_INT_BITS = 4096  # Python does not parse much longer integers (sys.set_int_max_str_digits)


# text and JSON


def is_text(value: tp.Any) -> bool:
    """Whether it is a string that UTF-8 can encode: not one with lone surrogates."""
    return type(value) is str and is_json(value)


def is_json(value: tp.Any) -> bool:
    """Whether JSON returns exactly this value: the same types, not just equal ones."""
    try:
        return _is_json(value)
    except (RecursionError, UnicodeEncodeError):  # it contains itself, or a lone surrogate
        return False


def _is_json(value: tp.Any) -> bool:
    kind = type(value)
    if kind is int:
        return bool(value.bit_length() <= _INT_BITS)
    if kind is str:
        value.encode()  # raises for lone surrogates, of which JSON would join two
    if value is None or kind in (bool, float, str):
        return True
    if kind is list:
        return all(map(_is_json, value))
    return (
        kind is dict and all(type(key) is str and _is_json(key) for key in value) and all(map(_is_json, value.values()))
    )


def dump_json(value: tp.Any) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


# arrays of numpy


def is_array(value: tp.Any) -> bool:
    """Whether an array is fully described by dtype, shape and bytes."""
    kind = getattr(sys.modules.get("numpy"), "ndarray", None)
    return type(value) is kind and value.dtype.kind in ARRAY_KINDS and value.dtype.metadata is None


def dump_npy(value: tp.Any) -> bytes:
    numpy = importlib.import_module("numpy")
    buffer = io.BytesIO()
    numpy.save(buffer, value, allow_pickle=False)
    return buffer.getvalue()


def load_npy(data: bytes) -> tp.Any:
    return importlib.import_module("numpy").load(io.BytesIO(data), allow_pickle=False)


# tensors of torch


def is_tensor(value: tp.Any) -> bool:
    """Whether it is a dense tensor of a dtype that every version of torch reads."""
    return is_dense_tensor(value) and _DTYPE.fullmatch(str(value.dtype)) is not None


def is_dense_tensor(value: tp.Any) -> bool:
    """Whether it is a plain tensor: no subclass, dense, with data, without names or attributes of its own."""
    torch: tp.Any = sys.modules.get("torch")
    return (
        type(value) is getattr(torch, "Tensor", None)
        and value.layout is torch.strided
        and value.device.type != "meta"
        and not (value.is_quantized or value.is_nested or any(getattr(value, "names", ())) or vars(value))
    )


def dump_tensor(value: tp.Any) -> bytes:
    """Encodes the tensor's own elements, on the CPU: of a view, torch alone would save the whole storage."""
    own = value.detach().cpu().resolve_conj().resolve_neg().clone().requires_grad_(value.requires_grad)
    buffer = io.BytesIO()
    sys.modules["torch"].save(own, buffer)
    return buffer.getvalue()


def load_tensor(data: bytes) -> tp.Any:
    return importlib.import_module("torch").load(io.BytesIO(data), map_location="cpu", weights_only=True)
