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


def test_lists():
    check = schema.list_of(schema.whole(0))
    assert not check([]) and not check((1, 1)) and check([1, -1]).startswith('[1] is -1, not')
    for wrong in ('ab', b'ab', {1}, 3):
        assert check(wrong).endswith(', not a list'), wrong
    unique = schema.list_of(schema.TEXT, is_unique=True)
    assert not unique(['a', 'b']) and unique(['a', 'b', 'c', 'b']) == " has 'b' twice"


def test_fields_that_are_needed_and_that_may_be_there():
    check = schema.fields({'a': schema.TEXT}, {'b': schema.NUMBER})
    assert not check({'a': ''}) and not check({'a': '', 'b': 1, 'c': check})
    assert check({'b': 1}) == '.a is missing' and check([]).endswith('a table of names and values')
    assert check({'a': 1}) == '.a is 1, not a text'
    assert check({'a': '', 'b': '1'}) == ".b is '1', not a finite number"


@pytest.mark.parametrize('text', ['a\x1fb', 'a\x7fb', 'a\x9fb', 'a\u2028b', 'a\u2029b', 'a\u202eb',
                                  'a\u2069b', 'a\nb'])
def test_names_are_one_line_that_drives_nothing(text):
    assert schema.NAME(text) and not schema.TEXT(text) and not schema.NAME('a b\xa0é')


@pytest.mark.parametrize('check, right, wrong', [
    (schema.REAL, (1, 0.5, float('nan')), (True, '1', None)), (schema.BOOL, (True, False), (1, 0)),
    (schema.NUMBER, (1, 0.5), (float('nan'), True)), (schema.OBJECT, ({}, {'a': 1}), ([], 'a')),
    (schema.TEXT, ('', 'a\nb'), (b'a', 1)), (schema.NAME, ('', 'a b'), ('a\nb', 1, None))])
def test_plain_values(check, right, wrong):
    assert not any(map(check, right)) and all(map(check, wrong))
