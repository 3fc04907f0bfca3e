import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.flow.words import closest, did_you_mean, listed


@pytest.mark.parametrize(
    ("names", "prose"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        ([str(i) for i in range(20)], "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 8 more"),
    ],
)
def test_names_are_told_as_prose(names: list[str], prose: str) -> None:
    assert listed(iter(names)) == prose


def test_the_last_word_can_be_or() -> None:
    assert listed(["a", "b", "c"], last="or") == "a, b or c"


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("trian", ["train", "tried"], "train"),
        ("Train", ["train", "Trail"], "train"),
        ("a", ["b"], "b"),
        ("model", ["models", "modes"], "models"),
        ("alpha", ["beta"], None),
        ("x", [], None),
        ("", ["abc"], None),
    ],
)
def test_the_nearest_name_is_meant(word: str, known: list[str], meant: str | None) -> None:
    assert closest(word, known) == meant
    assert did_you_mean(word, known) == (meant and f"did you mean {meant!r}?")


@given(st.text(min_size=3), st.integers(0, 50))
def test_a_name_with_two_letters_swapped_is_recognised(name: str, place: int) -> None:
    i = place % (len(name) - 1)
    swapped = name[:i] + name[i + 1] + name[i] + name[i + 2 :]

    assert closest(swapped, [name]) == name


@given(st.text(max_size=8), st.lists(st.text(max_size=8), max_size=5))
def test_a_known_name_is_meant_by_itself(word: str, known: list[str]) -> None:
    assert closest(word, [*known, word]) == word
