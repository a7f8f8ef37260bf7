"""The allophone inventory, and the order of a hash set that numbers it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtrain.errors import LexiconError
from seqtrain.lexicon.bliss import BlissPhoneme
from seqtrain.lexicon.rasr.allophones import AllophoneInventory
from seqtrain.lexicon.rasr.hash_order import hash_set_order
from seqtrain.lexicon.rasr.phonology import Allophone, Phonology
from tests.fsa.strategies import quick

PHONEMES = (BlissPhoneme("[S]", False), BlissPhoneme("A"), BlissPhoneme("B"))


@pytest.mark.parametrize(
    ("values", "order"),
    [
        ([], []),
        ([7, 3, 9, 3], [9, 3, 7]),
        # 5, 18, 31 and 44 share a bucket of 13, as 2, 15 and 28 do, and so on; a 14th element makes the buckets more.
        ([5, 18, 31, 44, 2, 15, 28, 9, 22, 35, 48, 1, 14], [14, 1, 48, 35, 22, 9, 28, 15, 2, 44, 31, 18, 5]),
        (
            [5, 18, 31, 44, 2, 15, 28, 9, 22, 35, 48, 1, 14, 27, 3],
            [3, 27, 5, 18, 31, 2, 44, 15, 28, 9, 22, 35, 48, 1, 14],
        ),
        (range(1, 21), [20, 19, 18, 17, 16, 15, 14, *range(1, 14)]),
    ],
)
def test_the_order_of_a_hash_set(values: list[int], order: list[int]) -> None:
    # As std::unordered_set<int> of GNU's C++ library hands them out.
    assert hash_set_order(values) == order


@quick
@given(st.lists(st.integers(1, 300), max_size=140))
def test_a_hash_set_has_each_element_once(values: list[int]) -> None:
    order = hash_set_order(values)
    assert sorted(order) == sorted(set(values))


def names(*pronunciations: tuple[int, ...], **options: int) -> list[str]:
    inventory = AllophoneInventory(Phonology(PHONEMES, **options))  # type: ignore[arg-type]
    inventory.add_from_lexicon(pronunciations)
    return list(inventory.names)


def test_from_the_lexicon() -> None:
    spoken = ((1,), (2, 3), (3,), (2, 1, 2), ())
    alone = ["[S]{#+#}@i@f", "A{#+B}@i", "B{A+#}@f", "B{#+#}@i@f", "A{#+#}@i", "[S]{#+#}", "A{#+#}@f"]
    assert names(*spoken) == alone
    across = names(*spoken, across_words=1)
    assert across[: len(alone)] == alone
    # B and A end words, A and B begin them; the one met last comes first.
    assert across[7:13] == ["A{A+B}@i", "A{B+B}@i", "B{A+#}@i@f", "B{B+#}@i@f", "A{A+#}@i", "A{B+#}@i"]
    assert across[13:] == [
        f"{phoneme}{{{left}+{right}}}{edges}"
        for phoneme, left, edges in (
            ("B", "A", "@f"),
            ("B", "#", "@i@f"),
            ("A", "#", "@f"),
            ("B", "A", "@i@f"),
            ("B", "B", "@i@f"),
        )
        for right in ("B", "A")
    ]


def test_contexts_that_do_not_count() -> None:
    spoken = ((1,), (2, 3), (3, 2))
    assert names(*spoken, history=0, future=0, across_words=1) == [
        "[S]{#+#}@i@f",
        "A{#+#}@i",
        "B{#+#}@f",
        "B{#+#}@i",
        "A{#+#}@f",
    ]
    assert names(*spoken, history=1, future=0, across_words=1)[1:] == [
        *("A{#+#}@i", "B{A+#}@f", "B{#+#}@i", "A{B+#}@f"),
        *("A{A+#}@i", "A{B+#}@i", "B{A+#}@i", "B{B+#}@i"),
    ]


def test_names_and_numbers() -> None:
    inventory = AllophoneInventory(Phonology(PHONEMES))
    inventory.add_from_lexicon([(2, 3)])
    allophone = Allophone(3, 2, 0, False, True)
    assert inventory.parse("B{A+#}@f") == allophone
    assert (inventory.index(allophone), inventory.index(Allophone(3, 0, 0, False, True))) == (1, None)
    assert inventory.text() == "# Number of allophones: 2\nA{#+B}@i\nB{A+#}@f\n"
    inventory.add_missing_silence()
    assert (len(inventory), inventory.names[-1]) == (3, "65535?{#+#}@i@f")
    for name, message in (
        ("A", "'A' isn't an allophone, such as"),
        ("A{#+#}@f@i", "isn't an allophone"),
        ("#{#+#}", "no phoneme '#'"),
        ("A{X+#}", "no phoneme 'X'"),
    ):
        with pytest.raises(LexiconError, match=message):
            inventory.parse(name)
