"""What command lines share: kinds of values, help with defaults, and a parser that answers in one
sentence.

    parser = Parser('python -m util_scripts.demo', 'Make a small data set ...')
    parser.add_argument('--n_epochs', type=POSITIVE, default=14, metavar='N', help='...')
"""

import argparse
import copy
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from runtime.errors import InputError
from runtime.files import read_file
from runtime.names import did_you_mean, meant_file, nearest
from runtime.output import be_quiet

# What other tools call a flag -> what it is called here: the first of them that the command has.
SYNONYMS = {
    'annotation': ('annotation_path',), 'annotations': ('annotation_path',),
    'arch': ('model',), 'backbone': ('model',), 'network': ('model',),
    'batch': ('batch_size',), 'bs': ('batch_size',),
    'checkpoint': ('weights', 'resume_path'), 'ckpt': ('weights', 'resume_path'),
    'clip_len': ('sample_duration',), 'frames': ('sample_duration',),
    'num_frames': ('sample_duration',),
    'cpu': ('no_cuda',), 'data': ('video_path', 'videos'), 'data_dir': ('video_path', 'videos'),
    'depth': ('model_depth',), 'layers': ('model_depth',),
    'amp': ('precision',), 'fp16': ('precision',), 'half': ('precision',),
    'crop_size': ('sample_size',), 'image_size': ('sample_size',), 'img_size': ('sample_size',),
    'input_size': ('sample_size',), 'size': ('sample_size',),
    'accumulate_grad_batches': ('accumulate',), 'gradient_accumulation_steps': ('accumulate',),
    'betas': ('adam_betas',), 'early_stop': ('early_stopping',), 'ema': ('ema_decay',),
    'grad_clip': ('clip_grad_norm',), 'max_grad_norm': ('clip_grad_norm',),
    'llrd': ('layer_decay',), 'smoothing': ('label_smoothing',), 'drop': ('dropout',),
    'teacher': ('teacher_path',), 'warmup': ('warmup_epochs',),
    'epochs': ('n_epochs',), 'max_epochs': ('n_epochs',), 'num_epochs': ('n_epochs',),
    'eval': ('no_train',), 'evaluate': ('no_train',), 'test': ('inference',),
    'finetune': ('pretrain_path',), 'pretrained': ('pretrain_path',), 'init': ('pretrain_path',),
    'jobs': ('n_jobs', 'n_threads'), 'num_workers': ('n_threads', 'n_jobs'),
    'threads': ('n_threads', 'n_jobs'), 'workers': ('n_threads', 'n_jobs'),
    'j': ('n_threads', 'n_jobs'),
    'labels': ('labels', 'annotation_path'), 'lr': ('learning_rate',),
    'milestones': ('multistep_milestones',), 'lr_steps': ('multistep_milestones',),
    'num_classes': ('n_classes',), 'classes': ('n_classes',),
    'optim': ('optimizer',), 'opt': ('optimizer',),
    'o': ('output', 'result_path', 'json', 'dst'), 'out': ('output', 'result_path', 'json', 'dst'),
    'dst': ('dst', 'output', 'result_path'), 'out_dir': ('result_path', 'output', 'dst'),
    'output': ('result_path', 'json', 'dst'), 'output_dir': ('result_path', 'output', 'dst'),
    'save_dir': ('result_path', 'output', 'dst'), 'work_dir': ('result_path', 'output', 'dst'),
    'model_path': ('weights', 'resume_path'), 'patience': ('plateau_patience',),
    'random_seed': ('seed', 'manual_seed'), 'resume_from': ('resume_path',),
    'scheduler': ('lr_scheduler',), 'sched': ('lr_scheduler',),
    'seed': ('manual_seed', 'seed'), 'stride': ('inference_stride', 'sample_t_stride'),
    'tb': ('tensorboard',), 'top_k': ('output_topk', 'topk', 'k'), 'topk': ('output_topk', 'k'),
    'video': ('video_path',), 'videos': ('video_path',), 'video_dir': ('video_path',),
    'wd': ('weight_decay',), 'weights': ('resume_path', 'pretrain_path'),
}


