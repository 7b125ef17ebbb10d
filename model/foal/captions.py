"""Sentences about scenes: what the foal learns to read. `caption` draws one of many wordings of a scene."""

import random

from model.foal.scenes import Scene

SHAPE_WORDS = {
    "circle": ("circle", "circle", "disc", "disk", "ball", "ball", "dot", "round shape"),
    "square": ("square", "square", "box", "box", "block", "square shape"),
    "triangle": ("triangle", "triangle", "triangle", "triangular shape"),
}
COLOUR_WORDS = {
    "red": ("red", "red", "red", "crimson", "scarlet"),
    "orange": ("orange", "orange", "orange colored"),
    "yellow": ("yellow", "yellow", "bright yellow"),
    "green": ("green", "green", "bright green"),
    "cyan": ("cyan", "cyan", "cyan", "turquoise", "aqua"),
    "blue": ("blue", "blue", "blue", "deep blue"),
    "purple": ("purple", "purple", "violet"),
    "pink": ("pink", "pink", "bright pink"),
}
BACKGROUND_WORDS = {
    "white": ("white", "white", "plain white"),
    "black": ("black", "black", "plain black", "dark black"),
    "gray": ("gray", "grey", "plain gray", "plain grey"),
    "brown": ("brown", "brown", "plain brown"),
}
MOTION_WORDS = {  # (verb, what follows it)
    "right": (
        ("move", "from left to right"),
        ("move", "left to right"),
        ("move", "from the left to the right"),
        ("slide", "from left to right"),
        ("glide", "to the right"),
        ("drift", "from left to right"),
        ("travel", "from left to right"),
        ("roll", "from left to right"),
        ("go", "from left to right"),
        ("move", "to the right"),
        ("move", "rightwards"),
        ("float", "across the screen from left to right"),
    ),
    "left": (
        ("move", "from right to left"),
        ("move", "right to left"),
        ("move", "from the right to the left"),
        ("slide", "from right to left"),
        ("glide", "to the left"),
        ("drift", "from right to left"),
        ("travel", "from right to left"),
        ("roll", "from right to left"),
        ("go", "from right to left"),
        ("move", "to the left"),
        ("move", "leftwards"),
        ("float", "across the screen from right to left"),
    ),
    "bounce": (
        ("bounce", "up and down"),
        ("bounce", "up and down"),
        ("hop", "up and down"),
        ("jump", "up and down"),
        ("bounce", ""),
        ("bounce", "on the ground"),
        ("bounce", "on the floor"),
    ),
    "still": (
        ("stay", "still"),
        ("stay", "still"),
        ("stand", "still"),
        ("sit", "still"),
        ("rest", "without moving"),
        ("remain", "still"),
        ("remain", "motionless"),
        ("rest", "in place"),
    ),
}
_STILL_PHRASES = ("does not move", "is motionless", "is still", "that never moves", "without any motion")
SOUND_WORDS = {
    "silence": (
        "in silence",
        "in complete silence",
        "silence",
        "without sound",
        "without any sound",
        "no sound",
        "silent",
        "with no sound",
        "it is silent",
        "in total silence",
        "quiet",
    ),
    "hum": (
        "a low hum",
        "with a low hum",
        "a low hum plays",
        "while a low hum plays",
        "accompanied by a low hum",
        "a low hum is heard",
        "with a deep hum",
        "a low humming sound",
        "humming low",
        "with a low humming sound",
    ),
    "tone": (
        "a high tone",
        "with a high tone",
        "a high tone plays",
        "while a high tone plays",
        "a high tone is heard",
        "accompanied by a high tone",
        "with a high pitched tone",
        "a steady high tone",
        "a high pitched sound",
    ),
    "beep": (
        "a beep at each bounce",
        "with a beep at each bounce",
        "beeping at each bounce",
        "a beep on every bounce",
        "it beeps at each bounce",
        "with a beep on each bounce",
        "a beep every time it hits the ground",
        "beeping each time it bounces",
        "a beep sounds at each bounce",
        "beeping on every bounce",
    ),
    "thud": (
        "a thud at each bounce",
        "with a thud at each bounce",
        "thudding at each bounce",
        "a thud on every bounce",
        "it thuds at each bounce",
        "with a thud on each bounce",
        "a thud every time it hits the ground",
        "thudding each time it bounces",
        "a thud sounds at each bounce",
        "thudding on every bounce",
    ),
}
_GENERIC = ("the shape", "the object", "it", "the thing", "an object", "this shape", "the figure")
_OPENINGS = (
    "",
    "",
    "",
    "",
    "a video of ",
    "a clip of ",
    "an animation of ",
    "we see ",
    "there is ",
    "a short film of ",
)
_FILLERS = ("slowly", "smoothly", "again and again", "happily", "steadily", "in the middle of the picture", "nicely")


