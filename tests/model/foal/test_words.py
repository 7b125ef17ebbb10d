"""The foal's text encoder: each word in its place, with its neighbours, and one token for all strangers."""

import torch

from model.text import UNKNOWN, FoalTextEncoder


def test_words_keep_their_place_and_strangers_share_one() -> None:
    encoder = FoalTextEncoder(["red", "ball", "left", "right"], channels=12)
    unknown = encoder.words[UNKNOWN]
    ids = encoder.tokenize("A RED, shiny ball; left-right!")
    words = ["red", None, "ball", "left", "right"]
    assert ids[1] == unknown
    assert ids[2:-1] == [encoder.words[word] if word else unknown for word in words]
    assert encoder.tokenize("狂风暴雨，大树倒下") == [0, unknown, 1]
    assert encoder.count_tokens("") == 2
    first, second = encoder.encode(["left right", "right left"])
    assert not torch.allclose(first[1:-1].sum(0), second[1:-1].sum(0)), "order must reach the model"


def test_a_word_is_seen_with_its_neighbours() -> None:
    encoder = FoalTextEncoder(["left", "right"], channels=12)
    (embedded,) = encoder.encode(["left right"])
    begin, left, right, end = encoder.embedding(torch.tensor(encoder.tokenize("left right"))).detach()
    rows = [(begin, begin, left), (begin, left, right), (left, right, end), (right, end, end)]
    assert torch.equal(embedded, torch.stack([torch.cat(row) for row in rows]))
