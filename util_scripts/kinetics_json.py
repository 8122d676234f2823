"""Make the annotation file of Kinetics from its csv files.

    python -m util_scripts.kinetics_json DIR_PATH N_CLASSES VIDEO_PATH VIDEO_TYPE DST_PATH
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from opts import STORAGES
from runtime.arguments import INTEGER, Parser, add_frame_template
from runtime.errors import InputError, run
from runtime.output import warn
from util_scripts.helpers.annotation_files import VIDEO_TYPES, Listed, write_annotations
from util_scripts.helpers.files import existing_folder, malformed
from util_scripts.helpers.video_lists import plain_name, read_rows, subset_named
from util_scripts.helpers.videos import REPLACEMENT, LeftOut, below, report_left_out

SUBSETS = {'train': 'training', 'val': 'validation', 'test': 'testing'}
# What their lists are called; DeepMind's archives have validate.csv.
LIST_NAMES = {'train': ('train',), 'val': ('val', 'validate'), 'test': ('test',)}
FILES = ('the csv files of Kinetics (kinetics-400_train.csv, _val.csv, _test.csv, or train.csv, '
         'val.csv, test.csv)')


def read_list(path: Path, subset: str) -> list[Listed]:
    """Listed videos of a csv with columns label, youtube_id, time_start, time_end, named in line 1.

    Test lists need no labels, and those that they have are kept.
    """
    rows = read_rows(path, path.parent, FILES)
    names = list(map(plain_name, rows[0][1])) if rows else []
    columns = ['youtube_id', 'time_start', 'time_end'] + ['label'] * (subset != 'testing')
    missing = [column for column in columns if column not in names]
    if missing:
        raise InputError(f'{path}, line 1: names no column {missing[0]}; {FILES} are needed, as '
                         'published')
    listed, n_others = [], 0
    for number, fields in rows[1:]:
        row = dict(zip(names, fields)) if len(fields) <= len(names) else {}
        try:
            video_id = video_name(row['youtube_id'], row['time_start'], row['time_end'])
        except (KeyError, ValueError, OverflowError):
            raise malformed(path, number, ','.join(fields),
                            'a row with youtube_id, time_start and time_end') from None
        label = row.get('label') or None
        if label is None and subset != 'testing':
            raise malformed(path, number, ','.join(fields), 'a row with a label')
        listed.append(Listed(video_id, subset, label))
        n_others += subset_named(row.get('split', '')) not in (None, subset)
    if n_others:
        warn(f'{path}: {n_others} of its {len(listed)} rows are of another subset by their column '
             f'split; all are taken for {subset}')
    return listed


def video_name(youtube_id: str, time_start: str, time_end: str) -> str:
    """`abc`, `7`, `17` -> `abc_000007_000017`; times are seconds, whole ones as text or numbers."""
    if not youtube_id:
        raise ValueError('no youtube_id')
    return f'{youtube_id}_{int(float(time_start)):06d}_{int(float(time_end)):06d}'


def with_paths(listed: Iterable[Listed], root: Path, video_type: str) -> list[Listed]:
    """The same with the paths of videos that lie in no folder of their label, but as the mirror has
    them: all of a subset in root/train, val or test, or anywhere in root/replacement, which comes
    first."""
    left_out: LeftOut = []
    replaced = stored_in(root, REPLACEMENT, video_type, left_out)
    flat = {subset: stored_in(root, name, video_type, left_out)
            for name, subset in SUBSETS.items()}
    report_left_out(root, left_out)
    return [video._replace(path=replaced.get(video.video_id) or
                           flat[video.subset].get(video.video_id)) for video in listed]


def stored_in(root: Path, name: str, video_type: str, left_out: LeftOut) -> dict[str, str]:
    """{video id: path below root, without suffix} of the videos stored in root/name; what else is
    there is added to `left_out`."""
    from util_scripts.helpers.own_videos import stem_of, telling
    if not (root / name).is_dir():
        return {}
    stems = (stem_of(path.relative_to(root), video_type)
             for path in below(root / name, telling(video_type), left_out))
    return {stem.name: stem.as_posix() for stem in stems}


def class_names(dir_path: Path, listed: Sequence[Listed]) -> list[str]:
    """In the order of the training list, as the networks released for Kinetics have their classes;
    then those of other lists, which is said."""
    labels = {subset: dict.fromkeys(video.label for video in listed if video.label is not None
                                    and video.subset == subset) for subset in SUBSETS.values()}
    others = [label for label in {**labels['validation'], **labels['testing']}
              if label not in labels['training']]
    if others:
        warn(f'{dir_path}: no video for training has the label {others[0]!r}, which others have'
             + (f', nor {len(others) - 1} more such labels' if others[1:] else ''))
    return [*labels['training'], *others]


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.kinetics_json', 'Make the annotation file of Kinetics.')
    parser.add_argument('dir_path', type=Path, help=f'folder of {FILES}; any of val and test may '
                                                    'be missing, or val called validate')
    parser.add_argument('n_classes', type=INTEGER,
                        help='400, 600 or 700: kinetics-N_train.csv is read, or train.csv where '
                             'that is missing')
    parser.add_argument('video_path', type=Path,
                        help='folder of the frames: video_path/label/..., test videos in '
                             'video_path/test/..., or all in video_path/train, val, test and '
                             'replacement')
    parser.add_argument('video_type', choices=list(STORAGES), help=VIDEO_TYPES)
    parser.add_argument('dst_path', type=Path, help='JSON file to write')
    add_frame_template(parser.add_argument)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = build_parser().parse_args(argv)
    existing_folder(args.dir_path, f'the folder of {FILES}')
    listed: list[Listed] = []
    for name, subset in SUBSETS.items():
        paths = [args.dir_path / form.format(args.n_classes, word)
                 for form in ('kinetics-{}_{}.csv', '{1}.csv') for word in LIST_NAMES[name]]
        path = next(filter(Path.exists, paths), paths[0])
        if name == 'train' or path.exists():
            listed += read_list(path, subset)
        elif name == 'val':
            warn(f'{args.dir_path}: no list of videos for validation in it, such as {path.name}')
    listed = with_paths(listed, existing_folder(args.video_path, 'the folder of the frames'),
                        args.video_type)
    write_annotations({args.dst_path: listed}, class_names(args.dir_path, listed), args.video_path,
                      args.video_type, args.frame_template)


if __name__ == '__main__':
    run(main)