# ---------------------------------------------------------------- kinds of values

def number(kind: Callable[[str], Any], accepts: Callable[[Any], bool], wanted: str
           ) -> Callable[[str], Any]:
    """An argparse type: what `kind` (int or float) makes of the text, if `accepts` it.

    wanted: what the error says the text is not
    """
    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not accepts(value):
            raise argparse.ArgumentTypeError(f'{text!r} is not {wanted}')
        return value
    return convert


def at_least(low: int) -> Callable[[str], int]:
    """An argparse type: a whole number, not below `low`, and small enough to count with."""
    convert = number(int, lambda n: n >= low, f'a whole number of at least {low}')

    def bounded(text: str) -> int:
        if (value := convert(text)) >= 2 ** 31:
            raise argparse.ArgumentTypeError(f'{text} is too large: a whole number below 2 ** 31 '
                                             'is needed')
        return value
    return bounded


def between(kind: Callable[[str], Any], low: float, high: float, *, also: float | None = None
            ) -> Callable[[str], Any]:
    """An argparse type: an int or float of low...high, or the one number beside them."""
    other = '' if also is None else f' or {also}'
    return number(kind, lambda value: value == also or low <= value <= high,
                  f'a number of {low} to {high}{other}')


def is_frame_template(value: object) -> bool:
    """True for the template of a file name; of three digits at most, since so many are written, and
    with three * at most, since each is looked for everywhere."""
    return (isinstance(value, str) and '/' not in value and value.count('*') <= 3
            and len(re.findall('%[0-9]*d', value)) == len(re.findall('%[0-9]{0,3}d', value)) == 1)


def frame_template(text: str) -> str:
    """An argparse type: a file name with one %d, or %05d, for the number of a frame."""
    if not is_frame_template(text):
        raise argparse.ArgumentTypeError(f'{text!r} is not a file name with one %d for the number, '
                                         'such as frame_%05d.png')
    return text


def name_of(names: Collection[str], what: str) -> Callable[[str], str]:
    """An argparse type: one of so many names that an error shows the nearest alone.

    what: what the names are of
    """
    def convert(text: str) -> str:
        if text not in names:
            near = did_you_mean(nearest(text, names, n=1, cutoff=0.4))
            raise argparse.ArgumentTypeError(f'{text!r} is no {what}' + (near and f'; {near}'))
        return text
    return convert


def add_frame_template(add: Callable[..., Any]) -> None:
    """The flag --frame_template, by a parser's or group's `add_argument`."""
    add('--frame_template', type=frame_template, metavar='NAME',
        help='what jpg frames are called, where several numbers or kinds of images make that '
             'unclear, such as "frame_%%05d.png"; %%d is the number, * is anything')


def add_folders_of_frames(add: Callable[..., Any], default_fps: float) -> None:
    """The flags of commands that read folders of frames too, by a parser's `add_argument`."""
    add('--fps', type=float, default=default_fps, metavar='RATE',
        help='frames per second of folders of frames, for time stamps')
    add_frame_template(add)


def add_subset(add: Callable[..., Any]) -> None:
    """The flag --subset of commands that read an annotation, by a parser's `add_argument`."""
    add('--subset', default='validation',
        help='training, validation or testing, or train, val, test for short')


POSITIVE = at_least(1)
COUNT = at_least(0)
N_PROCESSES = number(int, lambda n: 0 <= n <= 1024, 'a whole number of at least 0 and at most 1024')
SEED = number(int, lambda n: 0 <= n < 2 ** 63, 'a whole number of at least 0 and below 2 ** 63')
INTEGER = number(int, lambda n: True, 'a whole number')
FLOAT = number(float, math.isfinite, 'a number')
RATE = number(float, lambda x: 0 <= x < math.inf, 'a number of at least 0')
POSITIVE_RATE = number(float, lambda x: 0 < x < math.inf, 'a number above 0')
FRACTION = number(float, lambda x: 0 < x <= 1, 'a number above 0 and at most 1')
BELOW_ONE = number(float, lambda x: 0 <= x < 1, 'a number of at least 0 and below 1')


