"""Extract the frames of a data set's videos: image_00001.jpg, ... in a folder for each video.

    python -m util_scripts.generate_video_jpgs DIR_PATH DST_PATH DATASET

A run that was stopped is taken up where it was: a folder under a video's own name is complete.
It holds a hidden file that says what it was made of, so that a later run makes frames again where
the video, the flags or the frames are no longer those.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
from argparse import Namespace
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import av

from datasets.scaling import SHORT_SIDE
from datasets.video import VIDEO_EXTENSIONS, Video, VideoError, count_packets, reason
from runtime.arguments import Parser, between, command_line
from runtime.errors import InputError, run
from runtime.files import parse_json
from runtime.locks import lock
from runtime.output import note, to_stderr, wrote
from util_scripts.helpers.files import existing_folder, make_folder
from util_scripts.helpers.jobs import n_processors, run_jobs
from util_scripts.helpers.video_io import QUALITY, frames_at, jpegs
from util_scripts.helpers.videos import REPLACEMENT, find_videos

# Whether the videos of a data set lie in label folders.
DATASETS = {'kinetics': True, 'activitynet': False, 'ucf101': True, 'hmdb51': True, 'mit': True}
KEEP_FPS = ALL_PROCESSORS = -1
TEMPORARY_PREFIX = '.extracting-'
# After the name of a temporary: what it takes the place of, and what whoever makes it has locked.
OLD_SUFFIX, LOCK_SUFFIX = '-old', '.lock'
# A decoder does not keep more threads busy.
MAX_THREADS = 4
# What happens to every other video as well: a full disk, or one that is not written to.
NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
# What a folder of frames was made of. Hidden, so that nothing takes it for a frame or a video.
RECORD = '.extracted.json'
DAMAGE = 'damage'  # in it, where the video could not be decoded whole: why
N_FRAMES_2020 = 'n_frames'  # a file of the 2020 code, which is wrong when frames are made again
FRAME = re.compile(r'image_\d{5,}\.jpg')


class JpgFolders:
    """One folder per video, one image per frame. Other storages have these functions."""

    kind = 'jpg'
    encode = staticmethod(jpegs)

    @staticmethod
    def destination(folder: Path, stem: str) -> Path:
        """Path of a video's frames in its label's folder."""
        return folder / stem

    @staticmethod
    def holds_frames(destination: Path) -> bool:
        """True where there is something that frames made again may take the place of."""
        return destination.is_dir() and any(is_own(path.name) for path in destination.iterdir())

    @staticmethod
    def contents(destination: Path) -> dict[str, int]:
        """What there is: the number of frames that are not empty (`n_frames`), and their size."""
        sizes = [entry.stat().st_size for entry in os.scandir(destination)
                 if FRAME.fullmatch(entry.name)]
        return {'n_frames': sum(size > 0 for size in sizes), 'n_bytes': sum(sizes)}

    @staticmethod
    def first_image(destination: Path) -> bytes:
        """Bytes of the first frame. Raises OSError."""
        return (destination / 'image_00001.jpg').read_bytes()

    @staticmethod
    def read_record(destination: Path) -> dict[str, Any] | None:
        """What `write_record` left there, or None, as in folders of the 2020 code."""
        return parse_record((destination / RECORD).read_bytes()
                            if (destination / RECORD).is_file() else None)

    @staticmethod
    def write_record(path: Path, record: Mapping[str, Any]) -> None:
        (path / RECORD).write_text(json.dumps(record))

    @staticmethod
    def put(temporary: Path, destination: Path) -> None:
        """Give complete frames their own name, in the place of others; files that are no frames
        stay in the folder."""
        if not JpgFolders.holds_frames(destination):
            os.rename(temporary, destination)
            return
        old = temporary.with_name(f'{temporary.name}{OLD_SUFFIX}')
        os.rename(destination, old)
        os.rename(temporary, destination)
        for path in old.iterdir():
            if not is_own(path.name):
                os.rename(path, destination / path.name)
        remove(old)

    @staticmethod
    def write(path: Path, frames: Iterable[bytes]) -> None:
        """Store JPEG bytes, an iterable, as the folder `path`, which is made."""
        path.mkdir()
        for number, data in enumerate(frames, 1):
            (path / f'image_{number:05d}.jpg').write_bytes(data)


def is_own(name: str) -> bool:
    """True for the names of files that an extraction makes, or made in 2020."""
    return bool(FRAME.fullmatch(name)) or name in (RECORD, N_FRAMES_2020)


def parse_record(data: bytes | str | None) -> dict[str, Any] | None:
    """The object in a record's JSON, or None where it is none."""
    try:
        record = parse_json(data or 'null')
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


