"""Comparisons of recipes: which runs there are, what each does, and what it found."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets.annotations import SUBSETS, Annotation, read_annotation, usual_path
from opts import Options, as_words, build_parser, parse_opts
from runtime.arguments import RECIPES, python, read_flags
from runtime.errors import InputError
from runtime.files import make_result_folder, write_json
from runtime.locks import sole_writer
from runtime.output import be_quiet, note, printable
from runtime.schema import NUMBER, optional, whole
from util_scripts.helpers.annotation_files import write_json as write_annotation
from util_scripts.helpers.comparison_tables import MEASURED, Found, report
from util_scripts.helpers.downloads import sha256_of
from util_scripts.helpers.evaluation import count_right, mean_class, rank, read_results, read_truth
from util_scripts.helpers.files import make_folder, read_json
from util_scripts.helpers.own_videos import grouping
from util_scripts.helpers.side_by_side import STOPPED, Job, run_side_by_side
from util_scripts.helpers.splits import Own, draw_subsets, fold_path, group_reader

ROOT = Path(__file__).resolve().parents[2]
# In the folder of a run: what it is made with, and what came of it.
RECORD = 'run.json'
# What is measured of it, where it has ended.
MEASURES = {'minutes': optional(NUMBER), 'n_videos': optional(whole(1)),
            'video_accuracy': optional(NUMBER), 'mean_class_accuracy': optional(NUMBER)}
# Flags of compare itself, and those that each run is given its own value of.
OWN_FLAGS = ('recipes', 'leave_out', 'seeds', 'folds', 'groups', 'val_fraction', 'n_jobs',
             'minutes', 'opts', 'root_path', 'video_path', 'annotation_path', 'result_path',
             'manual_seed', 'no_val', 'inference', 'output_topk', 'n_threads', 'keep')
# Flags that would change what is compared.
REFUSED = ('no_train', 'random_weights', 'distributed', 'inference_no_average', 'multi_label')


@dataclass(frozen=True)
class Fold:
    """Which videos are tested: the annotation, its --inference_subset, and a digest of the file.

    has_validation: True if it holds others for validation
    """

    number: int
    path: Path
    subset: str
    has_validation: bool
    digest: str


@dataclass(frozen=True)
class Run:
    """One training and its test: the recipe and its words, where, and with which seed."""

    recipe: str
    words: tuple[str, ...]
    fold: Fold
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return f'{self.recipe}, fold {self.fold.number}, seed {self.seed}'

    def record(self) -> dict[str, Any]:
        """What a finished run must have been made with to be kept."""
        return {'words': list(self.words), 'annotation': self.fold.digest}


# ---------------------------------------------------------------- recipes

def read_recipes(opts: Options) -> dict[str, list[str]]:
    """{name: words} of --recipes, and of the first without each line of --leave_out."""
    recipes: dict[str, list[str]] = {}
    for given in opts.recipes:
        path = recipe_path(given)
        if path.stem in recipes:
            raise InputError(f'--recipes has two that are called {path.stem}: rename a file')
        lines = [words for _, words in read_flags(path, build_parser())]
        recipes[path.stem] = [word for words in lines for word in words]
        if given == opts.recipes[0]:
            first, first_lines = path, lines
    for flag in opts.leave_out:
        flag = '--' + flag.lstrip('-')
        kept = [words for words in first_lines if flag not in words]
        if kept == first_lines:
            raise InputError(f'--leave_out {flag}: {first} has no line with it; name a flag of the '
                             'recipe as it stands there')
        recipes[f'{first.stem} without {flag[2:]}'] = [word for words in kept for word in words]
    folders = Counter(map(folder_name, recipes))
    for name in recipes:
        if folders[folder_name(name)] > 1:
            raise InputError(f'--recipes and --leave_out have two with the folder '
                             f'{folder_name(name)}: rename a file')
    return recipes


def folder_name(recipe: str) -> str:
    """What the folder of a recipe's runs is called."""
    return recipe.replace(' ', '_')


def recipe_path(name: str) -> Path:
    """scratch -> recipes/scratch.txt, unless there is a file of that very name."""
    path = Path(name.lstrip('@'))
    if path.is_file() or path.suffix or len(path.parts) > 1:
        return path
    return RECIPES / f'{name}.txt'


# ---------------------------------------------------------------- folds

