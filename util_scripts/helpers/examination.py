"""All frames that a run reads, decoded and compared with what the annotation says of them."""

import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets.annotations import SUBSETS, read_annotation
from datasets.frames import (GAP, PROBLEMS, READERS, TRUNCATED, UNDECODABLE, WRONG_COUNT,
                             FrameError, make_reader, video_path)
from datasets.loading import build_records
from datasets.video import Video, VideoError, find_video
from defaults import resolved
from opts import Options
from runtime.files import write_text
from runtime.logs import Progress
from runtime.output import note, printable, to_stderr, wrote
from util_scripts.helpers.files import make_place
from util_scripts.helpers.jobs import run_jobs
from util_scripts.helpers.text import n_of
from util_scripts.helpers.videos import report_left_out

TOO_SHORT, NO_VIDEOS, IN_BOTH = 'too short', 'label without videos', 'in training and validation'
NEARLY_IN_BOTH = 'nearly in both'  # looked for with --page
KINDS = (*PROBLEMS, TOO_SHORT, NO_VIDEOS, IN_BOTH, NEARLY_IN_BOTH)
FRAMES_AT_ONCE = 32
READ_BYTES = 2 ** 20
N_SHOWN = 20  # problems that are printed


class Job(NamedTuple):
    """A sample to read: frames begin...end - 1 of a video that has video_end - 1 at the last.

    storage:  --file_type and --input_type
    template: --frame_template
    """

    subset: str
    path: str
    storage: tuple[str, str]
    begin: int
    end: int
    video_end: int
    template: str | None = None


class Problem(NamedTuple):
    """What is wrong: one of KINDS, where, and a sentence."""

    kind: str
    subset: str
    path: str
    why: str


class Finding(NamedTuple):
    """What reading a sample gave: (kind, why) or None, what is the same for equal videos, and what
    lies among its frames and is none, (name, what it is)."""

    problem: tuple[str, str] | None
    digest: bytes | None
    left_out: Sequence[tuple[str, str]] = ()


LOST = Finding((UNDECODABLE, 'the process that decoded it died: out of memory, or the decoder '
                             'crashed'), None)


# ---------------------------------------------------------------- one video

def examine(job: Job) -> Finding:
    """Job -> Finding: all its frames are decoded."""
    reader = make_reader(job.storage, job.template)
    read = examine_video if job.storage[0] == 'video' else examine_images
    try:
        reader.check(job.path, job.begin, job.end)
        finding = read(reader, job)
    except FrameError as error:
        finding = Finding((error.kind, str(error)), None)
    return finding._replace(left_out=reader.left_out(job.path))


def examine_images(reader: Any, job: Job) -> Finding:
    """Stored images are decoded some at a time, always with the first, which gives the size."""
    miscounted = check_count(reader, job, reader.count(job.path))
    if miscounted:
        return Finding(miscounted, None)
    digest = hashlib.blake2b(str(job.end - job.begin).encode(), digest_size=16)
    for begin in range(job.begin, job.end, FRAMES_AT_ONCE):
        end = min(begin + FRAMES_AT_ONCE, job.end)
        clip = reader.read(job.path, [job.begin, *range(begin, end)])
        digest.update(clip[-1].contiguous().numpy())
    return Finding(None, digest.digest())


def examine_video(reader: Any, job: Job) -> Finding:
    """A video file is decoded once, from the start."""
    file = find_video(job.path) or job.path
    try:
        with Video(file) as video:
            n_frames = sum(1 for _ in video.frames())
    except VideoError as error:
        return Finding((UNDECODABLE, f'{file}: {error}'), None)
    if video.damage:
        kind = TRUNCATED if video.is_cut_short else UNDECODABLE
        return Finding((kind, f'{file}: {video.damage}'), None)
    digest = hashlib.blake2b(digest_size=16)
    with open(file, 'rb') as stream:
        while data := stream.read(READ_BYTES):
            digest.update(data)
    return Finding(check_count(reader, job, n_frames), digest.digest())


