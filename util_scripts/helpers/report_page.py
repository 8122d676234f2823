"""The page of `report`: HTML of what `report_data` reads."""

from argparse import Namespace
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metrics import most_confused
from overview import in_lines
from runtime.files import write_text
from runtime.logs import Progress
from runtime.output import to_stderr, wrote
from util_scripts.helpers.charts import Curve, confusion_matrix, key, line_chart
from util_scripts.helpers.evaluation import (count_by_class, count_confusions, count_right,
                                             mean_class, precisions, rank)
from util_scripts.helpers.html_page import (PAUSE_BUTTON, Cell, film, folded, page, table, text,
                                            without_empty)
from util_scripts.helpers.intervals import by_group, wilson
from util_scripts.helpers.plotting import PANELS, Clip, best_row
from util_scripts.helpers.report_data import (Results, RunData, as_flag, changed, command,
                                              mistakes_of, read_runs)
from util_scripts.helpers.text import n_of

SHOWN_PAIRS = 10


def share(value: float) -> str:
    """0.9125 -> 91.3 %"""
    return f'{100 * value:.1f} %'


class Accuracy(NamedTuple):
    """Top-k of the videos; intervals of 95 %, of groups None where they are not known."""

    k: int
    n_right: int
    n: int
    interval: tuple[float, float]
    of_groups: tuple[float, float] | None


# ---------------------------------------------------------------- numbers

def accuracies(results: Results) -> list[Accuracy]:
    """Top-1, and top-5 of more than 5 classes, as far as results hold as many labels."""
    truth, scores = results.truth, results.scores
    ranked = rank(truth, scores, results.class_names)
    n_kept = min(map(len, scores.values()))
    rows = []
    for k in (1, 5):
        if k >= len(results.class_names) or k > n_kept:
            continue
        right = np.array([float(bool(labels & set(list(scores.get(video_id, ()))[:k])))
                          for video_id, labels in truth.items()])
        n_right = count_right(ranked, k)
        rows.append(Accuracy(k, n_right, len(truth), wilson(n_right, len(truth)),
                             None if results.groups is None else by_group(right, results.groups)))
    return rows


def _interval(bounds: tuple[float, float] | None) -> str:
    return '' if bounds is None else f'{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %'


# ---------------------------------------------------------------- all runs

def overview_table(runs: Sequence[RunData]) -> str:
    """One row per run."""
    rows = []
    for run in runs:
        best = best_row(run.logs)
        log = run.logs.get('validation', {})
        top1 = log['video_top1'][best] if best is not None and 'video_top1' in log else np.nan
        found = accuracies(run.results) if run.results else []
        rows.append([
            run.name, n_epochs(run),
            Cell(f'{log["epoch"][best]:.0f}', log['epoch'][best]) if best is not None else '',
            Cell(share(top1), top1) if np.isfinite(top1) else '',
            Cell(share(own := found[0].n_right / found[0].n), own) if found else '',
            _interval(found[0].interval) if found else ''])
    return table(*without_empty(['run', 'epochs', 'best epoch', 'video top-1 then',
                                 'top-1 of the inference', '95 % interval (Wilson)'], rows))


def n_epochs(run: RunData) -> str:
    """Of the logs, '' without."""
    epochs = [log['epoch'].max() for log in run.logs.values()]
    return f'{max(epochs):.0f}' if epochs else ''


