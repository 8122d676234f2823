"""Mutated files, each read by a process of its own with limits of time and memory.

    python -m tests.fuzz --minutes 10 --seed 1

Real files of every kind that is read (jpg, HDF5, JSON, CSV, .pth, .safetensors, .mp4, .webm, .avi)
are changed at random. A file is to be read, or to be refused by InputError in one sentence: a
crash, a traceback, a hang or the memory of the limit is a failure, and so are frames of a video
that are others than those of decoding it from the start. Files that fail are made as small as they
can be and kept in --keep; the exit status is 1 then. tests/test_fuzz.py runs it for some seconds.
"""

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import simplejpeg
import torch
from safetensors.torch import save_file

from datasets.annotations import label_list_records, read_annotation
from datasets.frames import Hdf5Frames, JpgFrames, VideoFrames
from datasets.scaling import Scaler
from datasets.video import Video
from features import read_features
from models import generate_model
from runtime.errors import InputError
from tests.helpers import write_video
from util_scripts.helpers.evaluation import read_results
from util_scripts.helpers.video_lists import read_list
from weights import read

LIMIT_SEC, LIMIT_BYTES = 20, 4 * 2 ** 30  # beyond the memory that a process begins with
# How a process ends that has read a file, refused it, or failed otherwise.
READ, REFUSED, FAILED = 0, 3, 4
ODD_BYTES = (b'\xff' * 8, b'\0' * 8, b'\x7f' + b'\xff' * 7, b'"', b'[' * 50, b'\x80', b'-1', b',')


# ---------------------------------------------------------------- files that are right

def _jpeg(rng):
    return simplejpeg.encode_jpeg(rng.integers(0, 255, (36, 48, 3), dtype=np.uint8))


def make_jpg(path, rng):
    path.write_bytes(_jpeg(rng))


def make_hdf5(path, rng):
    with h5py.File(path, 'w') as file:
        rows = file.create_dataset('video', (4,), h5py.vlen_dtype(np.uint8), maxshape=(None,))
        for i in range(4):
            rows[i] = np.frombuffer(_jpeg(rng), np.uint8)


def make_features(path, rng):
    with h5py.File(path, 'w') as file:
        for name, values in {'features': np.ones((3, 4), np.float32), 'video_ids': ['a', 'b', 'c'],
                             'segments': np.ones((3, 2), int), 'labels': np.zeros(3, int),
                             'class_names': ['red']}.items():
            file.create_dataset(name, data=values, dtype=h5py.string_dtype()
                                if isinstance(values, list) else None)


def make_annotation(path, rng):
    path.write_text(json.dumps({'labels': ['a', 'b'], 'database': {
        f'v{i}': {'subset': 'training', 'annotations': {'label': 'ab'[i % 2], 'segment': [1, 9]}}
        for i in range(5)}}, indent=1))


def make_results(path, rng):
    path.write_text(json.dumps({'results': {f'v{i}': [
        {'label': 'a', 'score': 0.75}, {'label': 'b', 'score': 0.25}] for i in range(5)}}))


def make_csv(path, rng):
    path.write_text('path,label,group\n' + ''.join(f'v{i}.mp4,run|jump,g{i}\n' for i in range(5)))


def _state(rng):
    torch.manual_seed(0)
    return generate_model('resnet', 10, n_classes=2, resnet_widen_factor=0.05).state_dict()


def make_pth(path, rng):
    torch.save({'epoch': 1, 'state_dict': _state(rng)}, path)


def make_old_pth(path, rng):
    torch.save({'epoch': 1, 'state_dict': _state(rng)}, path, _use_new_zipfile_serialization=False)


def make_safetensors(path, rng):
    save_file(_state(rng), path)