def make_folds(opts: Options) -> list[Fold]:
    """The annotation of each fold, written to --result_path; without --folds the one given."""
    annotation = read_annotation(opts.annotation_path)
    if annotation.is_taxonomy:
        raise InputError(f'{annotation.path}: is a taxonomy (ActivityNet), and recipes are '
                         'compared on annotations with one label per video; give one of these')
    labelled = {video_id: entry for video_id, entry in annotation.database.items()
                if isinstance(entry, dict) and (entry.get('annotations') or {}).get('label')}
    if opts.folds is None:
        for name in ('groups', 'val_fraction'):
            if name in opts.given:
                raise InputError(f'--{name} is about --folds: add that, or drop it')
        return [given_fold(annotation, labelled)]
    listed = owned(labelled, group_reader(opts.groups) if opts.groups else grouping(None))
    make_folder(opts.result_path)
    folds = []
    for number, subsets in enumerate(draw_subsets(listed, opts.val_fraction, 0, opts.folds, 1), 1):
        path = fold_path(opts.result_path / 'fold.json', number, opts.folds)
        database = {video_id: {**entry, 'subset': subsets[video.path]}
                    for (video_id, entry), video in zip(labelled.items(), listed)}
        write_annotation(path, {'labels': annotation.class_names, 'database': database})
        folds.append(Fold(number, path, 'test', 'validation' in subsets.values(), sha256_of(path)))
    return folds


def owned(entries: Mapping[str, Mapping[str, Any]], group_of: Any) -> list[Own]:
    """The videos of an annotation, as the splits take them."""
    listed = []
    for video_id, entry in entries.items():
        label = entry['annotations']['label']
        path = entry.get('video_path', usual_path(video_id, label))
        listed.append(Own(path, label, group_of(path)))
    return listed


def given_fold(annotation: Annotation, labelled: Mapping[str, Mapping[str, Any]]) -> Fold:
    """What the annotation says itself: tested are its videos for testing, if they have labels."""
    counts = Counter(entry.get('subset') for entry in labelled.values())
    subset = next((name for name in ('test', 'val') if counts[SUBSETS[name]]), None)
    if subset is None or not counts['training']:
        raise InputError(f'{annotation.path}: needs labelled videos for training, and for testing '
                         'or validation; add some, or give --folds K')
    return Fold(1, annotation.path, subset, subset == 'test' and counts['validation'] > 0,
                sha256_of(annotation.path))


# ---------------------------------------------------------------- runs

def plan(opts: Options, recipes: Mapping[str, Sequence[str]], folds: Sequence[Fold]) -> list[Run]:
    """The runs in the order in which they begin: all recipes on a fold, so that a comparison that
    is stopped early has as many runs of each. Raises InputError for flags that do not go together.
    """
    refuse(opts, (*REFUSED, 'resume_path', 'inference_subset'))
    shared = [word for name in sorted(opts.given - {*OWN_FLAGS})
              for word in as_words(name, getattr(opts, name))]
    runs = []
    for seed in range(opts.manual_seed, opts.manual_seed + opts.seeds):
        for fold in folds:
            for recipe, words in recipes.items():
                folder = (opts.result_path / folder_name(recipe)
                          / f'fold_{fold.number}_seed_{seed}')
                own = [word.replace('{fold}', str(fold.number)).replace('{seed}', str(seed))
                       for word in words]
                run = Run(recipe, (*own, *shared, *run_words(opts, fold, seed, folder)), fold,
                          seed, folder)
                check_words(run, opts.no_val)
                runs.append(run)
    return runs


def run_words(opts: Options, fold: Fold, seed: int, folder: Path) -> list[str]:
    """What main.py is told of one run, beside its recipe and what all runs share."""
    words = {'video_path': opts.video_path, 'annotation_path': fold.path, 'result_path': folder,
             'manual_seed': seed, 'resume_path': 'auto', 'inference': True,
             'no_val': opts.no_val or not fold.has_validation,
             'inference_subset': fold.subset, 'output_topk': 0, 'n_threads': opts.n_threads,
             'keep': opts.keep}
    # What is not done is left to the recipe.
    return [word for name, value in words.items() if value is not False
            for word in as_words(name, value)]


def check_words(run: Run, no_val: bool) -> None:
    """Raise InputError for flags of a run that do not go together, or change what is compared.

    no_val: True if its user wants no validation
    """
    try:
        parsed = parse_opts(run.words)
    except InputError as error:
        if not run.fold.has_validation and not no_val and is_valid([*run.words, '--val']):
            error = InputError('needs a validation, and no videos are left for it: add '
                               '--val_fraction 0.2 to --folds, or give an annotation with videos '
                               'for validation beside those for testing')
        raise InputError(f'recipe {run.recipe}: {error}') from None
    refuse(parsed, REFUSED, f'recipe {run.recipe}: ')