@dataclass(frozen=True)
class Job:
    """One video to extract; `fps` None keeps the rate of the video.

    n_threads: threads that make images while another one decodes; 1 for one that does both
    is_again:  True where there are frames, which others shall take the place of
    is_overwritten: True where frames are made again that are as they should be
    waits:     True for one that another run is making, whose end is waited for
    """

    video: Path
    destination: Path
    storage: Any
    size: int
    quality: int
    fps: float | None
    n_threads: int = 1
    is_again: bool = False
    is_overwritten: bool = False
    waits: bool = False

    def source(self) -> dict[str, Any]:
        """What frames are made of: the video as it is now, and the flags. Times are in whole
        seconds, as archives keep them."""
        status = os.stat(self.video)
        return {'source_bytes': status.st_size, 'source_time': int(status.st_mtime),
                'kind': self.storage.kind, 'fps': self.fps, 'size': self.size,
                'quality': self.quality}


@dataclass(frozen=True)
class Outcome:
    """What became of a video: done, skipped, damaged (its frames are kept) or failed, and why."""

    kind: str
    why: str = ''


LOST = Outcome('failed', 'the process that decoded it died: out of memory, or the decoder crashed')


# ---------------------------------------------------------------- one video

BUSY = Outcome('busy')  # another run is making these frames


def extract_shared(job: Job) -> Outcome:
    """`extract`, unless another run has made the frames, or makes them now: BUSY, without a wait
    for it if the job does not wait."""
    try:
        job.destination.parent.mkdir(parents=True, exist_ok=True)
        with lock(lock_path(job.destination), waits=job.waits) as is_held:
            if not is_held:
                return BUSY
            if job.is_overwritten:
                return extract(job)
            there = outcome_there(job)
            if there is None and not job.is_again and job.storage.holds_frames(job.destination):
                return Outcome('failed', 'another run has made its frames with other flags; let '
                               'one end, and give another dst_path or run again')
            return there or extract(job)
    except OSError as error:
        if error.errno in NO_PLACE:
            raise
        return Outcome('failed', write_failure(error, job))


def extract(job: Job) -> Outcome:
    """Job -> Outcome. The destination appears complete or not at all.

    A full disk, or one that is not written to, raises OSError.
    """
    temporary = temporary_path(job.destination)
    remove(temporary)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        source = job.source()
        with Video(job.video) as video:
            job.storage.write(temporary, job.storage.encode(
                video, size=job.size, quality=job.quality, fps=job.fps, n_threads=job.n_threads))
            damage = video.damage
        job.storage.write_record(temporary, source | job.storage.contents(temporary)
                                 | ({DAMAGE: damage} if damage else {}))
        job.storage.put(temporary, job.destination)
    except OSError as error:
        if error.errno in NO_PLACE:
            raise
        return Outcome('failed', write_failure(error, job))
    except (VideoError, av.error.FFmpegError) as error:
        return Outcome('failed', reason(error))
    finally:
        remove(temporary)
    return Outcome('damaged', damage) if damage else Outcome('done')


