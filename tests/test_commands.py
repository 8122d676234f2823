"""Every command answers --help and a mistyped flag at once: no torch is imported for that."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = sorted(path.stem for path in (ROOT / 'util_scripts').glob('*.py')
                  if "__name__ == '__main__'" in path.read_text())
# Modules that take from a quarter of a second to some seconds to import.
SLOW = {'torch', 'torchvision', 'h5py', 'matplotlib', 'cv2', 'tensorboard'}
# Runs each command as a process would, but all in one: {command: {flag: (status, out, err, slow)}}.
ASK_ALL = '''
import contextlib, io, json, runpy, sys
slow, answers = set(json.loads(sys.argv[1])), {}
for command in json.loads(sys.argv[2]):
    answers[command] = {}
    for flag in ('--help', '--hepl'):
        sys.modules.pop('util_scripts.' + command, None)  # runpy warns of what is there
        sys.argv = [command, flag]
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                if command == 'main':
                    runpy.run_path('main.py', run_name='__main__')
                else:
                    runpy.run_module('util_scripts.' + command, run_name='__main__')
        except SystemExit as end:
            answers[command][flag] = end.code or 0, out.getvalue(), err.getvalue()
        answers[command]['slow'] = sorted(slow & set(sys.modules))
print(json.dumps(answers))
'''


@pytest.fixture(scope='module')
def answers():
    done = subprocess.run([sys.executable, '-c', ASK_ALL, json.dumps(sorted(SLOW)),
                           json.dumps(['main', *COMMANDS])], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize('command', ['main', *COMMANDS])
def test_help_and_a_mistyped_flag(answers, command):
    called = 'main.py' if command == 'main' else f'-m util_scripts.{command}'
    answer = answers[command]
    status, out, err = answer['--help']
    assert status == 0 and not err and out.split()[:len(called.split()) + 2] == [
        'usage:', 'python', *called.split()]
    status, out, err = answer['--hepl']
    assert status == 2 and not out and err.splitlines() == [
        'error: unknown argument --hepl; did you mean --help?; '
        f'python {called} --help lists all flags']


def test_nothing_slow_is_imported_for_it(answers):
    first = next((f'{command}: {answer["slow"]}' for command, answer in answers.items()
                  if answer['slow']), None)
    assert first is None
