"""What `--help` prints. Keys, defaults and explanations are read from `conf/`, so that they cannot be out of date."""

import re
from collections.abc import Mapping
from importlib import resources

from jobs.compose import MISSING, defaults, leaves

_COMMENTED = re.compile(r"^(\w+):.*? # (.*)$", re.MULTILINE)


def overview(commands: Mapping[str, str]) -> str:
    lines = ["usage: happyhorse COMMAND [key=value ...]", ""]
    lines += [f"  {name:<8} {summary}" for name, summary in commands.items()]
    lines += [
        "",
        "`happyhorse COMMAND --help` lists the keys of a command, `happyhorse --version` tells what is installed.",
    ]
    return "\n".join(lines)


def explain(command: str, summary: str) -> str:
    """The keys of one command: those that must be given, the choices of each group, then every value."""
    everything, choices = defaults(command)
    values = leaves(everything)
    own = {key: value for key, value in values.items() if "." not in key}
    needed = " ".join(f"{key}=..." for key, value in own.items() if value == MISSING)
    lines = [f"usage: happyhorse {command} {needed} [key=value ...]", "", f"{summary}.", ""]
    comments = _comments(f"{command}.yaml")
    lines += [_line(key, value, comments) for key, value in own.items()]
    for group, names in choices.items():
        comments = {f"{group}.{key}": text for name in names for key, text in _comments(f"{group}/{name}.yaml").items()}
        lines += ["", f"{group}={'|'.join(names)}"]
        lines += [_line(key, value, comments) for key, value in values.items() if re.fullmatch(rf"{group}\.\w+", key)]
        tables = [key for key, value in everything[group].items() if isinstance(value, Mapping)]
        if tables:
            lines += [f"  and {', '.join(tables)}: see conf/{group}/"]
    return "\n".join(lines)


def _line(key: str, value: object, comments: Mapping[str, str]) -> str:
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    word = f"  {key}=..." if value == MISSING else f"  {key}={shown}"
    return f"{word:<38} {comments.get(key, '')}".rstrip()


def _comments(file: str) -> dict[str, str]:
    text = resources.files("conf").joinpath(file).read_text(encoding="utf-8")
    return {match[1]: match[2] for match in _COMMENTED.finditer(text)}
