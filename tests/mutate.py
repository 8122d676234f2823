"""Mutation of our own code: does a test fail where an operator or a number is another one?

    python -m tests.mutate --n 300 --seed 1 --results mutants.jsonl
    python -m tests.mutate --again mutants.jsonl --results survivors.jsonl

One process collects the tests and notes, once, which lines each of them runs. A mutant is a fork
of it with one function or constant replaced, which runs only the tests that reach that line, the
cheapest first, until one fails. Results are lines of JSON, and what is there is not judged again.
A test that fails without a mutant is named and left out.
"""

import argparse
import ast
import copy
import gc
import hashlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import types
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Core modules, and the tests that cover them.
MODULES = {
    'temporal_transforms': ('test_temporal_transforms', 'test_properties', 'test_augmentation',
                            'test_loading'),
    'spatial_transforms': ('test_spatial_transforms', 'test_presets', 'test_videodataset',
                           'test_augmentation', 'test_video'),
    'metrics': ('test_metrics',),
    'datasets.sampling': ('test_sampling', 'test_properties', 'test_loading',
                          'test_augmentation'),
    'datasets.annotations': ('test_annotations', 'test_hostile_data', 'test_properties'),
    'datasets.frame_folders': ('test_frame_folders',),
    'optim': ('test_optim', 'test_training', 'test_resume', 'test_training_plain_loop'),
    'runtime.arguments': ('test_arguments', 'test_recipes'),
    'runtime.schema': ('test_schema', 'test_hostile_data'),
    'runtime.output': ('test_output',),
}
SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
         ast.Div: ast.Mult, ast.Mod: ast.FloorDiv, ast.Lt: ast.LtE, ast.LtE: ast.Lt,
         ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or,
         ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot,
         ast.IsNot: ast.Is, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd}
# CPU seconds of a mutant beyond four times those of its tests, and of these; seconds by the clock.
LIMIT_SEC, TESTS_SEC, WAIT_SEC, MEMORY = 20, 15, 900, 16 << 30


def _source(name):
    return ROOT / f'{name.replace(".", "/")}.py'


def _places(tree):
    """Nodes that can be changed: operators and numbers outside of annotations, with the innermost
    definitions and the statement of the module or class that hold each."""
    def walk(node, path):
        if isinstance(node, (ast.BinOp, ast.BoolOp, ast.AugAssign)) and type(node.op) in SWAPS:
            yield node, path
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            yield node, path
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
            yield node, path
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node, path
        for field, value in ast.iter_fields(node):
            if field in ('annotation', 'returns', 'decorator_list'):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, path + [child] * isinstance(child, ast.stmt))
    yield from walk(tree, [])


def _change(node, step):
    """Change a node in place, a whole number by `step`; what was done, in words."""
    before = ast.unparse(node)
    if isinstance(node, ast.Constant):
        value = node.value
        node.value = (not value if isinstance(value, bool) else
                      value + step if isinstance(value, int) else value * 2 + 0.1)
    elif isinstance(node, ast.Compare):
        node.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.UnaryOp):
        node.op = ast.UAdd()
        node.operand = ast.Call(ast.Name('bool', ast.Load()), [node.operand], [])
    else:
        node.op = SWAPS[type(node.op)]()
    return f'{before} -> {ast.unparse(ast.fix_missing_locations(node))}'


def _codes(code):
    """Code objects of functions by their name and first line, those inside others too."""
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield (inner.co_name, inner.co_firstlineno), inner
            yield from _codes(inner)


def _functions(namespace):
    """The functions that a module or a class defines, those of its classes too."""
    for value in list(vars(namespace).values()):
        value = getattr(value, '__func__', getattr(value, 'fget', value))
        if type(value) is types.FunctionType:
            yield value
        elif isinstance(value, type) and value.__module__ == getattr(
                namespace, '__module__', namespace.__name__):
            yield from _functions(value)


def _place(function):
    return function.__code__.co_name, function.__code__.co_firstlineno