def outcome_there(job: Job) -> Outcome | None:
    """What the frames that there are came to, skipped or damaged; None where they are to be made.

    Frames without a record, as those of the 2020 code, are as many as the video has, and of the
    size that is wanted.
    """
    try:
        contents = job.storage.contents(job.destination)
        record = job.storage.read_record(job.destination)
        source = job.source()
        damage = record.pop(DAMAGE, None) if record else None
        if record is not None:
            # Records of earlier versions say less of the contents.
            is_current = (source.keys() <= record.keys()
                          and record.items() <= (source | contents).items())
        else:
            is_current = (contents['n_frames'] == expected_count(job)
                          and short_side(job) in (None, job.size))
    except (OSError, VideoError, av.error.FFmpegError):
        return None  # the extraction tells why
    if not is_current:
        return None
    return Outcome('damaged', str(damage)) if damage else Outcome('skipped')


def expected_count(job: Job) -> int:
    """Number of frames that the video gives. Raises VideoError."""
    if job.fps is None:
        return count_packets(str(job.video))
    with Video(job.video) as video:
        return sum(1 for _ in frames_at(video, job.fps))


def short_side(job: Job) -> int | None:
    """Of the first frame that is there, in pixels; None where it does not say. Raises OSError."""
    import simplejpeg  # here, because it takes a while: worker processes import this module too
    try:
        return min(simplejpeg.decode_jpeg_header(job.storage.first_image(job.destination))[:2])
    except ValueError:
        return None


def write_failure(error: OSError, job: Job) -> str:
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
        return f'{job.destination} holds files but no frames: move it away'
    if error.filename == str(job.video):
        return reason(error)
    return f'{job.destination} cannot be written: {reason(error)}'


def temporary_path(destination: Path) -> Path:
    """Beside the destination; its name may be too long to have something added."""
    name = hashlib.sha1(os.fsencode(destination.name)).hexdigest()[:20]
    return destination.with_name(TEMPORARY_PREFIX + name)


def lock_path(destination: Path) -> Path:
    """The file that whoever makes a destination has locked."""
    temporary = temporary_path(destination)
    return temporary.with_name(temporary.name + LOCK_SUFFIX)


