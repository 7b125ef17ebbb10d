"""One of a thing is no plural."""

from pipeline.counting import counted


def test_one_is_no_plural() -> None:
    assert [counted(number, "finished clip") for number in (0, 1, 2)] == [
        "0 finished clips",
        "1 finished clip",
        "2 finished clips",
    ]
