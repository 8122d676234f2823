"""A small made-up data set, and how tests run main.py on it."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import checkpoint
import main
from datasets.annotations import read_annotation
from datasets.loading import build_loader
from opts import parse_opts
from runtime import errors

CLASSES = ('red', 'green', 'blue')
N_TRAIN, N_VAL, N_TEST = 4, 2, 1
HEIGHT, WIDTH = 36, 48


class TinyData:
    """A folder `root` with jpg/label/video/image_00001.jpg ... and annotation.json.

    Each class is a colour under noise; videos have 9 to 30 frames.
    like: another, of which this one is a copy, which is sooner done
    """

    def __init__(self, root, like=None):
        self.root = root
        if like is not None:
            shutil.copytree(like.root / 'jpg', root / 'jpg')
            self.write(like.read())
            return
        rng = np.random.default_rng(0)
        database = {}
        for number, name in enumerate(CLASSES):
            for i in range(N_TRAIN + N_VAL + N_TEST):
                video_id = f'{name}_{i}'
                n_frames = int(rng.integers(9, 31))
                is_test = i >= N_TRAIN + N_VAL
                subset = ('training' if i < N_TRAIN else 'testing' if is_test else 'validation')
                marks = {'segment': [1, n_frames + 1]}
                if not is_test:
                    marks['label'] = name
                database[video_id] = {'subset': subset, 'annotations': marks}
                folder = self.root / 'jpg' / ('test' if is_test else name) / video_id
                _write_frames(folder, n_frames, number, rng)
        self.write({'labels': list(CLASSES), 'database': database})

    @property
    def annotation_path(self):
        return self.root / 'annotation.json'

    def read(self):
        return json.loads(self.annotation_path.read_text())

    def write(self, annotation):
        self.annotation_path.write_text(json.dumps(annotation))

    def frame(self, video_id='red_0', number=1):
        """Path of a frame of a training or validation video."""
        label = video_id.split('_')[0]
        return self.root / 'jpg' / label / video_id / f'image_{number:05d}.jpg'

    def argv(self, result_path, *more):
        """A command line of main.py that is done in a second or two."""
        return ['--root_path', str(self.root), '--video_path', 'jpg',
                '--annotation_path', 'annotation.json', '--result_path', str(result_path),
                '--dataset', 'ucf101', '--n_classes', '3', '--model_depth', '10',
                '--resnet_widen_factor', '0.125', '--sample_size', '32', '--sample_duration', '8',
                '--batch_size', '4', '--n_threads', '0', '--n_epochs', '2', '--checkpoint', '1',
                '--learning_rate', '0.05', '--no_cuda', *map(str, more)]


class MultiLabelData(TinyData):
    """The same with videos of any number of colours: jpg/video/image_00001.jpg ..."""

    def __init__(self, root):
        self.root = root
        rng = np.random.default_rng(0)
        database = {}
        for subset, n_videos in (('training', 14), ('validation', 7)):
            for i in range(n_videos):
                # The bits of 1 to 7 are colours; every seventh video has none.
                colours = [number for number in range(3) if (i + 1) % 7 >> number & 1]
                n_frames = int(rng.integers(9, 20))
                video_id = f'{subset}_{i}'
                database[video_id] = {'subset': subset, 'annotations': {
                    'label': [CLASSES[number] for number in colours],
                    'segment': [1, n_frames + 1]}}
                _write_frames(self.root / 'jpg' / video_id, n_frames, colours, rng)
        self.write({'labels': list(CLASSES), 'database': database})

    def argv(self, result_path, *more):
        return super().argv(result_path, '--multi_label', '--batch_size', 7, '--learning_rate',
                            0.03, *more)


def _write_frames(folder, n_frames, channel, rng):
    """channel: the number of a colour, or a list of some"""
    folder.mkdir(parents=True)
    for i in range(n_frames):
        pixels = rng.integers(0, 120, (HEIGHT, WIDTH, 3))
        pixels[..., channel] += 100
        pixels[:, : i % WIDTH] //= 2
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f'image_{i + 1:05d}.jpg')


def run_main(argv):
    """main.py as a command, in this process; the exit status."""
    with pytest.raises(SystemExit) as ended:
        errors.run(main.main, list(map(str, argv)))
    return ended.value.code or 0


def states_of(argv, folder, monkeypatch):
    """Train with a checkpoint after each step, all of which are kept in a folder: their paths."""
    save, saved = checkpoint.save, []

    def save_and_keep(path, state):
        save(path, state)
        if path.name == 'save_last.pth':
            saved.append(folder / f'step_{len(saved)}.pth')
            path.rename(saved[-1])
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, 'save', save_and_keep)
        assert run_main([*argv, '--checkpoint_minutes', 1e-9]) == 0
    return saved


def loader_of(data, split, *flags, **options):
    """The loader of a split of a TinyData; `options` are those of build_loader."""
    opts = parse_opts(data.argv('unused', *flags))
    return build_loader(opts, split, read_annotation(opts.annotation_path), **options)


def assert_same_batches(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(batch[:4], other[:4]))
        assert batch.bad == other.bad
        assert batch.clips.is_contiguous(memory_format=torch.channels_last_3d)


def write_large_annotation(path, n_videos):
    """An annotation of two classes, whose videos are not there; returns their names."""
    names = [f'{i:011d}_000010_000020' for i in range(n_videos)]
    path.write_text(json.dumps({'labels': ['a', 'b'], 'database': {
        name: {'subset': 'training', 'annotations': {'label': 'ab'[i % 2], 'segment': [1, 301]}}
        for i, name in enumerate(names)}}))
    return names
