"""Frame readers: pixels, order and damage, for each way in which frames are stored."""

import json

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.annotations import read_annotation
from datasets.frames import READERS, FrameError, Hdf5Flow, Hdf5Frames, JpgFrames, video_path
from datasets.loading import build_loader
from opts import STORAGES, parse_opts
from tests.tiny_data import assert_same_batches, loader_of


def test_frames_are_the_decoded_images(tiny_data):
    path = tiny_data.frame().parent
    clip = JpgFrames().read(path, [3, 1])
    for row, number in zip(clip, (3, 1)):
        image = np.array(Image.open(path / f'image_{number:05d}.jpg').convert('RGB'))
        assert np.abs(row.permute(1, 2, 0).numpy().astype(int) - image).max() <= 2


def test_a_video_all_in_grey_is_read_as_rgb(tmp_path):
    for i in range(1, 4):
        Image.new('L', (16, 12), 90).save(tmp_path / f'image_{i:05d}.jpg')
    clip = JpgFrames().read(tmp_path, [1, 2, 3])
    assert clip.shape == (3, 3, 12, 16) and clip.unique().tolist() == [90]


@pytest.mark.parametrize('frames', [[0], [3, 4, 5], [0, 2, 3, 9], [5, 4, 4]])
def test_hdf5_frames_come_in_the_order_asked_for(tmp_path, tiny_data, frames):
    path = tmp_path / 'video.hdf5'
    with h5py.File(path, 'w') as file:
        images = file.create_dataset('video', (9,), h5py.vlen_dtype(np.uint8))
        for i in range(9):
            images[i] = np.frombuffer(tiny_data.frame(number=i + 1).read_bytes(), np.uint8)
    reader, jpg = Hdf5Frames(), tiny_data.frame().parent
    if 9 in frames:
        with pytest.raises(FrameError, match='frame 9: the file has 9 frames'):
            reader.read(path, frames)
    else:
        assert torch.equal(reader.read(path, frames),
                           JpgFrames().read(jpg, [frame + 1 for frame in frames]))


def _as_hdf5(tiny_data, folder):
    """The training videos as hdf5 files, and their annotation, frames counted from 0."""
    annotation = tiny_data.read()
    for video_id, entry in annotation['database'].items():
        entry['annotations']['segment'] = [0, entry['annotations']['segment'][1] - 1]
        label = entry['annotations'].get('label')
        if label is None:
            continue
        (folder / 'hdf5' / label).mkdir(parents=True, exist_ok=True)
        with h5py.File(folder / 'hdf5' / label / f'{video_id}.hdf5', 'w') as file:
            frames = sorted(tiny_data.frame(video_id).parent.iterdir())
            data = file.create_dataset('video', len(frames), h5py.vlen_dtype(np.uint8))
            for i, frame in enumerate(frames):
                data[i] = np.frombuffer(frame.read_bytes(), np.uint8)
    (folder / 'annotation.json').write_text(json.dumps(annotation))


@pytest.mark.parametrize('split', ['train', 'val', 'inference'])
def test_hdf5_gives_the_same_samples_as_jpg(tiny_data, tmp_path, split):
    _as_hdf5(tiny_data, tmp_path)
    jpg = list(loader_of(tiny_data, split))
    opts = parse_opts([*tiny_data.argv('unused'), '--root_path', str(tmp_path),
                       '--video_path', 'hdf5', '--file_type', 'hdf5'])
    hdf5 = list(build_loader(opts, split, read_annotation(opts.annotation_path)))
    assert_same_batches([batch._replace(segments=batch.segments - 1) for batch in jpg], hdf5)


def test_flow_has_two_channels_from_two_datasets(tmp_path):
    path = tmp_path / 'x.hdf5'
    with h5py.File(path, 'w') as file:
        for name, grey in (('video_u', 40), ('video_v', 200)):
            Image.new('L', (16, 12), grey).save(tmp_path / 'frame.jpg')
            data = file.create_dataset(name, 3, h5py.vlen_dtype(np.uint8))
            for i in range(3):
                data[i] = np.frombuffer((tmp_path / 'frame.jpg').read_bytes(), np.uint8)
    reader = Hdf5Flow()
    assert reader.count(path) == 3
    clip = reader.read(path, [0, 2])
    assert clip.shape == (2, 2, 12, 16)
    assert clip[:, 0].unique().tolist() == [40] and clip[:, 1].unique().tolist() == [200]
    with pytest.raises(FrameError, match='video'):
        Hdf5Frames().read(path, [0])


def test_long_names_are_cut_before_the_suffix():
    name = 'v' * 300
    assert video_path('root', f'label/{name}', '.hdf5') == f'root/label/{"v" * 250}.hdf5'
    assert video_path('root', 'label/v_1.5', '') == 'root/label/v_1.5'


# ---------------------------------------------------------------- broken frames

BROKEN = {
    'truncated': (lambda data: data[:-200], 'truncated'),
    'truncated after bytes of another picture':
        (lambda data: data[:2] + b'\xff\xe1\x00\x06\xff\xda\xff\xd9' + data[2:-200], 'truncated'),
    'empty': (lambda data: b'', 'empty'),
    'no image': (lambda data: b'no image', 'not a JPEG'),
}
WHOLE = ('--sample_duration', 30)  # every frame is read


@pytest.mark.parametrize('name', BROKEN)
def test_broken_frames_are_named(own_data, name):
    break_it, word = BROKEN[name]
    own_data.frame('red_4', 5).write_bytes(break_it(own_data.frame('red_4', 5).read_bytes()))
    with pytest.raises(FrameError, match=f'red_4/image_00005.jpg: the frame is {word}'):
        list(loader_of(own_data, 'val', *WHOLE))


@pytest.mark.parametrize('change, words', [
    (lambda image: image.convert('L'), 'grey'), (lambda image: image.resize((20, 20)), '20x20')])
def test_frames_that_are_unlike_the_others_are_named(own_data, change, words):
    path = own_data.frame('red_4', 5)
    change(Image.open(path)).save(path)
    with pytest.raises(FrameError, match=f'image_00005.jpg: the frame is {words}'):
        list(loader_of(own_data, 'val', *WHOLE))


def test_bytes_after_a_frame_do_no_harm(own_data):
    whole = list(loader_of(own_data, 'val', *WHOLE))
    path = own_data.frame('red_4', 5)
    path.write_bytes(path.read_bytes() + b'\0\0')
    assert_same_batches(loader_of(own_data, 'val', *WHOLE), whole)


def test_every_storage_has_a_reader_and_a_name():
    assert set(STORAGES.values()) == READERS.keys()
