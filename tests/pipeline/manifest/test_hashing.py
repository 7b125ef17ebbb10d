"""The quick settings hash is the plain one, for any clip."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.ledger import settings_hash
from pipeline.manifest.hashing import settings_hasher
from pipeline.types import ImageRef, SoundRef
from tests.clips import MEDIA, make_clip

MODEL_HASH = "m%s" * 5
HASHER = settings_hasher(model_hash=MODEL_HASH, media=MEDIA)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    identity = draw(st.none() | TEXTS)
    image = None if identity is None else ImageRef(uri="a", data=None, identity=identity, height=300, width=400)
    sound = draw(st.none() | TEXTS)
    return {
        "audio_in": None if sound is None else SoundRef(uri="a", data=None, identity=sound, seconds=3.0),
        "prompt": draw(TEXTS),
        "negative_prompt": draw(st.none() | TEXTS),
        "image": image,
        "audio": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**31 - 1)),
        "steps": draw(st.integers(1, 1000)),
        "guidance": draw(st.none() | st.floats(0, 1e9) | st.integers(0, 9).map(float)),
        "resolution": draw(st.sampled_from(["64P", "128P"])),
        "ratio": draw(st.sampled_from(["1:1", "16:9"])),
        "duration_s": draw(st.sampled_from([3, 4, 5])),
        "priority": draw(st.integers()),
        "row": draw(st.integers(0)),
    }


@given(changes())
def test_the_two_agree(values: dict[str, Any]) -> None:
    clip = make_clip("a", **values)
    assert HASHER(clip) == settings_hash(clip, model_hash=MODEL_HASH, media=MEDIA)
