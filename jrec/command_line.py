"""Settings from the command line: one subcommand for each dataclass, read by tyro."""

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Union

import tyro

from jrec.errors import InputError


def parse_command(
    commands: Sequence[type],
    description: str | None,
    arguments: list[str] | None = None,
    presets: Mapping[str, Callable[[], Any]] | None = None,
) -> Any:
    """Returns the settings of the subcommand that was typed, an instance of one of `commands`.

    A single command has no name to type. `--help` prints and exits with code 0.

    Args:
        presets: complete settings of one of the commands by name. Those that `--preset` names, else the first,
            are its defaults, which `--help` shows.

    Raises InputError, in one sentence with the nearest valid flag or value, for what does not fit.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    default = _preset_of(given, presets) if presets else None
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            if len(commands) == 1:  # no word to type before the flags
                known = {} if default is None else {"default": default}
                return tyro.cli(commands[0], description=description, args=given, **known)
            named = []
            for command in commands:
                known = {"default": default} if type(default) is command else {}
                name = command.__name__.lower()
                named.append(Annotated[command, tyro.conf.subcommand(name, **known)])
            return tyro.cli(
                Union[tuple(named)],  # type: ignore[arg-type]  # noqa: UP007
                description=description,
                args=given,
                config=(tyro.conf.OmitSubcommandPrefixes,),
            )
    except SystemExit as exit_:
        if not exit_.code:
            raise
        text = _unboxed(said.getvalue())
        # The box has a title, the fault with near flags or values, then pointers to the help.
        for pointer in ("For full helptext", "Argument helptext"):
            text = text.split(pointer)[0].strip()
        text = text.replace(") .", ").").rstrip(".")
        raise InputError(f"{text}{_nearest(text)}; --help explains every flag.") from None


def _preset_of(arguments: list[str], presets: Mapping[str, Callable[[], Any]]) -> Any:
    """Returns the settings that `--preset` names; the first for a name that tyro is to refuse."""
    name = next(iter(presets))
    for place, argument in enumerate(arguments):
        if argument == "--preset" and place + 1 < len(arguments):
            name = arguments[place + 1]
        elif argument.startswith("--preset="):
            name = argument.removeprefix("--preset=")
    return presets.get(name, presets[next(iter(presets))])()


def _nearest(fault: str) -> str:
    """A guess at what was meant, where a value or a command is none of a few (of flags tyro says it)."""
    choice = re.search(r"[Ii]nvalid choice '(.*?)' for .*Expected one of \((.*)\)", fault)
    command = re.search(r"Unrecognized options: ([^-\s,]+).* Available subcommands: (.*)", fault)
    if choice:
        given, known = choice[1], re.findall(r"'([^']*)'", choice[2])
    elif command:
        given, known = command[1], re.split(r",\s*", command[2])
    else:
        return ""
    near = difflib.get_close_matches(given, known, 1, 0.5)
    return f"; did you mean {near[0]}" if near else ""


def _unboxed(box: str) -> str:
    """tyro's message without its frame: of box characters, or of +, - and | on a plain terminal.

    A title that the message says again is left out.
    """
    lines: list[str] = []
    for line in box.splitlines():
        line = line.strip().strip("+|╭╮╰╯│").strip().strip("─")
        line = re.sub(r"^-+ (?=[A-Z])| -{4,}$", "", line).strip()  # the frame's title line
        is_rule = not line.strip("-─ ")
        if not is_rule and not re.match(r"in .* --help$", line):  # which help to read
            lines.append(line)
    if len(lines) > 1 and lines[1].lower().startswith(lines[0].lower()):
        lines = [lines[1][0].upper() + lines[1][1:], *lines[2:]]
    elif len(lines) > 1:
        lines[0] += ":"
    return re.sub(r" -{4,}", ":", " ".join(lines))
