"""Add each video's frame rate to an annotation file of ActivityNet, whose segments are in seconds.

    python -m util_scripts.add_fps_into_activitynet_json VIDEO_DIR_PATH JSON_PATH [DST_JSON_PATH]
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from datasets.video import Video, VideoError
from runtime.arguments import Parser
from runtime.errors import InputError, run
from runtime.logs import Progress
from runtime.output import to_stderr, wrote
from util_scripts.helpers.annotation_files import write_json
from util_scripts.helpers.files import read_json
from util_scripts.helpers.jobs import n_processors
from util_scripts.helpers.videos import find_videos

FILE = 'an annotation file of ActivityNet as published (activity_net.v1-3.min.json)'


def read_fps(path: Path) -> tuple[float | None, str | None]:
    """(frames per second or None, None or the reason why not)."""
    try:
        with Video(path) as video:
            return video.fps, None
    except VideoError as error:
        return None, str(error)


def add_fps(database: dict[str, dict[str, Any]], videos: Mapping[str, Path]
            ) -> tuple[int, dict[Path, str | None]]:
    """Set `fps` of the entries whose video is among `videos`, {stem: path}: v_ID, or ID alone, as
    extraction takes it too.

    Returns how many have none, and {path: why} for the files that cannot be read.
    """
    there = {video_id: stem for video_id in database
             for stem in (video_id, f'v_{video_id}') if stem in videos}
    failures = {}
    with Progress(len(there), 'frame rates', unit='video') as progress, \
            ThreadPoolExecutor(n_processors()) as threads:
        paths = [videos[stem] for stem in there.values()]
        for video_id, path, (fps, why) in zip(there, paths, threads.map(read_fps, paths)):
            if fps is None:
                failures[path] = why
            else:
                database[video_id]['fps'] = fps
            progress.update(1)
    return len(database) - len(there), failures


def build_parser() -> Parser:
    parser = Parser('python -m util_scripts.add_fps_into_activitynet_json',
                    'Add "fps", the average frame rate of each video, to an annotation file of '
                    'ActivityNet. Exit status 1 where a video cannot be read.')
    parser.add_argument('video_dir_path', type=Path, help='folder of the videos v_ID.mp4 or ID.mp4')
    parser.add_argument('json_path', type=Path, help=FILE)
    parser.add_argument('dst_json_path', type=Path, nargs='?',
                        help='JSON file to write (default: json_path itself)')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    data = read_json(args.json_path, FILE)
    database = data.get('database')
    if not isinstance(database, dict) or not all(isinstance(entry, dict)
                                                 for entry in database.values()):
        raise InputError(f'{args.json_path}: has no "database" of videos; give {FILE}')
    videos = {path.stem: path for path in find_videos(args.video_dir_path, has_labels=False)}
    n_missing, failures = add_fps(database, videos)
    if n_missing == len(database):
        raise InputError(f'{args.video_dir_path}: none of the {len(database)} videos of '
                         f'{args.json_path} in it; they are looked for as v_ID.mp4')
    dst_path = args.dst_json_path or args.json_path
    write_json(dst_path, data)
    for path, why in failures.items():
        to_stderr(f'failed: {path}: {why}')
    wrote(dst_path, about=f'{len(database)} videos, {n_missing} of them not found and '
                          f'{len(failures)} not readable: those are without fps',
          then='give it as --annotation_path, with --dataset activitynet')
    return 1 if failures else 0


if __name__ == '__main__':
    run(main)