def refuse(opts: Options, names: Sequence[str], where: str = '') -> None:
    """Raise InputError where one of some flags is given; `where` begins its sentence."""
    for name in names:
        if name in opts.given:
            raise InputError(f'{where}--{name} is not for a comparison, which trains and tests '
                             'each recipe itself: drop it')


def is_valid(words: Sequence[str]) -> bool:
    """True for words that are a whole command line of main.py."""
    try:
        return bool(parse_opts(words))
    except InputError:
        return False


def read_record(run: Run) -> dict[str, Any]:
    """What is known of a run: {} of a new one, with 'video_accuracy' of a finished one.

    Raises InputError where its folder holds a run of other flags.
    """
    path = run.folder / RECORD
    if not path.exists():
        return {}
    record = read_json(path, 'what compare wrote of a run')
    others = [name for name, value in run.record().items() if record.get(name) != value]
    others += [name for name, check in MEASURES.items() if check(record.get(name))]
    if others:
        raise InputError(f'{run.folder}: holds a run with other {others[0]}; give another '
                         '--result_path, or remove that folder')
    return record


def finish(run: Run, minutes: float) -> dict[str, Any]:
    """Evaluate a run that has ended well, and record that."""
    truth: Any
    names, truth, _ = read_truth(run.fold.path, SUBSETS[run.fold.subset])
    scores, _ = read_results(run.folder / f'{run.fold.subset}.json', truth, len(names), 1)
    ranked = rank(truth, scores, names)
    record = {**run.record(), 'minutes': minutes, 'n_videos': len(truth),
              'video_accuracy': count_right(ranked, 1) / len(truth),
              'mean_class_accuracy': mean_class(ranked, 1)}
    write_json(run.folder / RECORD, record)
    return record


def jobs_of(runs: Sequence[Run], records: Mapping[Run, dict[str, Any]]) -> dict[Job, Run]:
    """The jobs of the runs that are not finished; one that reads what is in the folder of another,
    as a student does with its teacher, waits for that."""
    left = [run for run in runs if 'video_accuracy' not in records[run]]
    jobs: dict[Job, Run] = {}
    for run in left:
        needed = frozenset(str(other.folder) for other in left if other is not run and any(
            word.startswith(f'{other.folder}{os.sep}') for word in run.words))
        command = (python(), str(ROOT / 'main.py'), *run.words)
        jobs[Job(str(run.folder), command, run.folder / 'output.txt', needed)] = run
    return jobs


class Comparison:
    """The runs of a comparison and what is known of each."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.records = {run: read_record(run) for run in runs}
        self.jobs = jobs_of(runs, self.records)
        self.n_failed = 0

    def on_begin(self, job: Job) -> None:
        """Record what a run is made with, so that another is not taken for it."""
        run = self.jobs[job]
        write_json(run.folder / RECORD, {**self.records[run], **run.record()})

    def on_end(self, job: Job, status: int, minutes: float) -> str:
        """Record what came of a run; the line that says it."""
        run = self.jobs[job]
        minutes += self.records[run].get('minutes', 0)
        if status:
            write_json(run.folder / RECORD, {**run.record(), 'minutes': minutes})
            if status in STOPPED:
                return f'{run.name}: stopped'
            self.n_failed += 1
            *_, last = ['', *job.output.read_text(errors='replace').splitlines()]
            return printable(f'{run.name}: ended with status {status}: {last} ({job.output})')
        record = self.records[run] = finish(run, minutes)
        return printable(f'{run.name}: {record["video_accuracy"]:.1%} of {record["n_videos"]} '
                         f'videos, {minutes:.1f} min')

    def found(self) -> list[Found]:
        """What is known of the runs that are finished."""
        return [Found(run.recipe, run.fold.number, run.seed,
                      **{name: record[name] for name in MEASURED})
                for run, record in self.records.items() if 'video_accuracy' in record]


def compare(opts: Options) -> int:
    """Do what the flags of `compare` say; the exit status."""
    recipes = read_recipes(opts)
    make_result_folder(opts.result_path)
    with sole_writer(opts.result_path, 'comparison', 'give the same command again'):
        comparison = Comparison(plan(opts, recipes, make_folds(opts)))
        be_quiet(opts.quiet)  # a recipe's --quiet, which was read by now, is that of its runs
        n_left, n_runs = len(comparison.jobs), len(comparison.records)
        note(f'{n_runs} runs, {n_runs - n_left} of them finished')
        is_left = run_side_by_side(comparison.jobs, opts.n_jobs, comparison.on_begin,
                                   comparison.on_end, opts.minutes or math.inf)
        report(opts.result_path, comparison.found())
    if is_left:
        print('runs are left: the same command goes on')
    return int(comparison.n_failed > 0)
