"""A thread for what starts and ends Ray, so that no signal meets the handlers that Ray puts in the place of ours."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

OURS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM})
AWAKE = signal.SIGURG
"""What the thread sends the main thread when it is done; nobody uses it, and by itself it does nothing."""


class RayThread:
    """Runs calls in a thread that lives until `close`: Linux ends Ray's processes with the thread that started them.

    In the main thread `ray.init` sets a handler of its own for SIGTERM, and its C++ part another in any thread: that one
    prints a stack and aborts the process three seconds later. So the main thread takes signals out of the kernel's hands
    while it waits, no handler but ours ever runs, and afterwards ours is put in force again.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "ray")

    def call(self, action: Callable[[], Any]) -> Any:
        """Run `action` and return or raise what it does. Only for the main thread."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, OURS | {AWAKE})
        main, unanswered = threading.get_ident(), []
        try:
            done: Future[Any] = self._pool.submit(_unblocked, action)
            done.add_done_callback(lambda _: signal.pthread_kill(main, AWAKE))
            while not done.done():
                number = signal.sigwait(OURS | {AWAKE})
                handler = signal.getsignal(number)
                if callable(handler):
                    handler(number, None)
                elif number != AWAKE:
                    unanswered.append(number)
            return done.result()
        finally:
            for number in OURS:
                if handler := signal.getsignal(number):
                    signal.signal(number, handler)  # Ray has set another where Python does not see it
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            for number in unanswered:
                signal.raise_signal(number)

    def close(self) -> None:
        """End the thread, and all that it has started."""
        self._pool.shutdown()


def _unblocked(action: Callable[[], Any]) -> Any:
    """SIGUSR1 stays blocked, and so away from Ray's processes: a batch system sends it to all of a job's, and they would die
    of it while we finish the parts in flight."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS - {signal.SIGUSR1} | {AWAKE})
    return action()
