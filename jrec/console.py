"""Output of the commands: data as it is, on any terminal, into any pipe."""

import io
import sys
from typing import Any, TextIO

from rich.console import Console


def plain_console(**options: Any) -> Console:
    """Returns a Rich console that reads no markup, no emoji codes and no numbers in what it prints.

    Ids and titles are data: `[b]` or `:smile:` in one must come out as it is.
    """
    return Console(markup=False, emoji=False, highlight=False, **options)


def open_output() -> None:
    """Lets standard output and error take any text, and lets their reader leave.

    What the terminal's encoding lacks is written as `?`. Streams that a caller has redirected stay.
    """
    if sys.stdout is sys.__stdout__:
        sys.stdout = _tolerant(sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _tolerant(sys.stderr)


class _Unread(io.FileIO):
    """A stream whose reader may leave, as `head` does: the rest is dropped, and the command goes on."""

    def write(self, data: Any) -> int | None:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def _tolerant(stream: TextIO | None) -> TextIO | None:
    if stream is None:  # closed by the shell: `>&-`
        return None
    stream.flush()
    raw = _Unread(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(
        raw if stream.write_through else io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
