"""Pictures of what a network confuses: the confusion matrix, the classes, the worst mistakes."""

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets.annotations import (SUBSETS, Annotation, label_list_records, read_annotation,
                                  taxonomy_records)
from datasets.frames import FrameError, make_reader, video_path
from runtime.errors import InputError
from runtime.figures import evenly
from runtime.output import printable, warn, wrote
from util_scripts.helpers.evaluation import (Scores, Truth, confused_lines, count_confusions,
                                             precisions, read_both)
from util_scripts.helpers.files import existing_folder, make_folder
from util_scripts.helpers.neighbours import group_numbers
from util_scripts.helpers.plotting import Clip, draw_bars, draw_classes, draw_clips, draw_confusion
from util_scripts.helpers.text import n_of

FRAMES_A_STRIP = 8
Mistake = tuple[str, str, float]  # video id, label, score


def worst_mistakes(truth: Truth, scores: Scores) -> list[Mistake]:
    """[(video id, label, score)] of videos whose best label is wrong, the surest first."""
    best = [(video_id, *next(iter(labels.items()))) for video_id, labels in scores.items()]
    wrong = [entry for entry in best if entry[1] not in truth[entry[0]]]
    return sorted(wrong, key=lambda entry: -entry[2])


def surest_wrong(truth: Truth, scores: Scores) -> list[Mistake]:
    """[(video id, label, score)] of the best label that each video does not have, the surest first,
    as far as it is said (above 0.5) or comes before a label that the video has."""
    wrong = []
    for video_id, labels in scores.items():
        lowest = min((labels.get(label, 0) for label in truth[video_id]), default=1)
        others = (item for item in labels.items() if item[0] not in truth[video_id])
        label, score = next(others, ('', 0.0))
        if score > min(0.5, lowest):
            wrong.append((video_id, label, score))
    return sorted(wrong, key=lambda entry: -entry[2])


def spread(mistakes: list[Mistake], groups_path: Path | None) -> list[Mistake]:
    """The mistakes in another order: the surest of each group of videos, then the second of each,
    and so on, so that the first few are not all of one recording.

    Groups are those of `group_numbers`. Raises InputError.
    """
    n_before: Counter[int] = Counter()
    ranks = []
    for group in group_numbers(groups_path, [video_id for video_id, _, _ in mistakes]).tolist():
        ranks.append(n_before[group])
        n_before[group] += 1
    order = sorted(range(len(mistakes)), key=ranks.__getitem__)  # stable: the surest stay first
    return [mistakes[i] for i in order]


def find_records(annotation: Annotation, subset: str, root: Path, reader: Any
                 ) -> tuple[Any, dict[str, int]]:
    """Records of whole videos, and the number of each by video id."""
    if annotation.is_taxonomy:
        def count(path: str) -> int:
            return reader.announced(video_path(root, path, reader.suffix))
        records, _ = taxonomy_records(annotation, subset, count, first_frame=reader.first_frame,
                                      trimmed=False)
    else:
        records, _ = label_list_records(annotation, subset, first_frame=reader.first_frame,
                                        multi_label=True)
    return records, {records.video_ids[i]: i for i in range(len(records))}


def mistaken_clips(mistakes: list[Mistake], truth: Truth, annotation: Annotation, args: Namespace,
                   subset: str) -> list[Clip]:
    """A `Clip` for each of the worst mistakes whose frames can be read, up to --n_mistakes."""
    root = existing_folder(args.video_path, 'the folder of the frames')
    reader = make_reader((args.file_type, 'rgb'), args.frame_template)
    records, numbers = find_records(annotation, subset, root, reader)
    clips: list[Clip] = []
    error: Exception | None = None
    for video_id, label, score in mistakes:
        if len(clips) == args.n_mistakes:
            break
        try:
            i = numbers[video_id]
            of_video = records.frames(i)
            shown = [of_video[place] for place in evenly(0, len(of_video) - 1, FRAMES_A_STRIP)]
            frames = reader.read(video_path(root, records.paths[i], reader.suffix), shown)
        except (KeyError, FrameError) as missing:
            error = error or missing
            continue
        names = ', '.join(sorted(truth[video_id])) or 'no label'
        clips.append(Clip(frames.permute(0, 2, 3, 1).numpy(), shown, names, label, score, video_id))
    if mistakes and not clips:
        raise InputError(f'{root}: no frames of any of the {len(mistakes)} mistakes can be read; '
                         f'the first: {error}')
    return clips


def draw_single_labels(truth: Truth, scores: Scores, class_names: Sequence[str], folder: Path
                       ) -> tuple[list[str], list[str]]:
    """(names of the pictures that are drawn in the folder, lines to print)."""
    counts = count_confusions(truth, scores, class_names)
    if not counts.any():
        raise InputError('no video has one of the classes as its label and another or the same as '
                         'its result, so no confusion can be drawn: check that both files are of '
                         'one data set')
    draw_confusion(counts.numpy(), class_names, folder / 'confusion.png')
    draw_classes(counts.numpy(), class_names, folder / 'classes.png')
    return ['confusion.png', 'classes.png'], confused_lines(counts, class_names)


def draw_lists_of_labels(truth: Truth, scores: Scores, class_names: Sequence[str], folder: Path
                         ) -> tuple[list[str], list[str]]:
    """As `draw_single_labels`, of the videos that have a result, as it counts those too."""
    truth = {video_id: truth[video_id] for video_id in scores}
    found, n_videos = (column.numpy() for column in precisions(truth, scores, class_names))
    if not n_videos.any():
        raise InputError(f'none of the {len(truth)} videos with a result has a label: nothing can '
                         'be drawn; infer more videos')
    notes = [n_of(n, 'video') for n in n_videos.tolist()]
    draw_bars(found, n_videos, notes, class_names, 'average precision by class, of videos',
              folder / 'classes.png')
    return ['classes.png'], ['no confusion matrix: videos have lists of labels']


def draw_results(args: Namespace) -> None:
    """Draw what the flags of `plot_results` name, and print what was confused and drawn."""
    class_names, truth, has_lists, scores, _ = read_both(args.ground_truth_path,
                                                         args.result_path, args.subset)
    folder = args.output or args.result_path.parent
    make_folder(folder)
    draw = draw_lists_of_labels if has_lists else draw_single_labels
    drawn, lines = draw(truth, scores, class_names, folder)
    if args.video_path:
        find_mistakes = surest_wrong if has_lists else worst_mistakes
        mistakes = spread(find_mistakes(truth, scores), args.groups)
        clips = mistaken_clips(mistakes, truth, read_annotation(args.ground_truth_path), args,
                               SUBSETS.get(args.subset, args.subset))
        if clips:
            draw_clips(clips, folder / 'mistakes.png')
            drawn.append('mistakes.png')
    elif given := [f'--{name}' for name in ('groups', 'frame_template') if getattr(args, name)]:
        warn(f'without --video_path no mistakes are drawn, and {" and ".join(given)} has no effect')
    print(*map(printable, lines), sep='\n')
    wrote(*(folder / name for name in drawn))
