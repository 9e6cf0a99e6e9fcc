"""The one exception a user sees, and the wrapper that turns it into a sentence and exit code 1."""

import errno
import sys
from collections.abc import Callable

from jrec.console import open_output


class InputError(Exception):
    """A fault in the user's files or settings; the text is one sentence: place, fault, fix."""


def run_command(command: Callable[[], None]) -> None:
    """Runs a command line's body; an `InputError`, a full disk or a lost right is one sentence.

    Exits with code 1 in these cases and 130 after Ctrl-C; any other exception is a bug of ours and
    keeps its traceback.
    """
    open_output()
    try:
        command()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        sys.exit(1)


def sentence_of(error: BaseException) -> str | None:
    """What a user is told of an `InputError` or a fault of the system; None of any other exception."""
    if isinstance(error, InputError):
        return str(error)
    if not isinstance(error, OSError) or (error.filename is None and error.errno is None):
        return None
    place = f" at {error.filename}" if error.filename else ""
    remedy = "free some space" if error.errno == errno.ENOSPC else "check the path and its rights"
    return f"The system refused a file operation{place} ({error.strerror}); {remedy}."
