"""The errors a user can meet, each with the exit code it ends the program with.

Everything that is the user's to mend derives from :class:`CxrxError` and is shown as one sentence; anything else is a
bug and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SOME_FAILED = 3
EXIT_NOTHING_READABLE = 4
EXIT_LOCKED = 5
EXIT_DISK_FULL = 28


class CxrxError(Exception):
    """Something went wrong that one sentence can explain.

    Parameters
    ----------
    message
        What happened, as one sentence.
    hint
        What to do next, often a command; printed on a line of its own.
    """

    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(CxrxError):
    """The request cannot be met as asked: unknown names, wrong types, files that do not fit together."""

    exit_code = EXIT_USAGE


class OfflineError(UsageError):
    """What is asked for must be fetched, and ``CXRX_OFFLINE`` forbids it."""


class NothingReadableError(CxrxError):
    """No input held a film that could be read."""

    exit_code = EXIT_NOTHING_READABLE


class LockedError(CxrxError):
    """Another run writes the same results, or left parts that belong to another request."""

    exit_code = EXIT_LOCKED


class DiskFullError(CxrxError):
    """The disk is full; finished parts are intact and the run can be resumed."""

    exit_code = EXIT_DISK_FULL


class ResultsError(CxrxError):
    """A results file is damaged, unfinished or of another schema."""


class PluginError(CxrxError):
    """A plugin broke the contract of its hook."""


class InterruptedRunError(CxrxError):
    """The user (or the system) asked the run to stop; finished work is kept.

    Parameters
    ----------
    signal_number
        ``signal.SIGINT`` or ``signal.SIGTERM``; the exit code is 128 plus this number.
    """

    def __init__(self, message: str, signal_number: int, hint: str = "") -> None:
        super().__init__(message, hint)
        self.signal_number = signal_number


class AbandonBatchError(BaseException):
    """Raised inside the batch in flight when the grace time is over.

    A BaseException, so that no handler for ordinary errors (out of memory, a film that fails) takes it for its own.
    """


INTERRUPTS = (KeyboardInterrupt, AbandonBatchError)
"""What a signal raises, also inside somebody else's code: handlers of whatever such code raises let it through."""


def exit_code_of(error: CxrxError) -> int:
    """Return the process exit code that `error` stands for."""
    if isinstance(error, InterruptedRunError):
        return 128 + error.signal_number
    return error.exit_code