def _ing(verb: str) -> str:
    doubled = {"hop": "hopping", "sit": "sitting"}
    return doubled.get(verb) or (verb[:-1] if verb.endswith("e") else verb) + "ing"


def _third_person(verb: str) -> str:
    return verb + ("es" if verb == "go" else "s")


def _motion(rng: random.Random, motion: str) -> str:
    if motion == "still" and rng.random() < 0.25:
        return rng.choice(_STILL_PHRASES)
    verb, rest = rng.choice(MOTION_WORDS[motion])
    form = rng.choice((_third_person, _third_person, _ing))
    words = [form(verb), rest]
    if rng.random() < 0.1:
        words.insert(rng.randrange(3), rng.choice(_FILLERS))
    return " ".join(word for word in words if word)


def _background(rng: random.Random, background: str) -> str:
    word = rng.choice(BACKGROUND_WORDS[background])
    forms = (
        "on a {} background",
        "on a {} background",
        "on a {} background",
        "against a {} background",
        "in front of a {} background",
        "over a {} background",
        "on {}",
        "against a {} backdrop",
    )
    return rng.choice(forms).format(word)


def caption(scene: Scene, rng: random.Random, *, name_subject: bool = True) -> str:
    """One wording; `name_subject=False` names neither colour nor shape (image-to-video)."""
    motion, background = _motion(rng, scene.motion), _background(rng, scene.background)
    sound = rng.choice(SOUND_WORDS[scene.sound])
    if scene.sound == "silence" and rng.random() < 0.3:
        sound = ""  # nothing said about sound means none
    if not name_subject:
        return _join(rng, [f"{rng.choice(_GENERIC)} {motion}", sound])
    colour = rng.choice(COLOUR_WORDS[scene.colour])
    subject = f"{rng.choice(('a', 'a', 'the', 'one'))} {colour} {rng.choice(SHAPE_WORDS[scene.shape])}"
    subject = rng.choice(_OPENINGS) + subject
    order = rng.randrange(6)
    if order == 0:
        return _join(rng, [background, f"{subject} {motion}", sound])
    if order == 1:
        return _join(rng, [f"{subject} {background} {motion}", sound])
    if order == 2:
        return _join(rng, [subject, background, motion, sound])
    return _join(rng, [f"{subject} {motion} {background}", sound])


def _join(rng: random.Random, clauses: list[str]) -> str:
    return rng.choice((", ", ", ", " ", ". ")).join(clause for clause in clauses if clause)


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    phrases = [
        *_STILL_PHRASES,
        *_GENERIC,
        *_OPENINGS,
        *_FILLERS,
        "on against in front of over a an the one background backdrop",
    ]
    for table in (SHAPE_WORDS, COLOUR_WORDS, BACKGROUND_WORDS, SOUND_WORDS):
        phrases += [phrase for words in table.values() for phrase in words]
    for pairs in MOTION_WORDS.values():
        for verb, rest in pairs:
            phrases += [verb, _third_person(verb), _ing(verb), rest]
    return sorted({word for phrase in phrases for word in phrase.split()})
