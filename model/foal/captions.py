"""Sentences about scenes: what the foal learns to read. `caption` draws one of many wordings of a scene."""

import random
from collections.abc import Sequence

from model.foal.scenes import Scene

SHAPE_WORDS = {  # the plain word first; it is drawn more often than the others
    "circle": ("circle", "ball", "disc", "disk", "dot", "round shape", "sphere", "orb", "circular shape"),
    "square": ("square", "box", "block", "square shape", "cube", "square block"),
    "triangle": ("triangle", "triangular shape", "pyramid", "three sided shape"),
}
COLOUR_WORDS = {
    "red": ("red", "crimson", "scarlet", "ruby", "bright red", "deep red"),
    "orange": ("orange", "orange colored", "orange coloured", "tangerine", "bright orange"),
    "yellow": ("yellow", "bright yellow", "golden", "lemon", "lemon yellow"),
    "green": ("green", "bright green", "emerald", "deep green"),
    "cyan": ("cyan", "turquoise", "aqua", "teal", "bright cyan"),
    "blue": ("blue", "deep blue", "navy", "royal blue", "bright blue", "dark blue"),
    "purple": ("purple", "violet", "deep purple", "bright purple"),
    "pink": ("pink", "bright pink", "rose", "hot pink", "light pink"),
}
BACKGROUND_WORDS = {
    "white": ("white", "plain white", "pure white", "bright white"),
    "black": ("black", "plain black", "dark black", "pitch black", "pure black"),
    "gray": ("gray", "grey", "plain gray", "plain grey", "neutral gray", "neutral grey"),
    "brown": ("brown", "plain brown", "dark brown", "chocolate", "chocolate brown"),
}
_ACROSS = "move slide glide drift travel roll go float fly pass sweep walk run".split()
_HOPPING = "bounce hop jump leap".split()
_RESTING = "stay stand sit rest remain keep hold".split()
_SIDEWAYS = (
    "from {a} to {b}",
    "from {a} to {b}",
    "{a} to {b}",
    "from the {a} to the {b}",
    "from the {a} side to the {b} side",
    "from the {a} edge to the {b} edge",
    "to the {b}",
    "{b}ward",
    "{b}wards",
    "toward the {b}",
    "towards the {b}",
    "across the screen from {a} to {b}",
    "across the picture from {a} to {b}",
    "across the frame from {a} to {b}",
    "horizontally from {a} to {b}",
)
MOTION_WORDS = {  # (verbs, what follows them)
    "right": (_ACROSS, [each.format(a="left", b="right") for each in _SIDEWAYS]),
    "left": (_ACROSS, [each.format(a="right", b="left") for each in _SIDEWAYS]),
    "bounce": (
        _HOPPING,
        [
            "up and down",
            "up and down",
            "up and down",
            "",
            "on the ground",
            "on the floor",
            "off the ground",
            "vertically",
        ],
    ),
    "still": (
        _RESTING,
        ["still", "still", "still", "motionless", "in place", "without moving", "stationary", "put", "unmoving"],
    ),
}
_STILL_PHRASES = (
    "does not move",
    "is motionless",
    "is still",
    "is not moving",
    "never moves",
    "is stationary",
    "is static",
    "without any motion",
    "at rest",
    "standing still",
)
_NOTHING = (
    "in silence",
    "in complete silence",
    "in total silence",
    "silence",
    "silent",
    "silently",
    "without sound",
    "without any sound",
    "with no sound",
    "with no sound at all",
    "no sound",
    "no audio",
    "it is silent",
    "there is no sound",
    "nothing is heard",
    "quiet",
    "soundless",
    "muted",
)
_STEADY = (  # {} is what is heard
    "{}",
    "a {}",
    "a {}",
    "with a {}",
    "with a {}",
    "with a {}",
    "to a {}",
    "a {} plays",
    "while a {} plays",
    "as a {} plays",
    "a {} is heard",
    "a {} sounds",
    "we hear a {}",
    "accompanied by a {}",
    "with a {} in the background",
    "with the sound of a {}",
    "and a {}",
    "a steady {}",
    "with a constant {}",
    "a soft {}",
    "with a loud {}",
)
_LOW = (
    "low hum",
    "low hum",
    "low hum",
    "deep hum",
    "low humming sound",
    "low humming",
    "low pitched hum",
    "low drone",
    "deep drone",
    "bass hum",
    "humming sound",
    "hum",
    "low buzz",
)
_HIGH = (
    "high tone",
    "high tone",
    "high tone",
    "high pitched tone",
    "high pitched sound",
    "high sound",
    "high note",
    "high whistle",
    "shrill tone",
    "high frequency tone",
    "high ringing tone",
)
_WHENS = (
    "at each bounce",
    "at each bounce",
    "at every bounce",
    "on each bounce",
    "on every bounce",
    "with each bounce",
    "with every bounce",
    "each time it bounces",
    "every time it bounces",
    "whenever it bounces",
    "when it bounces",
    "as it bounces",
    "each time it hits the ground",
    "every time it hits the floor",
    "each time it lands",
    "every time it touches the ground",
)
_BURSTS = (  # {} is the word for the burst, or its forms; {when} is one of _WHENS
    "a {} {when}",
    "a {} {when}",
    "with a {} {when}",
    "with a {} {when}",
    "making a {} {when}",
    "it makes a {} {when}",
    "a {} sounds {when}",
    "a {} is heard {when}",
    "and a {} {when}",
    "a short {} {when}",
    "{ing} {when}",
    "{ing} {when}",
    "it {s} {when}",
    "and {s} {when}",
    "each bounce makes a {}",
    "every bounce makes a {}",
    "each bounce with a {}",
)
_BURST_WORDS = {"beep": ("beep", "beep", "beep", "bleep"), "thud": ("thud", "thud", "thud", "thump")}
_GENERIC = ("the shape", "the object", "it", "the thing", "an object", "this shape", "the figure", "a shape")
_OPENINGS = (
    *[""] * 8,
    "a video of ",
    "a clip of ",
    "an animation of ",
    "we see ",
    "there is ",
    "a short film of ",
    "a scene with ",
    "an image of ",
)
_LOOKS = ("small", "big", "large", "little", "single", "simple", "solid", "shiny", "flat", "lone")
_FILLERS = (
    "slowly",
    "smoothly",
    "quickly",
    "gently",
    "steadily",
    "repeatedly",
    "continuously",
    "calmly",
    "again and again",
    "happily",
    "nicely",
    "in the middle of the picture",
    "in the center",
    "perfectly",
    "completely",
)
_SETTINGS = (
    *["on a {} background"] * 6,
    "on {}",
    "against a {} background",
    "against a {} background",
    "in front of a {} background",
    "over a {} background",
    "across a {} background",
    "with a {} background",
    "against a {} backdrop",
    "before a {} backdrop",
    "set against a {} background",
    "on the {} background",
)
_LOOSE_SETTINGS = ("the background is {}", "{} background", "a {} background", "the background is {} everywhere")
_JOINTS = (", ", ", ", " ", ". ", "; ", " and ")


