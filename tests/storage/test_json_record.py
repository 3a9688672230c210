"""Records and their JSON: what is written is read back, and what was not written is refused."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nstudent.storage.json_record import JsonRecord, json_key


@dataclass(frozen=True)
class Inner(JsonRecord):
    number: float
    name: str | None


@dataclass(frozen=True)
class Outer(JsonRecord):
    count: int
    flag: bool
    inner: Inner
    by_name: dict[str, Inner | None]
    rows: tuple[tuple[int, ...], ...]
    spaced: str = field(metadata=json_key("a key"))
    later: float | None = None


numbers = st.floats(allow_nan=False, allow_infinity=False)
inners = st.builds(Inner, numbers, st.none() | st.text())
outers = st.builds(
    Outer,
    st.integers(),
    st.booleans(),
    inners,
    st.dictionaries(st.text(), st.none() | inners),
    st.lists(st.lists(st.integers()).map(tuple)).map(tuple),
    st.text(),
    st.none() | numbers,
)
ONE = Outer(1, True, Inner(0.5, None), {"a": None}, ((1, 2), ()), "x")


@given(outers)
def test_what_is_written_is_read_back(record: Outer) -> None:
    assert Outer.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_the_json_is_what_it_says_and_leaves_out_a_default() -> None:
    inner = {"number": 0.5, "name": None}
    expected = {"count": 1, "flag": True, "inner": inner, "by_name": {"a": None}, "rows": [[1, 2], []], "a key": "x"}
    assert ONE.to_json() == expected
    assert list(ONE.to_json()) == list(expected), "in the order of the class"


def test_a_whole_number_where_any_number_may_stand_stays_whole() -> None:
    assert json.dumps(Inner.from_json({"number": 3, "name": "x"}).to_json()) == '{"number": 3, "name": "x"}'


def test_a_record_of_a_later_version_is_read_without_what_is_new() -> None:
    assert Outer.from_json(ONE.to_json() | {"newer": [1]}) == ONE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"count": 1.5}, "count is not a whole number"),
        ({"count": True}, "count is not a whole number"),
        ({"count": None}, "count is not a whole number"),
        ({"flag": 1}, "flag is not a boolean"),
        ({"inner": 3}, "inner is not an object"),
        ({"inner": {"number": "1", "name": None}}, r"inner\.number is not a number"),
        ({"inner": {"number": True, "name": None}}, r"inner\.number is not a number"),
        ({"inner": {"number": float("inf"), "name": None}}, r"inner\.number is not a number"),
        ({"inner": {"number": 1.0, "name": 3}}, r"inner\.name is not text"),
        ({"inner": {"number": 1.0}}, r"inner\.name is missing"),
        ({"by_name": []}, "by_name is not an object"),
        ({"by_name": {"b": {"number": 1.0}}}, r"by_name\.b\.name is missing"),
        ({"rows": [[1], 2]}, r"rows\[1\] is not a list"),
        ({"rows": [[1, "2"]]}, r"rows\[0\]\[1\] is not a whole number"),
        ({"later": "soon"}, "later is not a number"),
    ],
)
def test_what_is_of_another_type_is_refused_and_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        Outer.from_json(ONE.to_json() | change)


@pytest.mark.parametrize("data", [None, [], "x", 3])
def test_what_is_not_an_object_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="it is not an object"):
        Outer.from_json(data)
