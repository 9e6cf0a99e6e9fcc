"""Faults that are none: what they change, no function promises. Module, line and change -> the reason."""

EQUIVALENT: dict[tuple[str, str, str], str] = {}
