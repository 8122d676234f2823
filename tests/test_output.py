"""What is printed: control characters are shown, and no stream that fails is a traceback."""

import fcntl
import io
import os
import select
import subprocess
import sys

import pytest

from runtime import errors
from runtime.output import (SafeStream, be_quiet, is_quiet, note, printable, safe_streams,
                            shown_control, to_stderr, warn, wrapped, wrote)
from tests.processes import LIMIT_SEC, ROOT, start_main
from util_scripts import describe_checkpoint

ODD_NAMES = ['a\33[2Jb', 'a\nerror: b', 'a\rb', '\x9b2J', 'a\7', '\u202egpj.exe', 'a\0', '\ud800',
             '\udcff', 'é', '日本', 'a\tb']


@pytest.mark.parametrize('name', ODD_NAMES)
def test_names_are_one_line_without_control_characters(name):
    line = printable(name)
    assert '\n' not in line and '\r' not in line and '\33' not in line and line.isprintable() | (
        '\t' in line)
    line.encode()
    assert printable(line) == line


def test_every_control_character_is_shown():
    for code in [*range(32), *range(0x7f, 0xa0), *range(0x202a, 0x202f)]:
        shown = shown_control(chr(code))
        assert shown == chr(code) if chr(code) in '\t\n\r' else shown.startswith('\\')


def test_progress_bars_keep_their_carriage_returns():
    stream = io.StringIO()
    safe = SafeStream(stream, True)
    for text in ('\rbar', '\r   \r', 'a\rb', '\r\n', 'a\nb\n'):
        safe.write(text)
    assert stream.getvalue() == '\rbar\r   \ra\\rb\r\na\nb\n'


def test_streams_are_what_they_were_afterwards(capsys):
    before = sys.stdout, sys.stderr
    with safe_streams(False):
        print('a\33b')
        with safe_streams(False):
            print('c', file=sys.stderr)
    assert (sys.stdout, sys.stderr) == before
    assert capsys.readouterr() == ('a\\x1bb\n', 'c\n')


class Broken(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


# What writing raises, and the exit status then.
FAILURES = [(BrokenPipeError(32, 'Broken pipe'), 141), (OSError(28, 'No space left on device'), 1),
            (ValueError('I/O operation on closed file'), 1)]


@pytest.mark.parametrize('error, status', FAILURES)
def test_a_command_ends_where_its_stdout_fails(monkeypatch, capsys, error, status):
    monkeypatch.setattr(sys, 'stdout', Broken(error))
    done = []
    with pytest.raises(SystemExit) as ended:
        errors.run(lambda _: (print('a'), done.append(1)))
    said = capsys.readouterr().err
    assert ended.value.code == status and not done
    assert said == ('' if status == 141 else
                    f'error: stdout cannot be written: {getattr(error, "strerror", 0) or error}; '
                    'free space, or give another place for it\n')


def test_a_training_outlives_its_stdout(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'stdout', Broken(OSError(28, 'No space left on device')))
    with pytest.raises(SystemExit) as ended:
        errors.run(lambda _: print('a') or print('b'), outlives_stdout=True)
    assert not ended.value.code
    assert capsys.readouterr().err == ('warning: stdout cannot be written (No space left on '
                                       'device); the run goes on\n')


def test_nothing_is_said_where_stderr_fails(monkeypatch):
    monkeypatch.setattr(sys, 'stderr', Broken(OSError(5, 'Input/output error')))
    for command, status in ((lambda _: print('a', file=sys.stderr), 0),
                            (lambda _: describe_checkpoint.main(['gone.pth']), 2)):
        with pytest.raises(SystemExit) as ended:
            errors.run(command)
        assert (ended.value.code or 0) == status


def shell(command):
    return subprocess.run(['bash', '-c', f'set -o pipefail; {command}'], cwd=ROOT, text=True,
                          capture_output=True)


DESCRIBE = f'{sys.executable} -m util_scripts.describe_checkpoint'


@pytest.mark.parametrize('command, status, said', [
    (f'{DESCRIBE} --help > /dev/full', 1, 'error: stdout cannot be written: No space left'),
    (f'{DESCRIBE} --help >&-', 0, ''), (f'{DESCRIBE} --wrong 2>&-', 2, ''),
    (f'{DESCRIBE} --wrong 2> /dev/full', 2, ''), (f'{DESCRIBE} --wrong <&- >&- 2>&-', 2, ''),
    (f'{sys.executable} -c "import time; time.sleep(0.1)" | {DESCRIBE} --help | true', 141, ''),
])
@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='has no /dev/full')
def test_streams_of_processes(command, status, said):
    ended = shell(command)
    assert ended.returncode == status or (status, ended.returncode) == (141, 0), ended
    assert ended.stderr.startswith(said) and ended.stderr.count('\n') <= 1, ended


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='has no /dev/full')
def test_a_training_is_whole_whose_streams_are_full(tiny_data, tmp_path):
    process = start_main(tiny_training(tiny_data, tmp_path), '/dev/full')
    process.join(LIMIT_SEC)
    assert process.exitcode == 0 and (tmp_path / 'results' / 'save_1.pth').exists()