def curves_html(runs: Sequence[RunData]) -> str:
    """A chart per figure of merit; of one run the training and the validation have a look each, of
    several the runs, by their validation where any of them has one."""
    is_by_validation = len(runs) > 1 and any('validation' in run.logs for run in runs)
    charts = []
    for title, lines in PANELS.items():
        curves = [
            Curve(f'{run.name}, {log}' if len(runs) > 1 else log, run.logs[log]['epoch'],
                  run.logs[log][column], _look(number, log, len(runs)),
                  best_row(run.logs) if log == 'validation' else None)
            for number, run in enumerate(runs) for log, column in lines
            if column in run.logs.get(log, {}) and not (is_by_validation and log == 'training'
                                                        and len(lines) > 1)]
        if curves:
            charts.append(line_chart(title, curves, is_log=title == 'learning rate',
                                     is_share='accuracy' in title or 'mAP' in title))
    names = ([(run.name, number) for number, run in enumerate(runs)] if len(runs) > 1
             else [(log, _look(0, log, 1)) for log in ('validation', 'training')
                   if log in runs[0].logs])
    notes = ['Of several runs, loss and accuracies are those of the validation.'
             ] * is_by_validation + ['A ring marks the best epoch of a validation.'
                                     ] * any('validation' in run.logs for run in runs)
    return (f'{key(names)}<div class="charts">{"".join(charts)}</div>'
            f'<p class="note">{" ".join(notes)}</p>'
            + ''.join(folded(f'the numbers of {run.name}: {log}', table(list(logs), [
                [Cell(f'{value:.0f}' if value == np.round(value) else f'{value:.6g}', value)
                 for value in row] for row in zip(*logs.values())]))
                      for run in runs for log, logs in run.logs.items()))


def _look(number: int, log: str, n_runs: int) -> int:
    return number if n_runs > 1 else int(log == 'training')


# ---------------------------------------------------------------- one run

def options_html(run: RunData) -> str:
    """Flags that differ from their defaults, the environment, the commands."""
    rows = [(f'--{name}', as_flag(name, value), '' if default is None else as_flag(name, default))
            for name, (value, default) in changed(run.trained).items()]
    environment = [(name, str(value)) for name, value in run.environment.items()]
    commands = '\n\n'.join(in_lines(command(options)).strip() for options in run.options)
    return ('<h3>Options that differ from the defaults</h3>'
            + (table(['flag', 'value', 'default'], rows) if rows else '<p>None is known.</p>')
            + '<h3>Environment</h3>'
            + (table(['what', 'which'], environment) if environment else
               '<p class="note">The run recorded none.</p>')
            + '<h3>To do it again</h3>'
            + (f'<pre tabindex="0">{text(commands)}</pre>' if commands else
               '<p class="note">There is no opts.json in the folder.</p>'))


def results_html(results: Results, clips: Sequence[Clip], why_none: str) -> str:
    """Accuracies, confusion matrix, classes, mistakes."""
    rows = [(f'top-{row.k}', Cell(share(row.n_right / row.n), row.n_right / row.n),
             f'{row.n_right} of {n_of(row.n, "video")}', _interval(row.interval),
             _interval(row.of_groups)) for row in accuracies(results)]
    parts = ['<h3>Accuracy</h3>', table(
        ['metric', 'value', 'right', '95 % interval, videos (Wilson)',
         '95 % interval, groups (bootstrap)'], rows)]
    if results.groups is not None:
        n_groups = len(np.unique(results.groups))
        parts.append(f'<p class="note">The {n_of(len(results.truth), "video")} are of '
                     f'{n_of(n_groups, "group")}; videos of a group are alike, so that the '
                     'interval of groups is the one to trust.</p>')
    n_missing = len(results.truth) - len(results.scores)
    if n_missing:
        parts.append(f'<p class="wrong">{n_of(n_missing, "video")} without a result '
                     f'{"count" if n_missing > 1 else "counts"} as wrong.</p>')
    parts += ([_precisions_html(results)] if results.has_lists else
              [_confusion_html(results), _classes_html(results)])
    return ''.join([*parts, _mistakes_html(clips, why_none)])


def _precisions_html(results: Results) -> str:
    found, n_videos = precisions(results.truth, results.scores, results.class_names)
    rows = [(name, Cell(f'{value:.3f}', value), Cell(str(n), n)) for name, value, n in
            zip(results.class_names, found.tolist(), n_videos.tolist()) if n]
    rows.sort(key=lambda row: row[1].value)
    return (f'<h3>Average precision by class</h3><p>mAP {float(found.nanmean()):.3f}</p>'
            + table(['class', 'average precision', 'videos'], rows, is_sortable=True))


