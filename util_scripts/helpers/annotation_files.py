"""What the scripts share: lists of videos, worker processes, split files and annotation files."""

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from datasets.video import VIDEO_EXTENSIONS
from opts import STORAGES
from runtime.errors import InputError
from runtime.files import replacing


def existing_folder(path, what):
    """`path` as a Path; raises InputError where it is not a folder."""
    path = Path(path)
    if not path.is_dir():
        raise InputError(f'{path}: {"not a folder" if path.exists() else "no such folder"}; '
                         f'give {what}')
    return path


def make_folder(path):
    """Make a folder, and those above it, where there is none. Raises InputError."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'{path}: the folder cannot be made: {error.strerror}; give another '
                         'destination') from None


def end_on_sigterm():
    """SIGTERM ends this process as an exception does, so that it leaves nothing behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def n_of(number, noun):
    """1 video, 2 videos, 2 processes."""
    plural = noun + ('es' if noun.endswith('s') else 's')
    return f'{number} {noun if number == 1 else plural}'


def printable(text):
    """`text` as any terminal takes it: file names may hold bytes that are no UTF-8."""
    encoding = sys.stdout.encoding or 'utf-8'
    return str(text).encode(encoding, 'backslashreplace').decode(encoding)


# ---------------------------------------------------------------- videos

def is_video(name):
    """By its extension; hidden files, such as macOS's `._a.mp4`, are none."""
    return not name.startswith('.') and os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS


def video_stem(name):
    """`a.b.avi` -> `a.b`; a name without a video's extension is left as it is."""
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in VIDEO_EXTENSIONS else name


def find_videos(dir_path, *, has_labels):
    """Paths of the videos, sorted: those of dir_path/label/ or, without labels, of dir_path.

    Raises InputError where there are none.
    """
    dir_path = existing_folder(dir_path, 'the folder of the videos')
    try:
        folders = [dir_path]
        if has_labels:
            folders = sorted(path for path in dir_path.iterdir() if path.is_dir())
        videos = [path for folder in folders for path in sorted(folder.iterdir())
                  if is_video(path.name) and path.is_file()]
    except OSError as error:
        raise InputError(f'{error.filename}: cannot be listed: {error.strerror}; mend its '
                         'permissions') from None
    if not videos:
        where = 'in its label folders (dir_path/label/video)' if has_labels else 'in it'
        raise InputError(f'{dir_path}: no video {where}; looked for {", ".join(VIDEO_EXTENSIONS)}: '
                         'check dir_path and the name of the data set')
    return videos


# ---------------------------------------------------------------- worker processes

def n_processors():
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def run_jobs(function, jobs, n_jobs, report):
    """Call report(job, function(job)) for each job, in `n_jobs` processes, as they finish.

    A job whose process dies, of a decoder's crash or for want of memory, is reported with None.
    Whatever is raised, Ctrl-C included, stops the processes at once and is passed on.
    """
    if n_jobs == 1:
        for job in jobs:
            report(job, function(job))
        return
    waiting = deque(jobs)
    while waiting:
        # All that a broken pool had under way is suspect: a process each shows which job it was.
        for suspect in _run_pool(function, waiting, n_jobs, report):
            for guilty in _run_pool(function, deque([suspect]), 1, report):
                report(guilty, None)


def _run_pool(function, waiting, n_jobs, report):
    """Work off the deque `waiting`; return the jobs under way when a process died, or none."""
    earlier = {child.pid for child in multiprocessing.active_children()}
    # Spawned, since threads of the caller do not survive a fork.
    executor = ProcessPoolExecutor(min(n_jobs, len(waiting)), initializer=_prepare_worker,
                                   mp_context=multiprocessing.get_context('spawn'))
    running, is_broken = {}, False
    try:
        while (waiting or running) and not is_broken:
            while waiting and len(running) < 2 * n_jobs:
                future = executor.submit(function, waiting[0])
                running[future] = waiting.popleft()
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                if isinstance(future.exception(), BrokenProcessPool):
                    is_broken = True
                else:
                    report(running.pop(future), future.result())
    except BrokenProcessPool:  # raised by submit
        pass
    except BaseException:
        for child in multiprocessing.active_children():
            if child.pid not in earlier:
                child.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
    return list(running.values())


def _prepare_worker():
    # Ctrl-C reaches the whole group of processes: the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


# ---------------------------------------------------------------- split files

def read_text(path, what):
    """A text file, UTF-8 with or without byte order mark. Raises InputError."""
    try:
        return Path(path).read_text(encoding='utf-8-sig')
    except FileNotFoundError:
        raise InputError(f'{path}: no such file; {what} is needed there') from None
    except UnicodeDecodeError:
        raise InputError(f'{path}: not a UTF-8 text file; {what} is needed there') from None
    except OSError as error:
        raise InputError(f'{path}: cannot be read: {error.strerror}') from None


