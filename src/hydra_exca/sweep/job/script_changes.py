"""What the program had changed in its script at the launch is changed in the script that the job has loaded."""

from __future__ import annotations

import collections
import functools
import types
import typing as tp

from hydra_exca import script

JobChange = tuple[types.ModuleType | None, tuple[str, ...], tp.Any, bool]
"""A module, None for the script, the path from its globals, the value, and whether it was deleted instead."""


def apply_changes(changes: tp.Iterable[JobChange]) -> None:
    """Gives the globals of the script, and attributes of them, these values."""
    for module, (root, *attributes), value, is_deleted in changes:
        names = script.main_names() if module is None else vars(module)
        if is_deleted:
            names.pop(root, None)
        elif not attributes:
            names[root] = _changed_in_place(names.get(root), value)
        elif root in names:
            owner = functools.reduce(getattr, attributes[:-1], names[root])
            setattr(owner, attributes[-1], _changed_in_place(getattr(owner, attributes[-1], None), value))


def _changed_in_place(present: tp.Any, value: tp.Any) -> tp.Any:
    """The present object with the content of ``value``, if that is possible: others may refer to it."""
    if present is value or type(present) is not type(value):
        return value
    if isinstance(value, (list, bytearray)):
        present[:] = value
    elif isinstance(value, (dict, set)):
        present.clear()
        present.update(value)
    elif isinstance(value, collections.deque) and value.maxlen == present.maxlen:
        present.clear()
        present.extend(value)
    elif not (type(value).__module__ == "__main__" and _is_all_in_attributes(value)):
        return value
    if type(value).__module__ == "__main__" and hasattr(value, "__dict__"):
        vars(present).clear()
        vars(present).update(vars(value))
    return present


def _is_all_in_attributes(value: tp.Any) -> bool:
    """Whether attributes are all that an object consists of: no slots, and no content as that of a number."""
    bases = type(value).__mro__[:-1]
    is_pythons = all(base.__flags__ & _WRITTEN_IN_PYTHON for base in bases)
    return is_pythons and not any(vars(base).get("__slots__") for base in bases)


_WRITTEN_IN_PYTHON = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class statement made it
