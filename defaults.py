"""Flags that are not given: what the annotation, the folder of videos and the network say of them.

The defaults of the flags themselves stay where nothing says otherwise.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import models
from datasets.annotations import MAX_PATH, Annotation, usual_path
from datasets.frames import READERS, video_path
from datasets.video import find_video
from opts import AUGMENTATION_FLAGS, FILE_TYPES, NETWORK_FLAGS, Options, check, replace

# So many videos of the annotation are looked for, until one is found.
LOOKED_FOR = 20


def resolved(opts: Options, annotation: Annotation, has_classes: bool, has_network: bool
             ) -> tuple[Options, str]:
    """(the options with what is found for flags that were not given, the line that says so).

    has_classes, has_network: a weights file says how many classes, or which network

    Raises InputError where flags that were given do not go with what is found.
    """
    found: dict[str, tuple[Any, str]] = {}
    if annotation.is_taxonomy:
        found['dataset'] = 'activitynet', f'{annotation.path.name} has a taxonomy'
    file_type = stored_as(opts, annotation)
    if file_type:
        found['file_type'] = file_type, f'in {opts.video_path.name}'
    if not has_classes:
        found['n_classes'] = len(annotation.class_names), f'labels of {annotation.path.name}'
    depth = None if has_network else models.default_depth(opts.model)
    if depth:
        found['model_depth'] = depth, f'of {opts.model}'
    taken = {name: value for name, (value, _) in found.items() if name not in opts.given}
    if not taken:
        return opts, ''
    opts = replace(opts, **taken)
    check(opts)
    return opts, 'not given: ' + ', '.join(f'--{name} {value} ({found[name][1]})'
                                           for name, value in taken.items())


def without_effect(opts: Options) -> Iterator[str]:
    """A line for each flag that was given and does nothing, as of another family of networks."""
    if opts.accimage:
        yield '--accimage has no effect: that image library is no longer kept'
    for is_so, names, why in _idle_flags(opts):
        given = [f'--{name}' for name in names if is_so and name in opts.given]
        if given:
            yield f'{", ".join(given)} {"has" if len(given) == 1 else "have"} no effect {why}'
    if opts.resume_path or opts.pretrain_path:
        return  # the file says which family it is
    taken = {*models.options_of(opts.model), 'attention'}  # that one is an error
    for name in NETWORK_FLAGS:
        if name in opts.given and name not in taken:
            yield f'--{name} has no effect: {opts.model} has no such option'


def _idle_flags(opts: Options) -> list[tuple[bool, tuple[str, ...], str]]:
    """[(is it so, flags that then do nothing, why)]

    A training that is gone on with has its own schedule, and flags that scripts of 2020 have beside
    --no_train speak for themselves.
    """
    is_new = opts.resume_path is None and not opts.no_train
    return [
        (opts.no_train, ('ema_decay', 'early_stopping', 'teacher_path', *AUGMENTATION_FLAGS,
                         'label_smoothing', 'accumulate', 'clip_grad_norm', 'adam_betas',
                         'no_norm_decay', 'layer_decay', 'head_lr_factor', 'warmup_epochs',
                         'unfreeze_epoch', 'freeze_bn', 'dropout'), 'with --no_train'),
        (not opts.inference, ('inference_subset', 'inference_stride', 'inference_crop',
                              'inference_views', 'inference_no_average', 'inference_batch_size',
                              'output_topk'), 'without --inference'),
        (opts.no_val, ('n_val_samples',), 'with --no_val'),
        (opts.pretrain_path is None, ('n_pretrain_classes',), 'without --pretrain_path'),
        (opts.resume_path is None, ('overwrite_milestones',), 'without --resume_path'),
        (is_new and opts.lr_scheduler != 'plateau', ('plateau_patience',),
         f'with --lr_scheduler {opts.lr_scheduler}'),
        (is_new and opts.lr_scheduler == 'plateau', ('multistep_milestones',),
         'with --lr_scheduler plateau'),
        (is_new and opts.train_crop != 'random', ('train_crop_min_scale', 'train_crop_min_ratio'),
         f'with --train_crop {opts.train_crop}'),
        (opts.no_mean_norm, ('mean',), 'with --no_mean_norm'),
        (opts.no_std_norm, ('std',), 'with --no_std_norm'),
        (bool(opts.mean and opts.std), ('mean_dataset',), 'with --mean and --std'),
    ]


def stored_as(opts: Options, annotation: Annotation) -> str | None:
    """The --file_type of the first video that lies in the folder, None where none is found.

    Of several, the first of FILE_TYPES counts: frames are read faster than they are decoded.
    """
    for path in islice(_paths(annotation), LOOKED_FOR):
        for file_type in FILE_TYPES:
            if (file_type, opts.input_type) in READERS and _is_there(opts, file_type, path):
                return file_type
    return None


def _paths(annotation: Annotation) -> Iterator[str]:
    """Where the videos are below the folder, as far as the annotation has them right."""
    for video_id, entry in annotation.database.items():
        marks = entry.get('annotations') if isinstance(entry, dict) else None
        usual = f'v_{video_id}'
        if not annotation.is_taxonomy:
            usual = usual_path(video_id, marks.get('label') if isinstance(marks, dict) else None)
        path = entry.get('video_path', usual) if isinstance(entry, dict) else usual
        if isinstance(path, str) and len(path) < MAX_PATH:  # others are refused later, by name
            yield path


def _is_there(opts: Options, file_type: str, path: str) -> bool:
    whole = video_path(opts.video_path, path, READERS[file_type, opts.input_type].suffix)
    if file_type == 'video':
        return find_video(whole) is not None
    return Path(whole).is_dir() if file_type == 'jpg' else Path(whole).is_file()
