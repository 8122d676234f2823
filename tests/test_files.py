"""Files that are written whole or not at all."""

import os
import socket
from pathlib import Path

import pytest

from runtime.errors import InputError
from runtime.files import (keep_copy, read_file, replacing, write_json, write_opts, write_text,
                           writing_whole)
from util_scripts.helpers.files import make_place


@pytest.mark.parametrize('writing', [replacing, writing_whole,
                                     lambda path: writing_whole(path, durable=True)],
                         ids=['replacing', 'whole', 'durable'])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, writing):
    path = tmp_path / 'a.txt'
    for text in 'first', 'second':
        with writing(path) as temporary:
            temporary.write_text(text)
            assert temporary.parent == tmp_path
        assert path.read_text() == text and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ZeroDivisionError), writing(path) as temporary:
        temporary.write_text('half')
        1 / 0
    assert path.read_text() == 'second' and list(tmp_path.iterdir()) == [path]


def test_missing_folders_are_made(tmp_path):
    write_json(tmp_path / 'a' / 'b.json', [1])
    assert (tmp_path / 'a' / 'b.json').read_text() == '[1]\n'
    with pytest.raises(FileNotFoundError), writing_whole(tmp_path / 'c' / 'd') as temporary:
        temporary.write_text('d')
    assert os.listdir(tmp_path) == ['a']


def test_where_nothing_can_be_written(tmp_path):
    write_text(tmp_path / 'file', 'mine')
    with pytest.raises(InputError, match='below: cannot be written: .*; free space, mend'):
        write_text(tmp_path / 'file' / 'below', '')
    assert (tmp_path / 'file').read_text() == 'mine' and os.listdir(tmp_path) == ['file']


def _socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize('make, said', [
    (os.mkfifo, 'it is a pipe'), (_socket, 'it is a socket'), (os.mkdir, 'Is a directory'),
    (lambda path: path.symlink_to('/dev/null'), 'it is a device'),
    (lambda path: path.symlink_to(path.name), 'Too many levels')])
def test_what_is_no_file_is_neither_read_nor_replaced(tmp_path, monkeypatch, make, said):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    make(tmp_path / 'odd')
    kind = os.lstat('odd').st_mode
    with pytest.raises(InputError, match=f'odd: cannot be written: {said}.*give another path'):
        write_text('odd', 'text')
    assert os.lstat('odd').st_mode == kind and os.listdir() == ['odd']
    with pytest.raises(OSError, match=said):
        read_file('odd')
    with pytest.raises(InputError, match=f'odd: (cannot be written: {said}|is a folder)'):
        make_place(Path('odd'))


def test_any_text_can_be_written(tmp_path):
    """Names of files have bytes that are no UTF-8, and the locale may be of another century."""
    write_text(tmp_path / 'a', 'caf\udce9 \u65e5')
    assert (tmp_path / 'a').read_bytes() == b'caf\\udce9 \xe6\x97\xa5'


@pytest.mark.parametrize('letter', ['n', '\u00e9'])
def test_names_of_any_length(tmp_path, letter):
    name = letter * (250 // len(os.fsencode(letter)))
    write_text(tmp_path / name, 'text')
    assert (tmp_path / name).read_text() == 'text'


def test_copies_are_numbered(tmp_path):
    write_text(tmp_path / 'train.log', 'rows')
    keep_copy(tmp_path / 'train.log')
    keep_copy(tmp_path / 'train.log')
    assert sorted(os.listdir(tmp_path)) == ['train.1.log', 'train.2.log', 'train.log']


def test_other_options_are_kept(tmp_path):
    for text in 'a', 'a', 'b':
        write_opts(tmp_path, text)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        'opts.json': 'b', 'opts.1.json': 'a'}
