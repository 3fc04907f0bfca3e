"""Own bytes and shared bytes."""

from hypothesis import given
from hypothesis import strategies as st

from engine.stores.usage import Share, Shares

DIGESTS = [bytes([n]) * 32 for n in range(6)]
SIZES = st.dictionaries(st.sampled_from(DIGESTS), st.integers(0, 100))
REFERENCES = st.dictionaries(st.sampled_from("abcd"), st.sets(st.sampled_from(DIGESTS)))


def test_what_two_refer_to_is_shared_and_what_nobody_does_is_left_over() -> None:
    one, two, three, four = DIGESTS[:4]
    shares = Shares({one: 1, two: 10, three: 100, four: 1000})
    shares.add("a", {one, two})
    shares.add("b", {two, three})
    assert shares.of_each() == {"a": Share(1, 10), "b": Share(100, 10)}
    assert shares.unreferenced_bytes() == 1000


@given(SIZES, REFERENCES)
def test_own_bytes_are_those_that_would_be_free_if_it_went(
    sizes: dict[bytes, int], references: dict[str, set[bytes]]
) -> None:
    def held(without: str) -> int:
        kept = set().union(*(theirs for name, theirs in references.items() if name != without))
        return sum(sizes.get(digest, 0) for digest in kept)

    shares = Shares(sizes)
    for name, digests in references.items():
        shares.add(name, digests)
    found = shares.of_each()
    for name, digests in references.items():
        assert found[name].own_bytes == held("") - held(name)
        total = sum(sizes.get(digest, 0) for digest in digests)
        assert found[name].own_bytes + found[name].shared_bytes == total
    assert shares.unreferenced_bytes() == sum(sizes.values()) - held("")