def _ing(verb: str) -> str:
    doubled = {"hop": "hopping", "run": "running", "sit": "sitting", "thud": "thudding"}
    return doubled.get(verb) or (verb[:-1] if verb.endswith("e") else verb) + "ing"


def _third_person(verb: str) -> str:
    return {"go": "goes", "pass": "passes", "fly": "flies"}.get(verb, verb + "s")


def _plain_first(rng: random.Random, words: Sequence[str]) -> str:
    """The first word half of the time."""
    return words[0] if rng.random() < 0.5 else rng.choice(words)


def _motion(rng: random.Random, motion: str) -> str:
    if motion == "still" and rng.random() < 0.3:
        return rng.choice(_STILL_PHRASES)
    verbs, places = MOTION_WORDS[motion]
    form = rng.choice((_third_person, _third_person, _ing))
    words = [form(_plain_first(rng, verbs)), rng.choice(places)]
    if rng.random() < 0.15:
        words.insert(rng.randrange(3), rng.choice(_FILLERS))
    if form is _ing and rng.random() < 0.3:
        words.insert(0, "is")
    return " ".join(word for word in words if word)


def _sound(rng: random.Random, sound: str) -> str:
    if sound == "silence":
        return "" if rng.random() < 0.3 else rng.choice(_NOTHING)  # nothing said about sound means none
    if sound in ("hum", "tone"):
        return rng.choice(_STEADY).format(rng.choice(_LOW if sound == "hum" else _HIGH))
    word = rng.choice(_BURST_WORDS[sound])
    return rng.choice(_BURSTS).format(word, when=rng.choice(_WHENS), ing=_ing(word), s=word + "s")


