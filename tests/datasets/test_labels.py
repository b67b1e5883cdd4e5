"""The data's class names against the network's."""

from __future__ import annotations

import pytest

from seewhy.datasets._labels import Binding, match
from seewhy.errors import InvalidInput

IMAGENET = ["tench, Tinca tinca", "tiger cat", "crane", "toilet tissue, toilet paper", "crane"]


def refused(*arguments: object, **options: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        match(*arguments, **options)  # type: ignore[arg-type]
    return str(caught.value)


def test_names_are_found_whatever_their_case_among_synonyms_and_with_underscores() -> None:
    found = match(["Toilet Paper", "tiger_cat", "tinca tinca"], IMAGENET, 5)
    assert found.table == (3, 1, 0)
    assert found.notes == ()
    assert found.labels([2, 0, 2]) == (0, 3)
    assert found.of("tiger_cat") == 1
    assert match(["a b"], ["a-b, x", "a b, y"], 2).table == (1,)  # as it is written before anything else


def test_some_names_unknown_is_an_error_or_ignored() -> None:
    assert refused(["tiger cat", "tiger cub", "crane"], IMAGENET, 5) == (
        "2 of the data's 3 classes are not found among the network's: 'tiger cub' (Did you mean 'tiger cat'?); "
        "'crane' (names several classes: 2, 4). Rename, or pass unmatched='ignore' to leave them out."
    )
    found = match(["tiger cat", "tiger cub"], IMAGENET, 5, unmatched="ignore")
    assert found.notes == ("Classes that the network does not have are ignored: 'tiger cub'.",)
    assert found.labels([0, 1]) == (1,)
    assert found.labels([1]) is None  # something is there, but nothing that the network could say
    assert found.labels([]) == ()


def test_no_name_known_means_no_truth() -> None:
    found = match(["n01", "n02", "n03", "n04"], ["cat", "dog"], 2)
    assert found.labels([0]) is None
    assert found.of(1) is None
    assert found.notes == (
        "None of the data's 4 class names is among the network's ('n01', 'n02', 'n03', ...): the true classes are not "
        "known.",
    )


def test_a_network_without_names_takes_as_many_classes_in_order() -> None:
    found = match(["cat", "dog"], None, 2)
    assert found.labels([1]) == (1,)
    assert found.notes == (
        "The network has no class names: the data's 2 classes are its classes in this order: 'cat', 'dog'.",
    )
    other = match(["cat", "dog"], None, 3)
    assert other.unknown
    assert other.notes == (
        "The network has 3 classes without names, the data have 2 ('cat', 'dog'): the true classes are not known.",
    )


def test_numbers_for_names_are_never_guessed_where_order_and_number_differ() -> None:
    ten = sorted(map(str, range(11)))  # "10" comes after "1"
    assert refused(ten, None, 11) == (
        "The data's class names are numbers: '10' is class 2 in sorted order (as torchvision's ImageFolder counts) and "
        "class 10 by its number. Pass numbers='sorted' or numbers='index'."
    )
    assert match(ten, None, 11, numbers="sorted").of(2) == 2
    assert match(ten, None, 11, numbers="index").of(2) == 10
    assert match(["3", "07"], None, 10).table == (3, 7)
    assert match(["3", "7"], ["a", "b", "c", "d", "e", "f", "g", "h"], 8).table == (3, 7)
    assert match(["0", "1"], None, 2).table == (0, 1)
    assert match(["1", "0"], ["0", "1"], 2).table == (1, 0)
    assert match(["3", "12"], None, 10).unknown


def test_indices_of_data_without_names() -> None:
    bound = match(None, None, 5)
    assert bound.labels([4, 0, 4]) == (4, 0)
    for label, message in (
        (5, "Label 5 is out of range: the network has 5 classes, 0 to 4."),
        (-1, "Label -1 is negative. Classes are counted from 0; -1 is padding, in a list only."),
    ):
        with pytest.raises(InvalidInput) as caught:
            bound.of(label)
        assert str(caught.value) == message
    assert match(None, ["cat", "dog"], 2).of("Dog") == 1
    with pytest.raises(InvalidInput, match=r"The label 'dgo' is not one of the network's. Did you mean 'dog'"):
        match(None, ["cat", "dog"], 2).of("dgo")
    with pytest.raises(InvalidInput, match=r"The network has no class names, so the label 'dog' cannot be looked up."):
        match(None, None, 2).of("dog")
    with pytest.raises(InvalidInput, match=r"Label 2 is out of range: the data have 2 classes, 0 to 1."):
        match(["cat", "dog"], ["dog", "cat"], 2).of(2)
    assert Binding().of(7) == 7
