"""Numbers of things in words for people: 1 clip, 2 clips."""


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
