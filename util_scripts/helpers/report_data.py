"""What runs left in their folders, read for a page: options, environment, logs, results."""

import shlex
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.annotations import SUBSETS, read_annotation
from opts import FILE_TYPES, as_words, build_parser
from runtime.arguments import is_frame_template
from runtime.errors import InputError
from runtime.files import EVALUATION_NAME, is_path
from runtime.schema import BOOL, REAL, TEXT, fields, list_of, optional, plain
from util_scripts.helpers.evaluation import Scores, Truth, read_both
from util_scripts.helpers.files import existing_folder, read_json
from util_scripts.helpers.mistakes import mistaken_clips, spread, surest_wrong, worst_mistakes
from util_scripts.helpers.neighbours import group_numbers
from util_scripts.helpers.plotting import Clip
from util_scripts.helpers.run_logs import LOGS, Table, read_run, run_names

# Options that say where and how a run was made and not what it is; and those that paths are joined
# with already.
NOT_REPEATED = {'root_path'}
# What is used of options; the others are shown, whatever they are.
PATH = plain(lambda value: isinstance(value, str) and is_path(value), 'the path of a file')
USED = fields({}, {
    'inference': BOOL, 'no_train': BOOL, 'multi_label': BOOL, 'inference_subset': PATH,
    'annotation_path': optional(PATH), 'video_path': optional(PATH), 'input_type': TEXT,
    'file_type': plain(lambda value: value in FILE_TYPES, f'one of {", ".join(FILE_TYPES)}'),
    'frame_template': optional(plain(is_frame_template, 'a file name with one %d')),
    'inference_views': optional(list_of(REAL))})


@dataclass(frozen=True)
class Results:
    """What the inference of a run found, and what is right.

    groups: (n,) of each video of `truth`; None where they are not known
    """

    path: Path
    subset: str
    class_names: tuple[str, ...]
    truth: Truth
    scores: Scores
    has_lists: bool
    groups: np.ndarray | None


@dataclass(frozen=True)
class RunData:
    """A folder's content; `options` are those of each command that ran there, the newest last."""

    name: str
    folder: Path
    logs: dict[str, Table]
    options: list[dict[str, Any]]
    environment: dict[str, Any]
    results: Results | None

    @property
    def trained(self) -> dict[str, Any]:
        """The options of the newest training, or else of whatever ran last; {} where none says."""
        trainings = [options for options in self.options if not options.get('no_train')]
        return (trainings or self.options or [{}])[-1]


def read_runs(args: Namespace) -> list[RunData]:
    """A RunData per folder of `report`. Raises InputError."""
    return [_read_run(folder, name, args)
            for folder, name in zip(args.folders, run_names(args.folders))]


def _read_run(folder: Path, name: str, args: Namespace) -> RunData:
    existing_folder(folder, 'the --result_path of a run')
    has_logs = any((folder / log).exists() for log in LOGS.values())
    options = list(_options(folder))
    path, of_results = _result_path(folder, options), options
    if path is None:  # the end of a training names this folder for its evaluation
        of_results = list(_options(folder / EVALUATION_NAME))
        path = _result_path(folder / EVALUATION_NAME, of_results)
    if not has_logs and path is None:
        raise InputError(f'{folder}: holds no train.log, val.log or results of --inference; give '
                         'the --result_path of a run')
    results = _read_results(path, of_results, args) if path else None
    environment = folder / 'environment.json'
    return RunData(name, folder, read_run(folder) if has_logs else {}, options,
                   read_json(environment, 'what main.py wrote') if environment.exists() else {},
                   results)


def _options(folder: Path) -> Iterator[dict[str, Any]]:
    """opts.1.json, opts.2.json, ..., opts.json, in the order in which they were written. Raises
    InputError where one has a value that says nothing of a run."""
    kept = sorted(folder.glob('opts.*.json'), key=lambda path: (len(path.name), path.name))
    for path in [*kept, folder / 'opts.json']:
        if path.exists():
            options = read_json(path, 'the options of a run')
            if fault := USED(options):
                raise InputError(f'{path}: its {fault.removeprefix(".")}; give an unchanged file')
            yield options


def _result_path(folder: Path, options: list[dict[str, Any]]) -> Path | None:
    subsets = [entry.get('inference_subset') for entry in options[::-1] if entry.get('inference')]
    paths = (folder / f'{subset}.json' for subset in dict.fromkeys([*subsets, 'val', 'test']))
    return next((path for path in paths if path.exists()), None)


def _read_results(path: Path, options: list[dict[str, Any]], args: Namespace) -> Results:
    newest = options[-1] if options else {}
    annotation_path = args.annotation_path or newest.get('annotation_path')
    if not annotation_path:
        raise InputError(f'{path.parent}: has no opts.json that names the annotation file; give '
                         '--annotation_path')
    subset = SUBSETS.get(path.stem, path.stem)
    class_names, truth, has_lists, scores, _ = read_both(
        Path(annotation_path), path, subset, multi_label=bool(newest.get('multi_label')))
    return Results(path, subset, class_names, truth, scores, has_lists,
                   _groups(list(truth), args.groups))


def _groups(video_ids: list[str], path: Path | None) -> np.ndarray | None:
    """(n,) numbers by the table, or by names; None where each video is a group by itself."""
    groups = group_numbers(path, video_ids)
    return groups if path or 1 < len(np.unique(groups)) < len(video_ids) else None


# ---------------------------------------------------------------- what is shown of options

def changed(options: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{flag: (value, default)} of the options that are not the default."""
    defaults = {name: str(value) if isinstance(value, Path) else value
                for name, value in vars(build_parser().parse_args([])).items()}
    return {name: (value, defaults.get(name)) for name, value in options.items()
            if name not in NOT_REPEATED and value != defaults.get(name)}


def command(options: Mapping[str, Any]) -> list[str]:
    """The words of a command line of main.py that has these options."""
    return ['python', 'main.py', *(
        word for name, (value, default) in changed(options).items()
        if value is not False or default for word in as_words(name, value))]


def as_flag(name: str, value: Any) -> str:
    """A value as it stands on a command line."""
    return shlex.join(map(str, value)) if isinstance(value, list) else str(value)


# ---------------------------------------------------------------- mistakes

def mistakes_of(run: RunData, args: Namespace) -> tuple[list[Clip], str]:
    """(clips of the worst mistakes, why there are none: '' where there are, or no mistakes)."""
    results = run.results
    newest = run.options[-1] if run.options else {}
    if results is None or not args.n_mistakes:
        return [], ''
    find = surest_wrong if results.has_lists else worst_mistakes
    wrong = spread(find(results.truth, results.scores), args.groups)
    if not wrong:
        return [], ''
    video_path = args.video_path or newest.get('video_path')
    annotation_path = args.annotation_path or newest.get('annotation_path')
    if not (video_path and annotation_path):
        return [], 'no folder of frames is known; give --video_path'
    if newest.get('input_type') == 'flow':
        return [], 'optical flow is not drawn'
    wanted = Namespace(video_path=Path(video_path), n_mistakes=args.n_mistakes,
                       file_type=newest.get('file_type', 'jpg'),
                       frame_template=newest.get('frame_template'))
    try:
        return mistaken_clips(wrong, results.truth, read_annotation(Path(annotation_path)), wanted,
                              results.subset), ''
    except InputError as error:
        return [], str(error)
