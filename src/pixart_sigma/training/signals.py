"""A signal that asks a run to end: it is noted, the step under way is finished, and a checkpoint is written.

Exit statuses follow the shell's custom, 128 + the signal's number.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """`with StopSignal() as stop:` stop.number is the signal received, 0 for none.

    A second Ctrl-C acts as it did before, so that an impatient user is not held. A second SIGTERM does not: job
    schedulers and launchers between them may send it twice, and a checkpoint is under way.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Python lets only the main thread set handlers; elsewhere the program around us decides.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        if number == signal.SIGINT:
            signal.signal(number, self._before[number])


def exit_status(number: int) -> int:
    """15 → 143, 2 → 130."""
    return 128 + number