def remove(path: Path) -> None:
    """Delete a file or folder, where there is one."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# ---------------------------------------------------------------- a data set

def destination_of(video: Path, args: Namespace, storage: Any) -> Path:
    """dst_path/label/stem, with the folders between that there are, or, for ActivityNet,
    dst_path/v_ID."""
    if DATASETS[args.dataset]:
        folder = video.parent.relative_to(args.dir_path)
        return storage.destination(args.dst_path / folder, video.stem)
    stem = video.stem if video.stem.startswith('v_') else f'v_{video.stem}'
    return storage.destination(args.dst_path, stem)


def wanted_videos(args: Namespace) -> list[Path]:
    """The videos of the data set; of Kinetics without those that others in dir_path/replacement
    replace, which is said."""
    videos = find_videos(args.dir_path, has_labels=DATASETS[args.dataset])
    if args.dataset != 'kinetics':
        return videos
    replacements = [video for video in videos
                    if video.relative_to(args.dir_path).parts[0] == REPLACEMENT]
    stems = {video.stem for video in replacements}
    kept = replacements + [video for video in videos if video.stem not in stems]
    if len(kept) < len(videos):
        to_stderr(f'{args.dir_path}: {len(videos) - len(kept)} videos are not taken: those of the '
                  f'same name in {REPLACEMENT} replace them')
    return sorted(kept)


def plan(args: Namespace, storage: Any) -> tuple[list[Job], dict[Path, Outcome]]:
    """(jobs, {video: Outcome} for the videos that need none).

    Videos that would share a destination fail, all of them: nobody can tell which one is meant.
    """
    by_destination = defaultdict(list)
    for video in wanted_videos(args):
        by_destination[destination_of(video, args, storage)].append(video)
    jobs: list[Job] = []
    outcomes: dict[Path, Outcome] = {}
    for destination, videos in by_destination.items():
        if len(videos) > 1:
            names = ' and '.join(video.name for video in videos)
            outcome = Outcome('failed', f'{names} would both be {destination.name}: remove one')
            outcomes.update(dict.fromkeys(videos, outcome))
        else:
            jobs.append(Job(videos[0], destination, storage, size=args.size, quality=args.quality,
                            fps=None if args.fps == KEEP_FPS else args.fps,
                            is_again=storage.holds_frames(destination),
                            is_overwritten=args.overwrite))
    there = [job for job in jobs if job.is_again]
    if not args.overwrite:
        with ThreadPoolExecutor(n_processors()) as threads:
            outcomes |= {job.video: outcome for job, outcome
                         in zip(there, threads.map(outcome_there, there)) if outcome}
        jobs = [job for job in jobs if job.video not in outcomes]
    return jobs, outcomes


def remove_temporaries(jobs: Iterable[Job]) -> None:
    """What a killed run left behind, in the folders that this run writes to."""
    for folder in {job.destination.parent for job in jobs}:
        if folder.is_dir():
            for path in folder.iterdir():
                if path.name.startswith(TEMPORARY_PREFIX):
                    _remove_unless_locked(path)


def _remove_unless_locked(path: Path) -> None:
    """Delete a temporary file or folder that no other run has, and its lock."""
    own = path.name.removesuffix(LOCK_SUFFIX).removesuffix(OLD_SUFFIX)
    with suppress(OSError), lock(path.with_name(own + LOCK_SUFFIX)) as is_held:
        if is_held and path.name != own + LOCK_SUFFIX:
            remove(path)


def shared_out(jobs: Sequence[Job], n_jobs: int) -> list[Job]:
    """The jobs with the threads that `n_jobs` processors have for each."""
    n_threads = min(max(1, n_jobs // len(jobs)), MAX_THREADS)
    return [replace(job, n_threads=n_threads) for job in jobs]


def extract_all(jobs: Sequence[Job], n_jobs: int) -> dict[Path, Outcome]:
    """{video: Outcome}, with a progress bar."""
    # Here, because it takes seconds: worker processes import this module too.
    from runtime.logs import Progress
    outcomes: dict[Path, Outcome] = {}
    n_jobs = n_processors() if n_jobs == ALL_PROCESSORS else n_jobs
    jobs = shared_out(jobs, n_jobs)
    with Progress(len(jobs), 'extract', unit='video') as progress:
        busy: list[Job] = []

        def report(job: Job, outcome: Outcome | None) -> None:
            if outcome == BUSY:
                busy.append(replace(job, waits=True))
                return
            outcomes[job.video] = outcome or LOST
            progress.update(1)
        run_jobs(extract_shared, jobs, n_jobs, report)
        if busy:
            note(f'{len(busy)} videos are being extracted by another run: they are waited for',
                 sys.stderr)
            run_jobs(extract_shared, busy, n_jobs, report)
    return outcomes


def print_summary(outcomes: Mapping[Path, Outcome], n_again: int) -> int:
    """The damaged and the failed by name on stderr, then the counts; returns the exit status.

    n_again: how many there were already, whose frames others have taken the place of
    """
    for kind in ('damaged', 'failed'):
        for video in sorted(video for video, outcome in outcomes.items() if outcome.kind == kind):
            kept = ', the frames that decode are kept' if kind == 'damaged' else ''
            to_stderr(f'{kind}: {video}: {outcomes[video].why}{kept}')
    counts = Counter(outcome.kind for outcome in outcomes.values())
    again = (f'; {n_again} made again, whose frames, flags or video had changed' if n_again else '')
    if counts['failed']:
        to_stderr('mend or remove what failed, and run the command again: it skips what is done')
    note(f'{len(outcomes)} videos: {counts["done"]} done, {counts["skipped"]} skipped (there '
         f'already), {counts["damaged"]} damaged, {counts["failed"]} failed{again}')
    return 1 if counts['failed'] or counts['damaged'] else 0


# ---------------------------------------------------------------- the command

def build_extraction_parser(command: str, description: str) -> Parser:
    """The arguments of every command that extracts something of videos."""
    parser = Parser(
        f'python -m util_scripts.{command}', description,
        epilog='Videos that are there already are skipped, unless the flags, the video or the '
               'frames have changed. Several runs with one destination share the work. '
               'Exit status: 0, 1 where a video failed or is damaged, 2 for a wrong argument, 130 '
               'after Ctrl-C.')
    parser.add_argument('dir_path', type=Path,
                        help='folder of the videos: dir_path/label/video, or dir_path/v_ID of '
                             f'activitynet ({" ".join(VIDEO_EXTENSIONS)})')
    parser.add_argument('dst_path', type=Path, help='folder to write to; made where missing')
    parser.add_argument('dataset', choices=list(DATASETS),
                        help='how the folders are laid out; kinetics: dir_path/label/video, or '
                             'dir_path/train, val, test and replacement as its mirror has them')
    parser.add_argument('--n_jobs', type=between(int, 1, 1024, also=ALL_PROCESSORS),
                        default=ALL_PROCESSORS, metavar='N',
                        help='processes, -1 for one per processor')
    parser.add_argument('--fps', type=between(float, 0.001, 1000, also=KEEP_FPS),
                        default=KEEP_FPS, metavar='RATE',
                        help='frames per second; frames are repeated or left out by their time '
                             'stamps, never made up; -1 for each frame once')
    parser.add_argument('--size', type=between(int, 1, 10_000), default=SHORT_SIDE,
                        metavar='PIXELS',
                        help='short side; smaller videos are enlarged to it')
    parser.add_argument('--overwrite', action='store_true',
                        help='make everything again, also what is there already')
    return parser


def build_frames_parser(command: str, description: str) -> Parser:
    """The arguments of the commands that extract frames as JPEG images."""
    parser = build_extraction_parser(command, description)
    parser.add_argument('--quality', type=between(int, 1, 31), default=QUALITY, metavar='Q',
                        help='of the JPEG images, as FFmpeg\'s -q:v: 1 (best) to 31; 6 makes about '
                             '7 KB at 320x240')
    return parser


def extract_videos(args: Namespace, storage: Any) -> int:
    """Extract what the arguments name; returns the exit status."""
    existing_folder(args.dir_path, 'the folder of the videos')
    try:
        jobs, outcomes = plan(args, storage)
    except OSError as error:
        raise InputError(f'{error.filename or args.dst_path}: cannot be read: {error.strerror}; '
                         'mend its permissions, or give another dst_path') from None
    make_folder(args.dst_path)
    remove_temporaries(jobs)
    try:
        outcomes |= extract_all(jobs, args.n_jobs) if jobs else {}
    except OSError as error:
        raise InputError(f'{args.dst_path}: cannot be written: {error.strerror}; free space or '
                         'give another dst_path, then run again') from None
    finally:
        remove_temporaries(jobs)
    status = print_summary(outcomes, sum(job.is_again and outcomes[job.video].kind != 'failed'
                                         for job in jobs))
    if all(outcome.kind == 'failed' for outcome in outcomes.values()):
        return status
    own = command_line('folder_json', args.dst_path, 'annotation.json')
    wrote(args.dst_path, then=f'the annotation, of your own videos by {own}, of a published data '
                              'set by the util_scripts of its name')
    return status


def build_parser() -> Parser:
    return build_frames_parser('generate_video_jpgs',
                               'Extract the frames of videos as JPEG images.')


def main(argv: Sequence[str] | None = None) -> int:
    return extract_videos(build_parser().parse_args(argv), JpgFolders)


if __name__ == '__main__':
    run(main)