def opposite(flag: str) -> str:
    """The flag that turns a switch off: --no_tf32 for --tf32, and --train for --no_train."""
    return f'--{flag[5:]}' if flag.startswith('--no_') else f'--no_{flag[2:]}'


# How flags begin that turn something off, and what is taken for the value of a switch.
NEGATIONS = ('--no_', '--no-')
TRUTH_VALUES = ('true', 'false', 'yes', 'no', 'on', 'off', '1', '0')


class Switch(argparse.Action):
    """A switch, which its opposite turns off: of both, the last counts.

    So what a file of flags, --opts or a checkpoint has turned on can be turned off. --help shows
    the switch alone, and no opposite is cut short.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, *, nargs: int | str = 0,
                 default: Any = False, **kwargs: Any) -> None:
        self.opposites = [opposite(flag) for flag in option_strings if flag.startswith('--')]
        super().__init__([*option_strings, *self.opposites], dest, nargs=nargs, default=default,
                         **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:
        is_on = option_string not in self.opposites
        if values and not is_on:
            parser.error(f'{option_string} takes no values: give it alone, or them after '
                         f'{self.option_strings[0]}')
        setattr(namespace, self.dest, (values or True) if is_on else False)


class SwitchOrValues(Switch):
    """A switch that takes values too: False without the flag, True for the bare flag, else their
    list."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, dest, nargs='*', **kwargs)


class Quiet(Switch):
    """The switch --quiet, which holds for all that this command prints (`runtime.output.note`)."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:
        super().__call__(parser, namespace, values, option_string)
        be_quiet(getattr(namespace, self.dest))


# ---------------------------------------------------------------- commands to paste

def python() -> str:
    """What the command line calls the Python that runs this, in commands to paste."""
    found = shutil.which('python') or ''
    is_ours = os.path.dirname(found) == os.path.dirname(sys.executable)
    return 'python' if is_ours else sys.executable


def command_line(name: str, *words: object) -> str:
    """A command of util_scripts with its arguments, to paste."""
    return shlex.join([python(), '-m', f'util_scripts.{name}', *map(str, words)])


# ---------------------------------------------------------------- files of flags

# A word of a command line that begins so names a file of flags, such as @recipes/scratch.txt.
FILE_PREFIX = '@'
RECIPES = Path(__file__).resolve().parents[1] / 'recipes'


def read_flags(path: Path, parser: 'Parser') -> list[tuple[int, list[str]]]:
    """[(number of the line, its words)] of a file of flags, of which each line is whole: flags with
    their values and comments, as a shell would split them. Raises InputError.

    parser: takes each line by itself, so that what it refuses is named with its line
    """
    try:
        text = read_file(path).decode('utf-8-sig')
        if '\0' in text:  # which no command line has
            raise ValueError('a NUL')
    except (OSError, ValueError) as error:
        # Of the recipes, what most is alike is said, from wherever the command runs.
        recipes = {recipe.stem: os.path.relpath(recipe) for recipe in RECIPES.glob('*.txt')}
        near = did_you_mean([recipes[stem] for stem in nearest(path.stem, recipes, n=1)])
        reason = getattr(error, 'strerror', None) or 'not a text file'
        if isinstance(error, FileNotFoundError):
            meant = meant_file(path if path.suffix else Path(f'{path}.txt'))
            cure = ((near or meant if path.stem in recipes else meant or near)
                    or 'check the path after @')
        else:
            cure = 'give a text file with flags as a command line has them'
        raise InputError(f'{path}: no file of flags can be read there ({reason}); {cure}') from None
    lines = []
    for number, line in enumerate(re.split('\r\n?|\n', text), 1):
        try:
            words = shlex.split(without_comment(line))
            for word in words:
                if word.startswith(FILE_PREFIX) or word in ('-h', '--help'):
                    parser.error(f'{word} is for the command line alone')
            parser.parse_part(words)
        except ValueError as error:
            raise InputError(f'{path}, line {number}: {error}; mend the line') from None
        except InputError as error:
            raise InputError(f'{path}, line {number}: {error}') from None
        if words:
            lines.append((number, words))
    return lines


def without_comment(line: str) -> str:
    """A line up to a # that begins a word, outside of quotes: a/take#2 is a path."""
    kept = re.match(r"""(?: \\. | "(?:\\.|[^"\\])*" | '[^']*' | (?<!\s)\# | [^\#] )*""",
                    f' {line}', re.VERBOSE)
    return kept[0] if kept else line


