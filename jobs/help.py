"""What `--help` prints. Keys, defaults and explanations are read from `conf/`, so that they cannot be out of date."""

import re
from collections.abc import Mapping, Sequence
from importlib import resources

from jobs.compose import MISSING, Group, defaults, leaves

_ENTRY = re.compile(r"( *)(\w+):(.*)")


def overview(commands: Mapping[str, str]) -> str:
    lines = ["usage: happyhorse COMMAND [WORD ...] [key=value ...]", ""]
    lines += [f"  {name:<8} {summary}" for name, summary in commands.items()]
    lines += [
        "",
        "`happyhorse COMMAND --help` lists the keys of a command, `happyhorse --version` tells what is installed.",
    ]
    return "\n".join(lines)


def explain(command: str, summary: str, *, positional: Sequence[str] = ()) -> str:
    """The keys of one command: those that must be given, the choices of each group, then every value."""
    everything, groups = defaults(command)
    values = leaves(everything)
    own = {key: value for key, value in values.items() if key.partition(".")[0] not in groups}
    places = [key.upper() if own[key] == MISSING else f"[{key.upper()}]" for key in positional]
    needed = [f"{key}=..." for key, value in own.items() if value == MISSING and key not in positional]
    lines = [" ".join(["usage: happyhorse", command, *places, *needed, "[key=value ...]"]), "", f"{summary}.", ""]
    comments = _comments(f"{command}.yaml")
    lines += [f"  {key.upper():<36} {comments.get(key, '')}".rstrip() for key in positional]
    lines += [_line(key, value, comments.get(key, "")) for key, value in own.items() if key not in positional]
    for name, group in groups.items():
        lines += ["", *_group(name, group, everything[name])]
    return "\n".join(lines)


def _group(name: str, group: Group, values: Mapping[str, object]) -> list[str]:
    others = [other for other in group.names if other != group.chosen]
    comments: dict[str, str] = {}
    for file in (*others, group.chosen):
        comments |= {key: text for key, text in _comments(f"{name}/{file}.yaml").items() if text}
    lines = [f"{name}={group.chosen}" + (f" (or {', '.join(others)})" if others else "")]
    tables = [key for key, value in values.items() if isinstance(value, Mapping)]
    for key, value in values.items():
        if key not in tables:
            lines.append(_line(f"{name}.{key}", value, comments.get(key, "")))
    return [*lines, f"  and {', '.join(tables)}: see conf/{name}/"] if tables else lines


def _line(key: str, value: object, comment: str) -> str:
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    word = f"  {key}=..." if value == MISSING else f"  {key}={shown}"
    return f"{word:<38} {comment}".rstrip()


def _comments(file: str) -> dict[str, str]:
    """Key, or table.key, -> what the file says behind it."""
    found: dict[str, str] = {}
    table = ""
    for line in resources.files("conf").joinpath(file).read_text(encoding="utf-8").splitlines():
        if match := _ENTRY.match(line):
            indent, key, rest = match.groups()
            table = table if indent else key
            found[f"{table}.{key}" if indent else key] = rest.partition(" # ")[2]
    return found
