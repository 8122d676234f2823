"""Checks of fields: what they take, and what they say of the rest."""

import pytest

from runtime import schema


@pytest.mark.parametrize('value, text', [
    (None, 'None'), (True, 'True'), (3, '3'), (0.5, '0.5'), ('a', "'a'"),
    ('x' * 58, repr('x' * 58)), ('x' * 59, "'" + 'x' * 59 + '...'),
    ([1], 'a value of type list')])
def test_values_in_sentences(value, text):
    assert schema.shown(value) == text
    assert schema.shown(10 ** 5000) == 'a very large number'


def test_whole_numbers():
    check = schema.whole(1)
    assert not check(1) and not check(2 ** 63 - 1)
    for wrong in (0, True, 1.0, '1', None):
        assert check(wrong).endswith(', not a whole number of at least 1'), wrong
    assert check(2 ** 63)
    assert schema.whole(0, 5)(6) == ' is 6, not a whole number of 0 to 5'
    assert schema.whole(0, 2 ** 63 - 2)(-1).endswith(f'of 0 to {2 ** 63 - 2}')


@pytest.mark.parametrize('value, is_right', [(1, True), (0.5, True), (2 ** 999, True),
                                             (2 ** 1000, False), (-2 ** 1000, False), (True, False),
                                             (float('inf'), False), (float('nan'), False),
                                             ('1', False)])
def test_numbers_that_floats_can_be(value, is_right):
    assert schema.is_number(value) == is_right


def test_what_may_be_missing():
    check = schema.optional(schema.TEXT)
    assert not check(None) and not check('a')
    assert check(3) == schema.TEXT(3) == ' is 3, not a text'


def test_places_of_faults_are_shown_in_short():
    check = schema.mapping(schema.TEXT, schema.TEXT)
    for name, shown in (('x' * 60, 'x' * 60), ('x' * 61, "'" + 'x' * 59 + '...')):
        assert shown in check({name: 3}) and check({name: 3}).endswith(' is 3, not a text')
