import pytest
from nstudent.errors import ConfigError
from nstudent.tables import chosen


def test_an_entry_is_found_by_its_name() -> None:
    assert chosen({"one": 1, "two": 2}, "two", "student.number") == 2


def test_a_name_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"student\.number: there is no 'three': choose from one, two"):
        chosen({"one": 1, "two": 2}, "three", "student.number")
