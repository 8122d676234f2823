"""Mutation of our own code: does a test fail where an operator or a number is another one?

    python -m tests.mutate --n 300 --seed 1

Each mutant is a process of its own that has torch imported, so that most are judged in seconds.
Those that no test notices are listed, with what was changed, and their share ends the output.
"""

import argparse
import ast
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch  # noqa: F401  what takes long to import is there before a mutant begins

ROOT = Path(__file__).resolve().parent.parent
# Core modules, and the tests that cover them.
MODULES = {
    'temporal_transforms': ('test_temporal_transforms', 'test_views', 'test_properties'),
    'spatial_transforms': ('test_spatial_transforms', 'test_presets'),
    'metrics': ('test_metrics',),
    'datasets.sampling': ('test_sampling', 'test_properties'),
    'datasets.annotations': ('test_annotations', 'test_hostile_data', 'test_properties'),
    'optim': ('test_optim',),
    'runtime.schema': ('test_hostile_data', 'test_properties'),
    'runtime.output': ('test_output',),
}
SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
         ast.Div: ast.Mult, ast.Mod: ast.FloorDiv, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
         ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or,
         ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot,
         ast.IsNot: ast.Is, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
LIMIT_SEC = 120


def _places(tree):
    """Nodes that can be changed: operators and numbers outside of annotations."""
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if field in ('annotation', 'returns', 'decorator_list'):
                for inner in ast.walk(value) if isinstance(value, ast.AST) else ():
                    inner.is_left = True
    for node in ast.walk(tree):
        if hasattr(node, 'is_left'):
            continue
        if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in SWAPS:
            yield node
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            yield node
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            yield node
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node


def _change(node, rng):
    """Change a node in place; what was done, in words."""
    before = ast.unparse(node)
    if isinstance(node, ast.Constant):
        value = node.value
        node.value = (not value if isinstance(value, bool) else
                      value + rng.choice([-1, 1]) if isinstance(value, int) else value * 2 + 0.1)
    elif isinstance(node, ast.Compare):
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd()
        node.operand = ast.Call(ast.Name('bool', ast.Load()), [node.operand], [])
    else:
        node.op = SWAPS[type(node.op)]()
    return f'line {node.lineno}: {before} -> {ast.unparse(ast.fix_missing_locations(node))}'


class Mutant(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module of ours from a changed tree."""

    def __init__(self, name, path, tree):
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def exec_module(self, module):
        exec(compile(self.tree, str(self.path), 'exec'), module.__dict__)


def _judge(name, path, tree, tests):
    """The body of a process: exits 0 where all tests pass."""
    os.setpgid(0, 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.meta_path.insert(0, Mutant(name, path, tree))
    files = [f'tests/{test}.py' for test in tests if (ROOT / f'tests/{test}.py').exists()]
    os._exit(int(pytest.main(['-x', '-q', '-p', 'no:cacheprovider', '--seed', '1', '-m',
                              'not slow', *files])))


def survives(name, tree, tests):
    """True if no test fails, and none takes forever."""
    path = ROOT / f'{name.replace(".", "/")}.py'
    pid = os.fork()
    if not pid:
        _judge(name, path, tree, tests)
    until = time.monotonic() + LIMIT_SEC
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--n', type=int, default=300, help='mutants')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--modules', nargs='+', default=sorted(MODULES), choices=sorted(MODULES))
    args = parser.parse_args()
    os.chdir(ROOT)
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    rng, n_noticed = random.Random(args.seed), 0
    trees = {name: (ROOT / f'{name.replace(".", "/")}.py').read_text() for name in args.modules}
    for name, text in trees.items():
        if not survives(name, ast.parse(text), MODULES[name]):
            sys.exit(f'{name}: its tests fail as it is: {MODULES[name]}')
    for number in range(1, args.n + 1):
        name = rng.choice(args.modules)
        tree = ast.parse(trees[name])
        said = _change(rng.choice(list(_places(tree))), rng)
        if survives(name, tree, MODULES[name]):
            print(f'not noticed: {name} {said}', flush=True)
        else:
            n_noticed += 1
        if number % 20 == 0:
            print(f'{n_noticed} of {number} noticed', file=sys.stderr, flush=True)
    print(f'{n_noticed} of {args.n} mutants were noticed ({n_noticed / args.n:.1%})')


if __name__ == '__main__':
    main()
