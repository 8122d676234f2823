"""Which module may import which, since data flows one way, and which file of tests is whose."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRANSFORMS = {'spatial_transforms', 'temporal_transforms'}
LOOPS = {'training', 'validation', 'inference'}
# Rooms of ours that each may import.
ALLOWED = {
    'runtime': {'runtime'},
    'opts': {'models', 'runtime'},
    'spatial_transforms': {'runtime'},
    'temporal_transforms': {'runtime'},
    'metrics': {'runtime'},
    'checkpoint': {'runtime', 'weights'},
    'weights': {'opts', 'models', 'runtime'},
    'features': {'runtime'},
    'results': {'opts', 'checkpoint', 'runtime', 'features'},
    'tasks': {'metrics', 'runtime'},
    'optim': {'runtime'},
    'defaults': {'datasets', 'models', 'opts', 'runtime'},
    'overview': {'datasets', 'models', 'opts', 'runtime'},
    'resume': {'averaging', 'metrics', 'optim', 'opts', 'runtime', 'weights'},
    'run': {'features', 'models', 'opts', 'runtime', 'tasks', 'weights'},
    'datasets': {'opts', 'datasets', 'runtime', *TRANSFORMS},
    'models': {'models', 'runtime'},
    'model': {'checkpoint', 'opts', 'models', 'weights', 'runtime', 'spatial_transforms', 'tasks'},
    'validation': {'metrics', 'opts', 'run', 'runtime', 'tasks', 'weights'},
    'inference': {'features', 'results', 'run', 'runtime', 'tasks'},
    'averaging': set(),
    'distillation': {'model', 'opts', 'runtime'},
    'training': {'averaging', 'checkpoint', 'datasets', 'distillation', 'metrics', 'model',
                 'models', 'optim', 'opts', 'overview', 'resume', 'run', 'runtime',
                 'spatial_transforms', 'tasks', 'validation'},
    'main': {'defaults', 'overview', 'resume', 'run', 'opts', 'datasets', 'model', 'models',
             'checkpoint', 'runtime', 'metrics', 'features', 'results', 'tasks', 'weights',
             *TRANSFORMS, *LOOPS},
    'hubconf': {'model', 'models'},
    'util_scripts': {'defaults', 'optim', 'opts', 'overview', 'datasets', 'model', 'models',
                     'checkpoint', 'runtime', 'metrics', 'features', 'results', 'tasks',
                     'util_scripts', 'weights',
                     *TRANSFORMS, *LOOPS},
}
# Files of tests that are of no one module, by the words that begin their names: what they are of.
SUBJECTS = {
    'advice': 'the cures that errors of all modules give',
    'bad_input': 'every command and flag given what is wrong',
    'command_ends': 'what every command says at its end',
    'commands': 'the help of every command',
    'docs': 'the pages for people',
    'fuzz': 'all readers of files, by tests/fuzz.py',
    'hostile_data': 'annotations, frames and features that are made wrong on purpose',
    'imports': 'the rooms of the code',
    'multi_label': 'lists of labels, from the annotation to the pictures',
    'pipeline': 'real clips, from the frames to recorded results',
    'processes': 'main.py in processes with signals, launchers and limits',
    'properties': 'what holds for whatever is drawn, by hypothesis',
    'recipes': 'the files of flags in recipes/',
}
FILES = [path for path in sorted(ROOT.rglob('*.py'))
         if path.relative_to(ROOT).parts[0].removesuffix('.py') in ALLOWED]


def _room(path):
    return path.relative_to(ROOT).parts[0].removesuffix('.py')


def _imports(path):
    """Top-level names of all modules that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            yield node.module.split('.')[0]


def test_every_module_has_a_room():
    top = {path.stem for path in ROOT.glob('*.py')}
    assert top <= ALLOWED.keys(), 'say in ALLOWED what the new module may import'
    assert FILES


@pytest.mark.parametrize('path', sorted(ROOT.glob('util_scripts/helpers/*.py')),
                         ids=lambda path: path.stem)
def test_helpers_import_no_command(path):
    commands = {f'util_scripts.{command.stem}' for command in ROOT.glob('util_scripts/*.py')}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
            assert not names & commands


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    ours = set(_imports(path)) & ALLOWED.keys()
    assert ours <= ALLOWED[_room(path)]


def test_opts_and_errors_do_not_wait_for_torch():
    code = ('import sys, opts, runtime.arguments, runtime.errors; opts.build_parser(); '
            'sys.exit("torch" in sys.modules)')
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0


def test_test_files_are_called_as_modules():
    """tests/test_NAME.py or test_NAME_SUBJECT.py is of a module, command or package NAME."""
    modules = {path.stem.strip('_') for path in FILES} | {path.parent.name for path in FILES}
    files = {path.stem.removeprefix('test_') for path in ROOT.glob('tests/test_*.py')}

    def of_any(names):
        return {file for file in files for name in names if f'{file}_'.startswith(f'{name}_')}
    assert not files - of_any(modules) - of_any(SUBJECTS), 'see Tests in CONTRIBUTING.md'
    assert not [name for name in SUBJECTS if not of_any([name])]