def _confusion_html(results: Results) -> str:
    counts = count_confusions(results.truth, results.scores, results.class_names)
    names = results.class_names
    pairs = [(f'{names[true]}', f'{names[predicted]}', Cell(str(times), times),
              Cell(share(times / int(counts[true].sum())), times / int(counts[true].sum())))
             for true, predicted, times in most_confused(counts, SHOWN_PAIRS)]
    return ('<h3>Confusion matrix</h3><p class="note">Rows are true, columns predicted; the colour '
            'is the share of the row.</p>' + confusion_matrix(counts.numpy(), names)
            + ('<h3>Most confused</h3>' + table(['true', 'predicted', 'videos', 'of the class'],
                                                pairs) if pairs else ''))


def _classes_html(results: Results) -> str:
    ranked = rank(results.truth, results.scores, results.class_names)
    right, totals = count_by_class(ranked, 1)
    counts = count_confusions(results.truth, results.scores, results.class_names)
    rows = []
    for number, name in enumerate(results.class_names):
        n_right, n = int(right[number]), int(totals[number])
        if n:
            low, high = wilson(n_right, n)
            n_said = int(counts[:, number].sum())
            precision = int(counts[number, number]) / n_said if n_said else float('nan')
            rows.append((name, Cell(share(n_right / n), n_right / n), Cell(str(n), n),
                         Cell(f'{100 * low:.0f} to {100 * high:.0f} %', low),
                         Cell(share(precision) if n_said else 'never said',
                              precision if n_said else -1.0)))
    rows.sort(key=lambda row: row[1].value)
    return (f'<h3>Classes</h3><p>mean-class accuracy {share(mean_class(ranked, 1))}; titles sort '
            'the table</p>' + table(['class', 'accuracy', 'videos', '95 % interval', 'precision'],
                                    rows, is_sortable=True))


def _mistakes_html(clips: Sequence[Clip], why_none: str) -> str:
    if not clips:
        return f'<h3>Worst mistakes</h3><p class="note">No pictures: {text(why_none)}</p>' \
            if why_none else ''
    figures = [f'<figure>{film(clip.frames, f"frames of {clip.name}")}<figcaption>'
               f'{text(clip.truth)}</figcaption><p class="wrong">said {text(clip.predicted)} '
               f'({clip.score:.2f})</p><p class="note">{text(clip.name)}</p></figure>'
               for clip in clips]
    return (f'<h3>Worst mistakes</h3>{PAUSE_BUTTON}<div class="clips">{"".join(figures)}</div>')


# ---------------------------------------------------------------- the page

def report_html(runs: Sequence[RunData], args: Namespace) -> str:
    """The whole file."""
    sections = [('Overview', overview_table(runs), 'overview')]
    if any(run.logs for run in runs):
        sections.append(('Curves', curves_html(runs), 'curves'))
    with Progress(len(runs), 'report', unit='run') as progress:
        for number, run in enumerate(runs, 1):
            clips, why_none = mistakes_of(run, args)
            if run.results:
                sections.append((f'Results of {run.name}',
                                 results_html(run.results, clips, why_none), f'results-{number}'))
            sections.append((f'How {run.name} was made', options_html(run), f'run-{number}'))
            progress.update(1)
            if why_none:
                to_stderr(f'{run.folder}: no thumbnails: {why_none}')
    return page('Report: ' + ', '.join(run.name for run in runs), sections)


def write_report(args: Namespace) -> None:
    """Write the page of `report`. Raises InputError."""
    runs = read_runs(args)
    path = args.output or args.folders[0] / 'report.html'
    html = report_html(runs, args)
    write_text(path, html)
    n_bytes = path.stat().st_size
    wrote(path, about=f'{n_bytes / 1e6:.1f} MB', then='open it in any browser')