def check_count(reader: Any, job: Job, n_frames: int) -> tuple[str, str] | None:
    """(kind, why), or None where there are as many frames as the annotation says.

    More are right where the sample is a part of a longer video.
    """
    last, named_last = reader.first_frame + n_frames - 1, job.video_end - 1
    if last == named_last or last > named_last and job.begin > reader.first_frame:
        return None
    return WRONG_COUNT, (f'{job.path}: its last frame is {named_last} by the annotation, and '
                         f'{last} is the last there is; make the annotation again')


# ---------------------------------------------------------------- all of them

def wanted_splits(opts: Options) -> dict[str, str]:
    """{split: subset} of what a run reads."""
    wanted = {}
    if not opts.no_train:
        wanted['train'] = SUBSETS['train']
    if not opts.no_val:
        wanted['val'] = SUBSETS['val']
    if opts.inference and (opts.dataset == 'activitynet'
                           or SUBSETS[opts.inference_subset] not in wanted.values()):
        wanted['inference'] = SUBSETS[opts.inference_subset]
    return wanted


def jobs_of(opts: Options, subset: str, records: Any, storage: tuple[str, str]) -> list[Job]:
    """One Job per sample. A video ends with the last of its parts, if nothing else is known."""
    reader: Any = READERS[storage]
    paths = [records.paths[i] for i in range(len(records))]
    video_ends: dict[str, int] = {}
    for path, end in zip(paths, records.video_ends.tolist()):
        video_ends[path] = max(end, video_ends.get(path, 0))
    return [Job(subset, video_path(opts.video_path, path, reader.suffix), storage, begin, end,
                video_ends[path], opts.frame_template)
            for path, begin, end in zip(paths, records.begins.tolist(), records.ends.tolist())]


def find_short(opts: Options, jobs: Iterable[Job]) -> Iterator[Problem]:
    """Problems of samples with fewer frames than a clip: it will be looped."""
    for job in jobs:
        n_frames = len(range(job.begin, job.end, opts.sample_t_stride))
        if n_frames < opts.sample_duration:
            taken = ('' if opts.sample_t_stride == 1 else
                     f' of which --sample_t_stride {opts.sample_t_stride} takes {n_frames}')
            yield Problem(TOO_SHORT, job.subset, job.path,
                          f'has {n_of(job.end - job.begin, "frame")}{taken} for clips of '
                          f'{opts.sample_duration}, which will repeat them; leave it out, or give '
                          'a smaller --sample_duration')


def find_unused_labels(records_by_split: Mapping[str, Any]) -> Iterator[Problem]:
    """Problems of classes that training, or else whatever is read, has no video of."""
    split, records = next(iter(records_by_split.items()))
    for name, n in zip(records.class_names, records.class_counts().tolist()):
        if n == 0 and split != 'inference':
            yield Problem(NO_VIDEOS, SUBSETS[split], name, 'the label has no video in this subset; '
                          'add some, or take it out of "labels"')


def find_in_both(digests: Mapping[Job, bytes]) -> Iterator[Problem]:
    """Problems of videos in training and validation, by path or by content.

    digests: {Job: bytes}, of those that could be read
    """
    seen: dict[Any, list[Job]] = defaultdict(list)
    for job, digest in digests.items():
        seen[job.path].append(job)
        seen[digest].append(job)
    told: set[Job] = set()
    for jobs in seen.values():
        training = [job for job in jobs if job.subset == SUBSETS['train']]
        for job in jobs:
            if training and job.subset == SUBSETS['val'] and job not in told:
                told.add(job)
                yield Problem(IN_BOTH, job.subset, job.path,
                              f'the same video is in training: {training[0].path}; take one of '
                              'them out of the annotation, or give both one group')


def examine_all(jobs: Sequence[Job], n_jobs: int) -> dict[Job, Finding]:
    """{Job: Finding}, with a progress bar."""
    findings: dict[Job, Finding] = {}
    with Progress(len(jobs), 'check', unit='video') as progress:
        def report(job: Job, finding: Finding | None) -> None:
            findings[job] = finding or LOST
            progress.update(1)
        run_jobs(examine, jobs, n_jobs, report)
    return findings


class Examined(NamedTuple):
    """All that was read: options as a run has them, {split: records}, samples, problems."""

    opts: Options
    records_by_split: dict[str, Any]
    jobs: list[Job]
    problems: list[Problem]