@pytest.mark.slow
def test_a_training_is_whole_whose_streams_are_closed(tiny_data, tmp_path):
    argv = ' '.join(map(str, tiny_training(tiny_data, tmp_path)))
    ended = shell(f'{sys.executable} main.py {argv} >&- 2>&-')
    assert ended.returncode == 0 and (tmp_path / 'results' / 'save_1.pth').exists()


def tiny_training(data, folder):
    return data.argv(folder / 'results', '--n_epochs', 1, '--sample_duration', 4)


@pytest.mark.slow
def test_a_training_is_whole_whoever_leaves_its_output(tiny_data, tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    reader = os.open(tmp_path / 'pipe', os.O_RDONLY | os.O_NONBLOCK)
    process = start_main(tiny_training(tiny_data, tmp_path), tmp_path / 'pipe')
    select.select([reader], [], [], LIMIT_SEC)  # it has said something
    os.close(reader)
    process.join(LIMIT_SEC)
    assert process.exitcode == 0 and (tmp_path / 'results' / 'save_1.pth').exists()


def test_names_in_files_do_not_drive_a_terminal(own_data, tmp_path, capsys):
    from tests.tiny_data import run_main
    annotation = own_data.read()
    entry = annotation['database'].pop('red_0')
    annotation['database']['red\33[2J\nerror: forged'] = entry
    own_data.write(annotation)
    run_main(own_data.argv(tmp_path / 'results', '--n_epochs', 1))
    said = ''.join(capsys.readouterr())
    assert '\33' not in said and '\nerror: forged' not in said


def test_notes_are_wrapped_on_a_terminal_alone(monkeypatch, capsys):
    line = 'a.pth: ' + ', '.join(['taken from the file'] * 9)

    def said():
        to_stderr(line)
        first = capsys.readouterr().err
        note(line, sys.stderr)
        assert capsys.readouterr().err == first
        return first
    assert said() == f'{line}\n'
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    lines = said().splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 100
    assert ' '.join(map(str.strip, lines)) == line


def test_what_goes_to_stderr_goes_through_here():
    """Printed otherwise are lines of progress, what holds a command to paste, and what is made for
    stderr and then printed above a progress bar."""
    elsewhere = {'runtime/logs.py': 1, 'runtime/errors.py': 1, 'datasets/loading.py': 1}
    for path in [*ROOT.glob('*.py'), *ROOT.glob('[a-z]*/**/*.py')]:
        name = str(path.relative_to(ROOT))
        if name.split('/')[0] != 'tests' and name != 'runtime/output.py':
            assert path.read_text().count('file=sys.stderr') == elsewhere.pop(name, 0), name
    assert not elsewhere


def test_errors_are_wrapped_on_a_terminal(monkeypatch, capsys):
    def fail(_):
        raise errors.InputError('a.json: ' + 'no such file; check the path and ' * 5)
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    with pytest.raises(SystemExit):
        errors.run(fail, [])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 100 and lines[0].startswith('error: a.json')


def test_long_lines_are_broken_between_words_alone():
    assert wrapped('a' * 49 + ' ' + 'b' * 50) == 'a' * 49 + ' ' + 'b' * 50
    assert wrapped('a' * 50 + ' ' + 'b' * 50) == 'a' * 50 + '\n  ' + 'b' * 50
    for word in ('x' * 120, 'x-' * 60):
        assert wrapped(f'a {word} b') == f'a\n  {word}\n  b'


def test_files_are_named_up_to_eight(capsys):
    for n, words in ((8, 'written: a/0.png, a/1.png'), (9, 'written: 9 files in a (two)')):
        wrote(*(f'a/{i}.png' for i in range(n)), about='two', then='look')
        assert capsys.readouterr().out.startswith(words)


@pytest.mark.parametrize('say', [note, lambda line: note(line, sys.stderr), to_stderr, warn])
def test_what_is_said_is_there_at_once(monkeypatch, say):
    """Also where a command is killed, and where it is read by another program."""
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding='utf-8', write_through=False)
    monkeypatch.setattr(sys, 'stdout', stream)
    monkeypatch.setattr(sys, 'stderr', stream)
    say('a')
    assert written.getvalue().endswith(b'a\n')


def test_a_command_is_quiet_alone(capsys):
    be_quiet()
    with safe_streams(False):
        assert not is_quiet()
        be_quiet()
        note('a')
    assert not is_quiet() and capsys.readouterr().out == ''


def test_descriptors_that_were_closed_go_nowhere():
    """Else the next file that is opened would be the stdin of the command, or take what it says."""
    kept = [os.dup(number) for number in range(3)]
    try:
        for number in range(3):
            os.close(number)
        with safe_streams(False):
            modes = [fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE for number in range(3)]
            places = {os.fstat(number).st_rdev for number in range(3)}
    finally:
        for number, copy in enumerate(kept):
            os.dup2(copy, number)
            os.close(copy)
    assert modes == [os.O_RDONLY, os.O_WRONLY, os.O_WRONLY]
    assert places == {os.stat(os.devnull).st_rdev}


def test_a_note_goes_to_the_file_that_is_given(capsys):
    file = io.StringIO()
    note('a\nb', file)
    note('c')
    assert file.getvalue() == 'a\\nb\n' and capsys.readouterr() == ('c\n', '')