def read_lines(path, what):
    """[(number from 1, line)] of a text file, without empty lines and surrounding spaces."""
    lines = ((number, line.strip())
             for number, line in enumerate(read_text(path, what).splitlines(), 1))
    return [(number, line) for number, line in lines if line]


def malformed(path, number, line, form):
    """The InputError for a line that is not of the form it should have."""
    return InputError(f'{path}, line {number}: {line!r} is not {form}; mend the line or take the '
                      'published file')


# ---------------------------------------------------------------- annotation files

class Listed(NamedTuple):
    """A video as a split file lists it; `label` is None where it is not known."""

    video_id: str
    subset: str
    label: str | None


VIDEO_TYPES = ('how the frames are stored: jpg folders, hdf5 files, hdf5 files with optical flow, '
               'or the video files themselves, which are decoded to count their frames')


def add_video_type(parser):
    """The flag --video_type of the scripts that had none in the 2020 code."""
    parser.add_argument('--video_type', choices=list(STORAGES), default='jpg',
                        help=f'{VIDEO_TYPES} (default: jpg)')


def first_frame(video_type):
    """Number of a stored video's first frame, by one of opts.STORAGES."""
    from datasets.frames import READERS  # here, because it takes seconds
    return READERS[STORAGES[video_type]].first_frame


def count_frames(root, video_type, paths):
    """{path below `root`, without suffix: number of frames stored}, with a progress bar.

    A file that cannot be read counts as 0 and is named on stderr.
    """
    # Here, because it takes seconds: workers that extract frames import this module too.
    from datasets.frames import READERS, video_path
    from runtime.logs import Progress
    reader = READERS[STORAGES[video_type]]()

    def count(path):
        try:
            return reader.count(video_path(root, path, reader.suffix))
        except InputError as error:
            print(f'warning: {printable(error)}', file=sys.stderr)
            return 0
    paths, counts = list(dict.fromkeys(paths)), {}
    threads = ThreadPoolExecutor(n_processors())
    try:
        with Progress(len(paths), 'count frames', unit='video') as progress:
            for path, n_frames in zip(paths, threads.map(count, paths)):
                counts[path] = n_frames
                progress.update(1)
    finally:
        threads.shutdown(cancel_futures=True)
    return counts


def frames_path(listed):
    """Path of a Listed video's frames; those of videos without label lie under `test`."""
    return f'{"test" if listed.label is None else listed.label}/{listed.video_id}'


def make_database(listed, counts, first):
    """Annotation entries by video id, from Listed videos; later ones replace earlier ones.

    counts: {path of frames: number of frames}, the first of which has number `first`; where it is 0
    there is no segment.
    """
    database = {}
    for video in listed:
        annotations = {} if video.label is None else {'label': video.label}
        n_frames = counts[frames_path(video)]
        if n_frames:
            annotations['segment'] = [first, first + n_frames]
        database[video.video_id] = {'subset': video.subset, 'annotations': annotations}
    return database


def write_annotations(splits, labels, video_path, video_type):
    """Count frames and write one annotation file a split, {path: [Listed]}; say so, a line each.

    Raises InputError where no video of any split has frames below `video_path`: none is written.
    """
    existing_folder(video_path, 'the folder of the frames')
    counts = count_frames(video_path, video_type, (frames_path(video) for listed in splits.values()
                                                   for video in listed))
    databases = {path: make_database(listed, counts, first_frame(video_type))
                 for path, listed in splits.items()}
    n_listed = sum(map(len, databases.values()))
    n_missing = {path: sum('segment' not in entry['annotations'] for entry in database.values())
                 for path, database in databases.items()}
    if sum(n_missing.values()) == n_listed:
        raise InputError(f'{video_path}: no frames of any of the {n_listed} listed videos in it; '
                         f'give the folder that the {video_type} frames were extracted to')
    for path, database in databases.items():
        write_json(path, {'labels': labels, 'database': database})
        n_twice = len(splits[path]) - len(database)
        twice = f', {n_twice} listed more than once (the last counts)' if n_twice else ''
        print(f'{printable(path)}: {len(database)} videos, {n_missing[path]} of them without '
              f'frames and left out in use{twice}')


def write_json(path, data):
    """Write an annotation file, at once or not at all: a line a video, so that it can be read."""
    with replacing(path) as temporary, open(temporary, 'w', encoding='utf-8') as file:
        separator = '{'
        for name, value in data.items():
            file.write(f'{separator}\n{json.dumps(name)}: ')
            if name == 'database':
                rows = (f'{json.dumps(key)}: {json.dumps(entry)}' for key, entry in value.items())
                file.write('{\n' + ',\n'.join(rows) + '\n}')
            else:
                json.dump(value, file)
            separator = ','
        file.write('\n}\n')


def read_json(path, what):
    """The object in a JSON file. Raises InputError."""
    try:
        data = json.loads(read_text(path, what))
    except ValueError as error:
        raise InputError(f'{path}: not JSON ({error}); {what} is needed there') from None
    if not isinstance(data, dict):
        raise InputError(f'{path}: holds no JSON object; {what} is needed there')
    return data
