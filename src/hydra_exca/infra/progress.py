"""The progress bar of a map or an array."""

from __future__ import annotations

import sys
import threading
import types
import typing as tp

from tqdm import tqdm


class _Bar(tqdm):  # type: ignore[type-arg]
    """Without a thread of its own: a task may fork this process."""

    monitor_interval = 0


class ProgressBar:
    """Shows on standard error how many of ``total`` are done; it stays silent once standard error is gone."""

    def __init__(self, name: str, total: int, unit: str = "item") -> None:
        self._lock = threading.Lock()
        self._bar: _Bar | None = None
        if total > 1 and sys.stderr is not None:
            self._try(lambda: setattr(self, "_bar", _Bar(total=total, desc=name, unit=unit, miniters=1)))

    def update(self, count: int = 1) -> None:
        bar = self._bar
        if bar is not None:
            with self._lock:
                self._try(lambda: bar.update(count))

    def __enter__(self) -> tp.Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._try(self._bar.close)

    def _try(self, show: tp.Callable[[], object]) -> None:
        try:
            show()
        except (OSError, ValueError, AttributeError):  # closed, or its reader is gone
            bar, self._bar = self._bar, None
            if bar is not None:
                bar.disable = True