def caption(scene: Scene, rng: random.Random, *, name_subject: bool = True) -> str:
    """One wording; `name_subject=False` names neither colour nor shape (image-to-video)."""
    motion, sound = _motion(rng, scene.motion), _sound(rng, scene.sound)
    ground = _plain_first(rng, BACKGROUND_WORDS[scene.background])
    setting = rng.choice(_SETTINGS).format(ground)
    if not name_subject:
        return _join(rng, [f"{rng.choice(_GENERIC)} {motion}", sound])
    look = rng.choice(_LOOKS) + " " if rng.random() < 0.12 else ""
    colour = _plain_first(rng, COLOUR_WORDS[scene.colour])
    noun = f"{look}{colour} {_plain_first(rng, SHAPE_WORDS[scene.shape])}"
    article = rng.choice(("a", "a", "the", "one"))
    subject = f"{article} {noun}"
    opened = rng.choice(_OPENINGS) + subject
    order = rng.randrange(12)
    if order <= 1:
        return _join(rng, [setting, f"{opened} {motion}", sound])
    if order <= 3:
        return _join(rng, [f"{opened} {setting} {motion}", sound])
    if order == 4:
        return _join(rng, [opened, setting, motion, sound])
    if order == 5:
        return _join(rng, [noun, rng.choice(_LOOSE_SETTINGS).format(ground), motion, sound])
    if order == 6:
        return _join(rng, [f"{opened} {motion}", sound, rng.choice(_LOOSE_SETTINGS).format(ground)])
    if order == 7:
        return _join(rng, [sound, f"{opened} {motion} {setting}"])
    if order == 8:
        return _join(rng, [f"{opened} {setting}", f"it {motion}", sound])
    return _join(rng, [f"{opened} {motion} {setting}", sound])


def _join(rng: random.Random, clauses: list[str]) -> str:
    return rng.choice(_JOINTS).join(clause for clause in clauses if clause)


def vocabulary() -> list[str]:
    """Every word that a caption can hold, sorted."""
    phrases = [*_STILL_PHRASES, *_NOTHING, *_STEADY, *_LOW, *_HIGH, *_WHENS, *_BURSTS, *_GENERIC, *_OPENINGS, *_LOOKS]
    phrases += [*_FILLERS, *_SETTINGS, *_LOOSE_SETTINGS, "a an the one is it and"]
    for table in (SHAPE_WORDS, COLOUR_WORDS, BACKGROUND_WORDS):
        phrases += [phrase for words in table.values() for phrase in words]
    for verbs, places in MOTION_WORDS.values():
        phrases += [form(verb) for verb in verbs for form in (str, _third_person, _ing)]
        phrases += places
    for words in _BURST_WORDS.values():
        phrases += [form for word in words for form in (word, word + "s", _ing(word))]
    return sorted({word for phrase in phrases for word in phrase.split() if "{" not in word})