def words_of_files(args: Sequence[str], parser: 'Parser') -> tuple[list[str], list[str]]:
    """(the words of the files that a command line names, its other words): what stands in front is
    overridden, and so what else is given wins wherever it stands, and of several files the last.
    Raises InputError."""
    paths = [Path(word[len(FILE_PREFIX):]) for word in args if word.startswith(FILE_PREFIX)]
    words = [word for path in paths for _, line in read_flags(path, parser) for word in line]
    return words, [word for word in args if not word.startswith(FILE_PREFIX)]


# ---------------------------------------------------------------- the parser

# What names of files end with that are of one format each; and, by metavar or name of a flag, that
# of files which commands write in one alone.
FORMATS = ('.json', '.csv', '.html', '.md', '.pdf', '.png', '.jpg', '.npy', '.npz', '.h5', '.hdf5',
           '.pth', '.mp4', '.xlsx', '.zip')
WRITTEN = {'FILE.html': '.html', 'FILE.md': '.md', 'json': '.json', 'csv': '.csv'}


class HelpFormatter(argparse.HelpFormatter):
    """Adds the default to each help text, unless it is a switch's, says nothing or is told, leaves
    out the opposites of switches, and keeps words with hyphens whole: names of packages and ranges
    of numbers are copied."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, Switch):
            action = copy.copy(action)
            action.option_strings = [flag for flag in action.option_strings
                                     if flag not in action.opposites]
        return super()._format_action_invocation(action)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(' '.join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return textwrap.fill(' '.join(text.split()), width, initial_indent=indent,
                             subsequent_indent=indent, break_on_hyphens=False)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.help is None or '(default: ' in action.help
        if told or action.default in (None, False, '', argparse.SUPPRESS):
            return action.help
        if isinstance(action.default, (list, tuple)):
            values = ' '.join(map(str, action.default)).replace('%', '%%')
            return f'{action.help} (default: {values})'
        return f'{action.help} (default: %(default)s)'


class Parser(argparse.ArgumentParser):
    """Raises InputError with one sentence, where argparse prints its usage and exits.

    A flag that does not exist is answered before any other fault, with the nearest one that does.
    prog:      how the command is called, such as `python -m util_scripts.knn`
    has_notes: True where it prints notes or shows progress: it then takes --quiet
    """

    def __init__(self, prog: str, description: str, *, has_notes: bool = True, **more: Any) -> None:
        super().__init__(prog=prog, description=description, formatter_class=HelpFormatter, **more)
        self.register('action', 'store_true', Switch)
        if has_notes:
            self.add_argument('--quiet', action=Quiet, help='print nothing but results, warnings '
                                                            'and errors, and show no progress')

    def error(self, message: str) -> NoReturn:
        raise InputError(f'{message}; {self.prog} --help lists all flags')

    def _get_option_tuples(self, option_string: str) -> list[Any]:
        # What a flag is cut short to stays as unclear, or as clear, as without opposites.
        return [found for found in super()._get_option_tuples(option_string)
                if found[1] not in getattr(found[0], 'opposites', ())]

    # argparse has overloads here, for the type of the namespace.
    def parse_args(self, args: Sequence[str] | None = None,  # type: ignore[override]
                   namespace: Any = None) -> Any:
        args = sys.argv[1:] if args is None else list(map(str, args))
        for argument in self._unknown(args):
            name = argument.lstrip('-')
            named = [action.dest for action in self._actions if not action.option_strings]
            if name in named:  # it looks like a flag, and is an argument without one
                self.error(f'{name} is given without --{name}: {self.prog} {" ".join(named)}')
            near = self._nearest(name)
            self.error(f'unknown argument {argument}' + (f'; did you mean {near}?' if near else ''))
        self._refuse_value_of_switch(args, ())
        namespace, left = self.parse_known_args(args, namespace)
        if left:
            self._refuse_value_of_switch(args, left)
            self.error(f'unknown argument {left[0]}')
        self._refuse_other_endings(namespace)
        return namespace

    def parse_part(self, args: Sequence[str], namespace: Any = None) -> Any:
        """As `parse_args` does, of words that may stand beside others, where all that is required
        need not be."""
        required = [action for action in self._actions if action.required]
        for action in required:
            action.required = False
        try:
            return self.parse_args(args, namespace)
        finally:
            for action in required:
                action.required = True

    def _refuse_other_endings(self, namespace: Any) -> None:
        """Raise InputError where what is to be written has the ending of another format."""
        for action in self._actions:
            written = WRITTEN.get(str(action.metavar)) or WRITTEN.get(action.dest)
            path = getattr(namespace, action.dest, None)
            if written and isinstance(path, Path) and (
                    path.suffix.lower() in set(FORMATS) - {written}):
                self.error(f'{action.option_strings[0]} {path}: what is written is {written[1:]}, '
                           f'not {path.suffix[1:]}; let its name end with {written}')

    def _refuse_value_of_switch(self, args: Sequence[str], left: Collection[str]) -> None:
        """Raise InputError where a switch has a value: one behind =, such a word as true, or one of
        `left`, which no argument takes."""
        for number, word in enumerate(args):
            if word == '--':
                return
            flag, equals, value = word.partition('=')
            names = self._names_of_switch(flag)
            if not names:
                continue
            if not equals:
                value = ''.join(args[number + 1:number + 2])
                is_meant = value.lower() in TRUTH_VALUES and not os.path.exists(value)
                if value not in left and not is_meant:
                    continue
            self.error(f'{names[0]} takes no value, and {value!r} is given; give {names[0]} '
                       f'alone, or {" or ".join(names[1:])} for the opposite')

    def _names_of_switch(self, flag: str) -> list[str]:
        """[the flag, what turns it round] of a switch, whose name may be cut short; else []."""
        if not flag.startswith('--'):
            return []
        known = self._option_string_actions
        found = ([(known[flag], flag)] if flag in known
                 else [match[:2] for match in self._get_option_tuples(flag)])
        if len(found) != 1 or found[0][0].nargs != 0 or found[0][0].dest == 'help':
            return []
        [(action, name)] = found
        return [name, *(other for other in action.option_strings
                        if other.startswith(NEGATIONS) != name.startswith(NEGATIONS))]

    def _unknown(self, args: Sequence[str]) -> Iterator[str]:
        """The arguments that look like a flag of this command and are none, nor begin one."""
        for argument in args:
            if argument == '--':
                return
            if not re.match(r'--?[A-Za-z_]', argument) or ' ' in argument:
                continue  # a value, which may be a negative number
            flag = argument.split('=')[0]
            if not any(known.startswith(flag) or len(known) == 2 and argument.startswith(known)
                       for known in self._option_string_actions):
                yield flag

    def _nearest(self, name: str) -> str | None:
        """The flag that is most likely meant, by sense or else by its letters."""
        flags = {flag.lstrip('-'): flag for flag in self._option_string_actions}
        name = name.replace('-', '_')
        named_so = [other for other in SYNONYMS.get(name.lower(), ()) if other in flags]
        close = named_so or nearest(name, flags, n=1)
        return flags[close[0]] if close else None
