"""What is typed comes through: text untouched, values as hydra reads them, mistakes in one clear line."""

import pytest

from jobs.words import TEXT_KEYS, nearest, read_words
from pipeline.errors import ConfigError

HARD_TEXTS = [
    "a prompt, with commas, and = and > and < signs",
    "[brackets] {braces} (parentheses)",
    "丹凤眼，闭眼姿态＂哦？要抓我？＂",
    "1e5",
    "007",
    "true",
    "null",
    "${oc.env:HOME}",
    "???",
    'it\'s "quoted" \\ back',
    "two\nlines",
    " spaces around ",
    "s3://bucket/a=1/b=2/*.parquet",
]


@pytest.mark.parametrize("text", HARD_TEXTS)
@pytest.mark.parametrize("key", sorted(TEXT_KEYS))
def test_text_keys_are_verbatim(key: str, text: str) -> None:
    words = read_words([f"{key}={text}"])
    assert words.texts == {key: text}
    assert words.values == {}


def test_values_have_the_types_of_hydras_grammar() -> None:
    words = read_words(
        ["media.crf=20", "retry.failed=false", "model.durations_s=[3,5]", "parallel.groups=null", "a.b=x"]
    )
    assert words.values == {
        "media.crf": 20,
        "retry.failed": False,
        "model.durations_s": [3, 5],
        "parallel.groups": None,
        "a.b": "x",
    }


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("render", "'render' is not key=value"),
        ("=x", "'=x' is not key=value"),
        ("output=", "output= has no value"),
        ("media.crf=1,2", "one value is expected"),
        ("+media.new=1", "only key=value"),
        ("~media.crf=1", "only key=value"),
        ("media.preset=(", "cannot be read"),
    ],
)
def test_a_word_that_is_no_key_and_value_is_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_words([word])
    assert said in str(caught.value)


@pytest.mark.parametrize("key", ["manifest", "output", "weights", "findings", "to", "path"])
def test_an_address_with_a_password_is_no_setting_and_is_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: s3://\*\*\*@bucket/a holds a secret") as caught:
        read_words([f"{key}=s3://me:word@bucket/a"])
    assert "me:word" not in str(caught.value)


def test_words_of_people_may_look_like_addresses() -> None:
    assert read_words(["where=note == 'http://me:word@host'"]).texts == {"where": "note == 'http://me:word@host'"}


@pytest.mark.parametrize("word", ["output=a", "media.crf=1"])
def test_a_key_given_twice_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        read_words([word, word])


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("media.crff", "media.crf"),
        ("crf", "media.crf"),
        ("outptu", "output"),
        ("groups", "parallel.groups"),
        ("storage.timeout", "storage.timeout_s"),
        ("dry_run", None),
        ("parallel.enlarging", None),
    ],
)
def test_the_nearest_known_key_is_the_one_that_was_meant(typed: str, meant: str | None) -> None:
    known = (
        "manifest output weights media.crf media.preset parallel.groups retry.failed storage.timeout_s storage.retries"
    )
    assert nearest(typed, known.split()) == meant


PLACES = ("source", "target")


def test_words_without_a_key_fill_their_places_in_order_and_are_verbatim() -> None:
    words = read_words(["a, b.csv", "check=false", "s3://bucket/day=3/[x].parquet"], positional=PLACES)
    assert words.texts == {"source": "a, b.csv", "target": "s3://bucket/day=3/[x].parquet"}
    assert words.values == {"check": False}


def test_a_place_may_be_filled_by_its_key() -> None:
    assert read_words(["source=1e5", "target=null"], positional=PLACES).texts == {"source": "1e5", "target": "null"}


def test_a_path_with_an_equals_sign_is_told_from_a_key_by_a_slash() -> None:
    assert read_words(["./check=false"], positional=PLACES).texts == {"source": "./check=false"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "b", "c"], "'c' is one word too many, expected SOURCE TARGET and then key=value"),
        (["source=a", "b"], "source is given twice"),
        (["=x"], "'=x' is not key=value"),
    ],
)
def test_words_that_have_no_place_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_words(words, positional=PLACES)
    assert said in str(caught.value)