def make_video(codec):
    def make(path, rng):
        ground = rng.integers(0, 255, (3, 4, 3)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
        moving = np.stack([np.roll(ground, 2 * number, axis=1) for number in range(15)])
        write_video(path, moving, codec=codec, gop_size=5)
    return make


def _read_videos(path):
    """What is decoded from a key frame on has to be what is decoded from the start.

    Whether the end of a picture is damage MPEG-4's decoder tells by how those before it end: where
    one is damaged from the start, it may be whole after a jump.
    """
    frames, name = VideoFrames(48), str(path.with_suffix(''))
    n = frames.count(name)
    numbers = range(max(1, n - 4), n + 1, 2)
    clip = frames.read(name, numbers, n).permute(0, 2, 3, 1).numpy()
    with Video(path) as video:
        scale = Scaler(48, video.pixel_aspect, 'rgb24')
        decoded = [*map(video.kept, video.frames())]
        whole = [scale.pixels(frame) for frame in decoded]
    if path.suffix != '.webm' and any(frame.is_corrupt for frame in decoded):
        return
    if not np.array_equal(clip, [whole[number - 1] for number in numbers]):
        raise ValueError(f'frames {list(numbers)} of {n} are others than from the start')


def _read_annotation(path):
    return label_list_records(read_annotation(path), 'training')


# name of the file: (how it is made, how it is read)
KINDS = {
    'image_00001.jpg': (make_jpg, lambda path: JpgFrames().read(str(path.parent), [1])),
    'a.hdf5': (make_hdf5, lambda path: Hdf5Frames().read(str(path), range(4))),
    'f.h5': (make_features, read_features), 'a.json': (make_annotation, _read_annotation),
    'r.json': (make_results, lambda path: read_results(path, {f'v{i}' for i in range(5)}, 2, 1)),
    'l.csv': (make_csv, lambda path: read_list(path, path.parent)), 'a.pth': (make_pth, read),
    'o.pth': (make_old_pth, read), 'a.safetensors': (make_safetensors, read),
    'v.mp4': (make_video('mpeg4'), _read_videos), 'v.avi': (make_video('mpeg4'), _read_videos),
    'v.webm': (make_video('libvpx'), _read_videos),
}


# ---------------------------------------------------------------- changes, and what comes of them

def mutated(data, rng):
    """A list of (begin, end, bytes) that take the place of a part each, from the back on."""
    changes = []
    for _ in range(rng.choice([1, 1, 2, 4, 8])):
        begin = rng.choice([rng.randrange(len(data)), rng.randrange(min(len(data), 600)),
                            len(data) - 1 - rng.randrange(min(len(data), 600))])
        kind = rng.randrange(6)
        if kind == 0:
            changes.append((begin, begin + 1, bytes([data[begin] ^ 1 << rng.randrange(8)])))
        elif kind == 1:
            changes.append((begin, begin + 1, bytes([rng.randrange(256)])))
        elif kind == 2:
            odd = rng.choice(ODD_BYTES)
            changes.append((begin, begin + len(odd), odd))
        elif kind == 3:
            changes.append((begin, begin + rng.randint(1, 200), b''))
        elif kind == 4:
            other = rng.randrange(len(data))
            changes.append((begin, begin, data[other:other + rng.randint(1, 200)]))
        else:
            changes.append((begin, len(data), b''))
    return sorted(changes, reverse=True)


def applied(data, changes):
    data = bytearray(data)
    for begin, end, content in changes:
        data[begin:end] = content
    return bytes(data)


def _child(path, read_file):
    """The body of a process: reads a file, and ends as it went."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES,) * 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIMIT_SEC)
    try:
        read_file(path)
    except InputError as error:
        os._exit(FAILED if '\n' in str(error) or path.stem not in str(error) else REFUSED)
    except BaseException as error:
        path.with_name('why.txt').write_text(f'{type(error).__name__}: {error}')
        os._exit(FAILED)
    os._exit(READ)


def judged(path, data, read_file):
    """How a process ends that reads a file of this content: READ, REFUSED, or what went wrong."""
    path.write_bytes(data)
    pid = os.fork()
    if not pid:
        _child(path, read_file)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return 'hang' if os.WTERMSIG(status) == signal.SIGALRM else signal.Signals(
            os.WTERMSIG(status)).name
    code = os.WEXITSTATUS(status)
    return code if code in (READ, REFUSED) else 'traceback'


def smallest(data, changes, fails):
    """As few of the changes as still fail."""
    for change in list(changes):
        fewer = [other for other in changes if other is not change]
        if fewer and fails(applied(data, fewer)):
            changes = fewer
    return changes


def fuzz(until, rng, kinds, folder, keep):
    """{(kind, outcome): number} of the cases until a time."""
    counts = Counter()
    originals = {}
    for name in kinds:
        path = folder / name
        KINDS[name][0](path, np.random.default_rng(0))
        originals[name] = path.read_bytes()
        if judged(path, originals[name], KINDS[name][1]) != READ:
            sys.exit(f'{name}: is not read as it is')
        path.unlink()
    while time.monotonic() < until:
        name = rng.choice(kinds)
        path, data, read_file = folder / name, originals[name], KINDS[name][1]
        changes = mutated(data, rng)
        outcome = judged(path, applied(data, changes), read_file)
        counts[name, outcome] += 1
        if outcome not in (READ, REFUSED):
            changes = smallest(data, changes,
                               lambda data: judged(path, data, read_file) == outcome)
            keep.mkdir(parents=True, exist_ok=True)
            kept = keep / f'{outcome}-{counts[name, outcome]}-{name}'
            kept.write_bytes(applied(data, changes))
            why = folder / 'why.txt'
            print(f'{kept}: {outcome}: {why.read_text()[:200] if why.exists() else ""}')
        path.unlink(missing_ok=True)
    return counts


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--minutes', type=float, default=1)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', nargs='+', choices=sorted(KINDS), default=sorted(KINDS))
    parser.add_argument('--keep', type=Path, default=Path(tempfile.gettempdir()) / 'fuzz')
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # threads do not survive a fork
    with tempfile.TemporaryDirectory() as folder:
        counts = fuzz(time.monotonic() + 60 * args.minutes, random.Random(args.seed), args.kinds,
                      Path(folder), args.keep)
    names = {READ: 'read', REFUSED: 'refused'}
    for name in args.kinds:
        print(f'{name:16}', ', '.join(f'{n} {names.get(outcome, outcome)}' for (kind, outcome), n
                                      in sorted(counts.items(), key=str) if kind == name))
    n_failed = sum(n for (_, outcome), n in counts.items() if outcome not in names)
    print(f'seed {args.seed}: {sum(counts.values())} files, {n_failed} failures')
    return 1 if n_failed else 0


if __name__ == '__main__':
    sys.exit(main())
