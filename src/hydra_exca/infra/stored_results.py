"""The stored results in a folder, or those of a class or an object with an infra."""

from __future__ import annotations

import os
import types
import typing as tp
from pathlib import Path

import pydantic

from hydra_exca.catalog import places
from hydra_exca.catalog.listing import list_map_jobs, read_records
from hydra_exca.catalog.places import TaskListing
from hydra_exca.catalog.results import Results
from hydra_exca.errors import ConfigError

from . import binding
from .base import BaseInfra, private
from .map import MapInfra


def results(where: tp.Any = None, *, folder: str | Path | None = None, trust_users: tp.Collection[str] = ()) -> Results:
    """The stored results in a place, as a sequence of records. Nothing is changed, and no pickle is loaded.

    ``where`` is a cache folder, a factory's folder or name, a sweep folder, a launch (its folder or token), or what has
    an infra: an object, a class, or a function of `helpers.with_infra`. The default is the folder that ``EXCA_FOLDER``
    names, or else the nearest folder ``exca`` here or above; names are looked up there, or in ``folder``.
    `Record.load` also loads pickles of ``trust_users``.

    Raises CacheError if there is no such place, and ConfigError for any other kind of ``where``.
    """
    cache = None if folder is None else Path(folder)
    if where is None or isinstance(where, str | os.PathLike):
        listing = places.find_tasks(where, cache)
    else:
        listings = [_tasks_of_infra(infra, cache) for infra in _infras_of(where)]
        tasks = [task for listing in listings for task in listing.tasks]
        listing = TaskListing(", ".join(listing.name for listing in listings), tasks)
    return Results(listing.name, read_records(listing.tasks, trust_users))


def _infras_of(where: tp.Any) -> list[BaseInfra]:
    """The infra of an object, or those of a class: then with the settings that its body gives them."""
    if isinstance(where, BaseInfra):
        return [where]
    obj = getattr(where, "config", where) if isinstance(where, types.FunctionType) else where
    if isinstance(obj, type) and issubclass(obj, pydantic.BaseModel):
        obj = obj.model_construct()
        binding.attach_infra(obj)
    if isinstance(obj, pydantic.BaseModel):
        values = [*(value for _, value in obj), *(obj.__pydantic_private__ or {}).values()]
        infras = [value for value in values if isinstance(value, BaseInfra) and private(value)["_applied"] is not None]
        if infras:
            return infras
    raise ConfigError(f"results of {where!r:.60}: give a folder, a factory, a launch, a class or object with an infra")


def _tasks_of_infra(infra: BaseInfra, folder: Path | None) -> TaskListing:
    own = None if infra.folder is None else Path(infra.folder)
    cache = (folder or own or places.nearest_cache()).expanduser().absolute()
    listing = places.tasks_of_factory(cache, infra.factory(), infra.version)
    return listing._replace(tasks=list_map_jobs(listing.tasks)) if isinstance(infra, MapInfra) else listing