def find_problems(opts: Options) -> Examined:
    """Read all and say what is wrong. Raises InputError as main.py does."""
    annotation = read_annotation(opts.annotation_path)
    opts, found = resolved(opts, annotation, has_classes=True, has_network=True)
    if found:
        note(found, sys.stderr)
    storage = opts.file_type, opts.input_type
    records_by_split: dict[str, Any] = {}
    problems: list[Problem] = []
    for split, subset in wanted_splits(opts).items():
        def add(path: str, error: FrameError, subset: str = subset) -> None:
            problems.append(Problem(error.kind, subset, path, str(error)))
        records_by_split[split] = build_records(opts, split, annotation,
                                                make_reader(storage, opts.frame_template), add)
    del annotation  # it is large, and so are the jobs
    jobs = [job for split, subset in wanted_splits(opts).items()
            for job in jobs_of(opts, subset, records_by_split[split], storage)]
    findings = examine_all(jobs, max(1, opts.n_threads))
    report_left_out(opts.video_path, sorted({(Path(job.path, name), why)
                                             for job, finding in findings.items()
                                             for name, why in finding.left_out if why != GAP}))
    problems += [Problem(finding.problem[0], job.subset, job.path, finding.problem[1])
                 for job, finding in findings.items() if finding.problem]
    problems += find_short(opts, jobs)
    problems += find_unused_labels(records_by_split)
    problems += find_in_both({job: finding.digest for job, finding in findings.items()
                              if finding.digest})
    return Examined(opts, records_by_split, jobs, problems)


# ---------------------------------------------------------------- what is said

def print_table(problems: Iterable[Problem], n_samples: Mapping[str, int],
                kinds: Sequence[str]) -> None:
    """How many problems of each kind in each subset."""
    counts = Counter((problem.kind, problem.subset) for problem in problems)
    width = max(map(len, kinds))
    print(f'{"":{width}}', *(f'{subset:>10}' for subset in n_samples))
    for kind in kinds:
        print(f'{kind:{width}}', *(f'{counts[kind, subset]:10}' for subset in n_samples))
    print(f'{"samples read":{width}}', *(f'{n:10}' for n in n_samples.values()))


def make_page(path: Path, examined: Examined) -> Iterator[Problem]:
    """Look for videos that are nearly in both, and write the page; the problems that were found.
    """
    from util_scripts.helpers import data_page
    looks = data_page.looks_of(examined.jobs, max(1, examined.opts.n_threads))
    same = {problem.path for problem in examined.problems if problem.kind == IN_BOTH}
    pairs = data_page.pairs_across(looks)
    near = [Problem(NEARLY_IN_BOTH, one.subset, one.path,
                    f'{other.path} in training is nearly the same ({how.bits:.0f} of 256 bits of '
                    'their frames differ)') for one, other, how in pairs if one.path not in same]
    data_page.write_page(path, examined.opts, examined.records_by_split, looks, pairs,
                         [*examined.problems, *near])
    yield from near


def examine_data(opts: Options) -> int:
    """Examine what a run with these options reads, and say what is wrong; the exit status."""
    written = list(filter(None, (opts.page, opts.save)))
    for path in written:
        make_place(path)
    examined = find_problems(opts)
    problems, n_samples = examined.problems, Counter(job.subset for job in examined.jobs)
    if opts.page:
        problems += make_page(opts.page, examined)
    problems.sort(key=lambda problem: (KINDS.index(problem.kind), problem.subset, problem.path))
    for problem in problems[:N_SHOWN]:
        to_stderr(f'{problem.kind}: {problem.subset}: {problem.path}: {problem.why}')
    if len(problems) > N_SHOWN:
        to_stderr(f'... and {len(problems) - N_SHOWN} more; --save FILE lists all')
    print_table(problems, n_samples, KINDS if opts.page else KINDS[:-1])
    if opts.save:
        rows = ('\t'.join(map(printable, problem)) + '\n' for problem in problems)
        write_text(opts.save, 'kind\tsubset\tpath\treason\n' + ''.join(rows))
    if written:
        wrote(*written)
    return 1 if problems else 0