def _apply(name, tree, path, functions):
    """Let the functions of an imported module, and the names that the changed statement of the
    module or of a class gives, be those of the changed tree."""
    module, code = sys.modules[name], compile(tree, str(_source(name)), 'exec')
    changed, fresh = dict(_codes(code)), types.ModuleType(name)
    fresh.__file__ = module.__file__
    sys.modules[name] = fresh  # dataclasses look their module up
    exec(code, fresh.__dict__)
    sys.modules[name] = module
    defaults = {_place(function): (function.__defaults__, function.__kwdefaults__)
                for function in _functions(fresh)}
    for function in functions:
        place = _place(function)
        function.__code__ = changed.get(place, function.__code__)
        if place in defaults:
            function.__defaults__, function.__kwdefaults__ = defaults[place]
    if any(isinstance(step, ast.FunctionDef) for step in path):
        return
    old, new = module, fresh
    for step in path:
        if isinstance(step, ast.ClassDef):
            old, new = getattr(old, step.name), getattr(new, step.name)
    for target in ast.walk(path[-1]):
        if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
            if hasattr(old, target.id):
                before = getattr(old, target.id)
                others = [other for other in sys.modules.values() if type(other) is type(sys)]
                for holder in [old, *others]:
                    if vars(holder).get(target.id) is before:
                        setattr(holder, target.id, getattr(new, target.id))


class Judge:
    """Collects the tests, then has mutants judged by them instead of running them."""

    def __init__(self, args, wanted):
        self.args, self.wanted, self.failed = args, wanted, False
        self.lines = {str(_source(name)) for name in args.modules}

    def pytest_runtest_logreport(self, report):
        self.failed |= report.failed

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session):
        if session.testsfailed:
            raise pytest.UsageError('tests cannot be collected')
        self.items = session.items
        lines, cost = self._known_lines()
        self.functions = defaultdict(list)  # of a module, wherever they are
        for thing in gc.get_objects():
            if type(thing) is types.FunctionType and thing.__module__ in self.args.modules:
                self.functions[thing.__module__].append(thing)
        gc.freeze()  # a fork that collects garbage would copy all that there is
        for name, line, said, tree, path in self.wanted:
            tests, left_sec = [], TESTS_SEC
            for number in sorted(self._reaching(lines, name, line, path), key=cost.__getitem__):
                left_sec -= cost[number]
                if left_sec > 0 or not tests:
                    tests.append(number)
            limit = LIMIT_SEC + 4 * sum(cost[number] for number in tests)
            start = time.monotonic(), sum(os.times()[2:4])
            by = self._in_fork(lambda: self._run(name, tree, path, tests), limit) if tests else None
            row = {'module': name, 'function': '.'.join(_definitions(path)), 'line': line,
                   'change': said, 'n_tests': len(tests),
                   'noticed': by is not None, 'by': by,
                   'cpu_sec': round(sum(os.times()[2:4]) - start[1], 1)}
            with open(self.args.results, 'a') as results:
                results.write(json.dumps(row) + '\n')
        return True

    def _known_lines(self):
        """({test: lines that it runs}, {test: CPU seconds}), kept beside the results and taken from
        there as long as neither the code nor the tests change."""
        texts = [Path(path).read_bytes() for path in sorted(self.lines)]
        texts += [path.read_bytes() for path in sorted({item.path for item in self.items})]
        digest = hashlib.sha1(b''.join(texts)).hexdigest()[:8]
        file = Path(self.args.results).with_name(f'{digest}.lines')
        if not file.exists():
            file.write_bytes(pickle.dumps(self._in_fork(self._record)))
        lines, cost, bad = pickle.loads(file.read_bytes())
        for number in bad:
            print(f'left out, as it fails without a mutant: {self.items[number].nodeid}')
            del lines[number]
        return lines, cost

    def _reaching(self, lines, name, line, path):
        """Tests that run a line, or else the statement that it is in, or else the module."""
        file, step = str(_source(name)), path[-1]
        is_inside = any(isinstance(step, ast.FunctionDef) for step in path)
        statement = range(step.lineno, step.end_lineno + 1)
        for places in ([line], statement) if is_inside else [range(10 ** 6)]:
            found = {test for test, reached in lines.items()
                     if any(at == file and number in places for at, number in reached)}
            if found:
                break
        return found

    def _in_fork(self, work, limit=None):
        """What a process of its own gives, with folders of its own; otherwise how it ended."""
        folder = Path(tempfile.mkdtemp(prefix='mutant-'))
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            signal.alarm(WAIT_SEC if limit else 0)
            if limit:
                resource.setrlimit(resource.RLIMIT_CPU, (int(limit), int(limit) + 5))
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            config = self.items[0].config
            config._tmp_path_factory._basetemp = folder
            config.get_terminal_writer()._file = open(os.devnull, 'w')
            answer = work()
            (folder / 'answer').write_bytes(pickle.dumps(answer))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            answer = folder / 'answer'  # which a mutant may keep from being given
            return pickle.loads(answer.read_bytes()) if answer.exists() else f'end {status}'
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _test(self, number, after):
        """True if a test passes; fixtures that the one after it shares are kept."""
        self.failed, item = False, self.items[number]
        after = None if after is None else self.items[after]
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        return not self.failed

    def _run(self, name, tree, path, tests):
        try:
            _apply(name, tree, path, self.functions[name])
        except Exception as error:  # a constant without which the module cannot be imported
            return f'import: {error!r}'
        for number, after in zip(tests, [*tests[1:], None]):
            if not self._test(number, after):
                return self.items[number].nodeid
        return None

    def _record(self):
        """{test: (file, line) that it runs}, {test: CPU seconds}, and the tests that fail."""
        lines, cost, bad = defaultdict(set), {}, []

        def local(frame, event, _):
            lines[number].add((frame.f_code.co_filename, frame.f_lineno))
            return local

        def trace(frame, event, _):
            return local(frame, event, _) if frame.f_code.co_filename in self.lines else None

        for number, item in enumerate(self.items):
            begin = sum(os.times()[:4])
            sys.settrace(trace)
            passed = self._test(number, number + 1 if number + 1 < len(self.items) else None)
            sys.settrace(None)
            cost[number] = sum(os.times()[:4]) - begin
            if not passed:
                bad.append(number)
        return lines, cost, bad


