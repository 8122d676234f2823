"""README says what is true: its Python runs, its commands and flags exist."""

import importlib
import re

import pytest

import main
from tests.helpers import ROOT, grey_frames, write_video
from tests.tiny_data import run_main

README = (ROOT / 'README.md').read_text()
# Flags of programs that are not ours: torchrun, srun, pytest, pip, docker.
FOREIGN = {'--nproc_per_node', '--nnodes', '--rdzv_backend', '--rdzv_endpoint', '--max-restarts',
           '--signal', '--requeue', '--kills', '--index-url', '--shm-size'}
FLAG = re.compile(r'(?<![\w-])--[a-z]\w*(?:-\w+)*')
COMMAND = re.compile(r'(main\.py|-m util_scripts\.([a-z]\w*))((?:[^`\n\\#]|\\\n)*)')
SNIPPETS = re.findall(r'```python\n(.*?)```', README, re.DOTALL)


def flags_of(command, capsys):
    """The flags in a command's help."""
    with pytest.raises(SystemExit) as ended:
        command(['--help'])
    assert not ended.value.code
    return set(FLAG.findall(capsys.readouterr().out))


def test_snippets_run(tmp_path, tiny_data, monkeypatch):
    assert run_main(tiny_data.argv(tmp_path / 'results', '--n_epochs', 1)) == 0
    (tmp_path / 'results' / 'save_1.pth').rename(tmp_path / 'results' / 'save_200.pth')
    write_video(tmp_path / 'clips' / 'a.mp4', grey_frames(range(0, 200, 5)))
    monkeypatch.chdir(tmp_path)
    names = {}
    assert SNIPPETS
    for snippet in SNIPPETS:
        exec(snippet, names)


def test_commands_have_the_flags_they_are_given(capsys):
    commands = COMMAND.findall(README)
    assert any(script == 'predict' for _, script, _ in commands)
    for name, script, rest in commands:
        command = importlib.import_module(f'util_scripts.{script}') if script else main
        unknown = set(FLAG.findall(rest)) - flags_of(command.main, capsys)
        assert not unknown, f'{name} has no {unknown}'


def test_every_flag_exists(capsys):
    known = FOREIGN | flags_of(main.main, capsys)
    for path in (ROOT / 'util_scripts').glob('*.py'):
        if "__name__ == '__main__'" in path.read_text():
            module = importlib.import_module(f'util_scripts.{path.stem}')
            known |= flags_of(module.main, capsys)
    assert not set(FLAG.findall(README)) - known