def _definitions(path):
    """Names of the classes and functions around a place."""
    return [step.name for step in path if isinstance(step, (ast.ClassDef, ast.FunctionDef))]


def _mutant(name, number, step):
    """(module, line, what was changed, tree, statements around it) of the place of a number."""
    tree = ast.parse(_source(name).read_text())
    node, path = list(_places(tree))[number]
    line = node.lineno
    return name, line, _change(node, step), tree, path


def _read(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def _mutants(args):
    """Those to judge, as `_mutant` has them, without what the results have."""
    known = {(row['module'], row['line'], row['change'])
             for row in (_read(args.results) if Path(args.results).exists() else [])}
    mutants = _again(args) if args.again else _drawn(args)
    return [mutant for key, mutant in mutants.items() if key not in known]


def _drawn(args):
    rng, drawn = random.Random(args.seed), {}
    n_places = [len(list(_places(ast.parse(_source(name).read_text())))) for name in args.modules]
    while len(drawn) < args.n:
        at, = rng.choices(range(len(args.modules)), n_places)
        mutant = _mutant(args.modules[at], rng.randrange(n_places[at]), rng.choice([-1, 1]))
        drawn.setdefault(mutant[:3], mutant)
    return drawn


def _again(args):
    """What no test noticed by an earlier file of results: the same change of the same function, at
    the line that is nearest to where it was."""
    left = [row for row in _read(args.again)
            if row['module'] in args.modules and not row['noticed']]
    found = {}
    for name in {row['module'] for row in left}:
        places = list(_places(ast.parse(_source(name).read_text())))
        changes = [(number, step, node.lineno, '.'.join(_definitions(path)),
                    _change(copy.deepcopy(node), step))
                   for number, (node, path) in enumerate(places) for step in (-1, 1)]
        for row in [row for row in left if row['module'] == name]:
            same = [(abs(line - row['line']), number, step)
                    for number, step, line, function, said in changes
                    if said == row['change'] and row.get('function') in (None, function)]
            if not same:
                print(f'is no more: {name} line {row["line"]}: {row["change"]}')
            for _, number, step in sorted(same)[:1]:
                mutant = _mutant(name, number, step)
                found[mutant[:3]] = mutant
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--n', type=int, default=300, help='mutants')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--again', metavar='FILE',
                        help='judge again what no test noticed by these results')
    parser.add_argument('--modules', nargs='+', default=sorted(MODULES), choices=sorted(MODULES))
    parser.add_argument('--results', default='mutants.jsonl', help='file that results are added to')
    args = parser.parse_args()
    os.chdir(ROOT)
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    judge = Judge(args, _mutants(args))
    tests = sorted({f'tests/{test}.py' for name in args.modules for test in MODULES[name]})
    status = pytest.main(['-q', '-p', 'no:cacheprovider', '--seed', '1', '-m', 'not slow', *tests],
                         plugins=[judge])
    if status:
        sys.exit(int(status))
    rows = _read(args.results)
    left = [row for row in rows if not row['noticed']]
    for row in left:
        print(f'not noticed: {row["module"]} line {row["line"]}: {row["change"]}')
    print(f'{len(rows) - len(left)} of {len(rows)} mutants were noticed '
          f'({1 - len(left) / len(rows):.1%})')


if __name__ == '__main__':
    main()
