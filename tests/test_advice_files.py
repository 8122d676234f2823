"""The cures that errors about files give, of annotations, frames, weights and trainings: followed
literally, they get further.

Each table has what breaks a file that is right, words of the error, and what follows the advice: by
default the file as it was.
"""

import copy
import json
import os
import re
import shutil
import zipfile

import h5py
import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from datasets.frames import JpgFrames, make_reader
from datasets.video_index import VideoIndex
from model import load_model
from runtime.errors import InputError
from tests.helpers import grey_frames, run_script, write_video
from tests.tiny_data import run_main
from weights import write_safetensors

NO_PLACE = '/dev/null/r'  # for results: what is said once all else is right
AT_THE_END = f'{NO_PLACE}: results cannot be written there'


def sentence(call, *args):
    """What an InputError of the call says, '' where it raises none."""
    try:
        call(*args)
    except InputError as error:
        return str(error)
    return ''


@pytest.fixture
def ends(data, capsys):
    """Runs main.py on the data, with results nowhere; what it says last."""
    def run(*flags):
        assert run_main(data.argv(NO_PLACE, '--no_val', *flags)) == 2
        return capsys.readouterr().err.strip().splitlines()[-1].removeprefix('error: ')
    return run


# ---------------------------------------------------------------- annotations

def of_first(change):
    """Changes the entry of the first video."""
    return lambda annotation: change(annotation['database']['red_0'])


def on_labels(change):
    return lambda annotation: change(annotation['labels'])


def of_all(change):
    def change_all(annotation):
        for entry in annotation['database'].values():
            change(entry)
    return change_all


ANNOTATIONS = {
    'path': (of_first(lambda entry: entry.update(video_path='a\0b')), 'no file can have the path'),
    'long path': (of_first(lambda entry: entry.update(video_path='a/' * 3000)),
                  'no file can have the path'),
    'path of a number': (of_first(lambda entry: entry.update(video_path=3)),
                         'is not the path of its frames; mend it'),
    'database': (lambda a: a.pop('database'), "give an annotation made by one of util_scripts' *"),
    'no classes': (lambda a: a.pop('labels'), 'has no "labels", the list of class names; make'),
    'class twice': (on_labels(lambda labels: labels.append('red')), 'class names must differ'),
    'line end': (on_labels(lambda labels: labels.append('a\nb')), 'give it another name'),
    'taxonomy': (lambda a: a.update(taxonomy=3), 'nodeId and parentId; take the published file'),
    'no subset': (of_first(lambda entry: entry.pop('subset')),
                  'add one of training, validation, testing'),
    'subset': (of_all(lambda entry: entry.update(subset='testing')), 'no video has subset '),
    'marks': (of_first(lambda entry: entry.update(annotations=[3])),
              'for the ActivityNet schema the file needs "taxonomy"'),
    'other label': (of_first(lambda entry: entry['annotations'].update(label='rad')),
                    "add it there or mend the video's label"),
    'segment': (of_first(lambda entry: entry['annotations'].update(segment=[0, 5])),
                'with frames counted from 1; mend it'),
    'length': (of_first(lambda entry: entry.update(n_frames=1)), 'of a video with frame '),
    'no frames': (of_all(lambda entry: entry['annotations'].pop('segment')),
                  'extract the frames first, then make the annotation again')}
TAXONOMY = {'taxonomy': [{'nodeName': name, 'nodeId': number, 'parentId': -1}
                         for number, name in enumerate(('red', 'green', 'blue'))]}
OF_TAXONOMY = {
    'marks': (lambda entry: entry.update(annotations=[3]), 'a list of segments with labels; take'),
    'rate': (lambda entry: entry.pop('fps'),
             'add it with util_scripts.add_fps_into_activitynet_json'),
    'segment': (lambda entry: entry['annotations'][0].update(segment=[3]),
                'is not [begin, end] in seconds; mend it')}


@pytest.mark.slow
@pytest.mark.parametrize('name', ANNOTATIONS)
def test_annotations(data, ends, tmp_path, name):
    change, words = ANNOTATIONS[name]
    path, annotation = tmp_path / 'a.json', data.read()
    change(annotation)
    path.write_text(json.dumps(annotation))
    assert words in ends('--annotation_path', path)
    path.write_text(json.dumps(data.read()))
    assert AT_THE_END in ends('--annotation_path', path)


def test_files_that_are_no_annotation(data, ends, tmp_path):
    path = tmp_path / 'a.json'
    path.mkdir()
    assert 'give an annotation JSON file' in ends('--annotation_path', path)
    path.rmdir()
    path.write_text('{')
    assert 'not JSON (' in (error := ends('--annotation_path', path))
    assert error.endswith('make the file again')
    path.write_text(json.dumps(data.read()))
    assert AT_THE_END in ends('--annotation_path', path)


@pytest.mark.parametrize('flags, words, then', [
    (['--n_classes', 4], 'give --n_classes 3, or another annotation', ['--n_classes', 3]),
    (['--dataset', 'activitynet'], 'drop --dataset, which is found then', []),
    (['--video_path', 'gone'], 'no such folder; check --video_path', ['--video_path', 'jpg'])])
def test_flags_and_annotations(data, ends, flags, words, then):
    assert words in ends(*flags)
    assert AT_THE_END in ends(*then)


def test_several_labels(data, ends, tmp_path):
    path, annotation = tmp_path / 'a.json', data.read()
    for name, entry in annotation['database'].items():
        entry['annotations']['label'] = [name.split('_')[0]]
        entry['video_path'] = f'{name.split("_")[0]}/{name}'
    path.write_text(json.dumps(annotation))
    assert 'add --multi_label, or' in ends('--annotation_path', path)
    assert AT_THE_END in ends('--annotation_path', path, '--multi_label')


def taxonomy(data):
    """The annotation as ActivityNet has it."""
    database = {}
    for name, entry in data.read()['database'].items():
        label = name.split('_')[0]
        database[name] = {'subset': entry['subset'], 'fps': 5, 'video_path': f'{label}/{name}',
                          'annotations': [{'label': label, 'segment': [0, 1.5]}]}
    return {**TAXONOMY, 'database': database}


@pytest.mark.parametrize('name', OF_TAXONOMY)
def test_taxonomies(data, ends, tmp_path, name):
    change, words = OF_TAXONOMY[name]
    path, annotation = tmp_path / 'a.json', taxonomy(data)
    change(annotation['database']['red_0'])
    flags = ['--annotation_path', path, '--dataset', 'activitynet']
    path.write_text(json.dumps(annotation))
    assert words in ends(*flags)
    path.write_text(json.dumps(taxonomy(data)))
    assert AT_THE_END in ends(*flags)
    assert '--multi_label is for lists of labels; drop the flag' in ends(*flags, '--multi_label')


# ---------------------------------------------------------------- frames

def jpeg(width=48, height=36, claimed=None, colours='RGB'):
    """The bytes of an image, which may claim another (width, height)."""
    pixels = np.full((height, width, 1 if colours == 'GRAY' else 3), 99, np.uint8)
    image = bytearray(simplejpeg.encode_jpeg(pixels, colorspace=colours))
    if claimed:
        at = image.index(b'\xff\xc0') + 5
        image[at:at + 4] = claimed[1].to_bytes(2, 'big') + claimed[0].to_bytes(2, 'big')
    return bytes(image)


def make_folder(root):
    (root / 'x').mkdir()
    for number in range(1, 4):
        (root / f'x/image_{number:05d}.jpg').write_bytes(jpeg())


def make_hdf5(root, images=(jpeg(),) * 3, name='video'):
    with h5py.File(root / 'x.hdf5', 'w') as file:
        rows = file.create_dataset(name, (len(images),), h5py.vlen_dtype(np.uint8))
        for i, image in enumerate(images):
            rows[i] = np.frombuffer(image, np.uint8)


def make_file(root, levels=(40, 50, 60)):
    write_video(root / 'x.mp4', grey_frames(levels))


# By --file_type: what makes three frames, the name of their file, the number of the first.
STORED = {'jpg': (make_folder, 'x', 1), 'hdf5': (make_hdf5, 'x.hdf5', 0), 'video': (make_file, 'x',
                                                                                    1)}


def second(content):
    """Replaces the second frame of a folder."""
    return lambda root: (root / 'x/image_00002.jpg').write_bytes(content)


def rename(template):
    """Gives the frames of a folder other names."""
    def change(root):
        for number in range(1, 4):
            os.rename(root / f'x/image_{number:05d}.jpg', root / 'x' / template.format(number))
    return change


def all_of(*changes):
    def change(root):
        for change_one in changes:
            change_one(root)
    return change


def other_hdf5(root):
    with h5py.File(root / 'x.hdf5', 'w') as file:
        file['video'] = np.zeros(3)


def unreadable_row(root):
    """A row whose bytes are not where the file says: their heap is gone."""
    content = bytearray((root / 'x.hdf5').read_bytes())
    at = content.index(b'GCOL')
    content[at:at + 4] = b'NONE'
    (root / 'x.hdf5').write_bytes(content)


FRAMES = {
    'empty': ('jpg', second(b''), 'the frame is empty'),
    'cut': ('jpg', second(jpeg()[:-20]), 'the frame is truncated'),
    'no image': ('jpg', second(b'\xff\xd8 no image'), 'the frame is not a JPEG image; delete'),
    'another image': ('jpg', second(b'no image'), 'the frame is not a JPEG image; delete'),
    'large': ('jpg', second(jpeg(claimed=(65_500, 65_500))), 'the frame claims 65500x65500'),
    'other size': ('jpg', second(jpeg(40)), 'image_00002.jpg: the frame is 40x36 and'),
    'grey': ('jpg', second(jpeg(colours='GRAY')), 'the frame is grey among frames in colour'),
    'short': ('jpg', lambda root: (root / 'x/image_00003.jpg').unlink(), 'and the folder has 2'),
    'gap': ('jpg', all_of(*(lambda root, n=n: (root / f'x/image_{n:05d}.jpg').write_bytes(jpeg())
                            for n in range(4, 8)),
                          lambda root: (root / 'x/image_00002.jpg').unlink()),
            'and there are later ones; extract the video again'),
    'other names': ('jpg', rename('a{}.txt'), 'say with --frame_template what they are'),
    'gone': ('jpg', lambda root: shutil.rmtree(root / 'x'), 'no such folder of frames; extract'),
    'a video': ('jpg', all_of(lambda root: shutil.rmtree(root / 'x'), make_file),
                'add --file_type video, or extract the videos'),
    'kinds': ('jpg', all_of(rename('a_{}.jpg'), lambda root: (root / 'x/b_1.jpg').touch(),
                            lambda root: (root / 'x/b_2.jpg').touch()),
              'several kinds of images are in it'),
    'twice': ('jpg', all_of(rename('a_{}.jpg'), lambda root: (root / 'x/a_02.jpg').touch()),
              'remove one of them, or say with --frame_template which is meant'),
    'no file': ('hdf5', lambda root: (root / 'x.hdf5').unlink(),
                'make it with util_scripts.generate_video_hdf5, or check'),
    'no rows': ('hdf5', lambda root: make_hdf5(root, name='images'), 'has no dataset video; make'),
    'no hdf5': ('hdf5', lambda root: (root / 'x.hdf5').write_bytes(b'x'),
                'not a readable HDF5 file; make it again'),
    'numbers': ('hdf5', other_hdf5, 'are no frames, a row of bytes each; make the file again'),
    'few rows': ('hdf5', lambda root: make_hdf5(root, [jpeg()] * 2), 'and the file has 2 (from 0)'),
    'damaged': ('hdf5', unreadable_row, 'cannot be read from the file; make it again'),
    'empty video': ('video', lambda root: (root / 'x.mp4').write_bytes(b''),
                    'the file is empty; get the video again'),
    'no video': ('video', lambda root: (root / 'x.mp4').write_bytes(b'x' * 999),
                 'get the video again or leave it out'),
    'short video': ('video', lambda root: make_file(root, [40]), 'is wanted and'),
    'video gone': ('video', lambda root: (root / 'x.mp4').unlink(), 'no such video (.avi')}


@pytest.mark.parametrize('name', FRAMES)
def test_frames(tmp_path, name):
    storage, change, words = FRAMES[name]
    make, file, first = STORED[storage]

    def read():
        reader = make_reader((storage, 'rgb'))
        reader.check(str(tmp_path / file), first, first + 3)
        reader.read(str(tmp_path / file), [first, first + 1, first + 2])
    make(tmp_path)
    assert sentence(read) == ''
    change(tmp_path)
    assert words in sentence(read)
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(tmp_path)
    assert sentence(read) == ''


def test_frames_of_two_kinds(tmp_path):
    make_folder(tmp_path)
    rename('a_{}.jpg')(tmp_path)
    (tmp_path / 'x/b_1.jpg').touch()
    (tmp_path / 'x/b_2.jpg').touch()
    template = re.search('--frame_template "(.*?)"', sentence(
        make_reader(('jpg', 'rgb')).count, str(tmp_path / 'x')))[1].replace('NAME', 'a')
    assert make_reader(('jpg', 'rgb'), template).count(str(tmp_path / 'x')) == 3


def test_frames_that_cannot_be_listed_or_read(tmp_path):
    reader, folder = make_reader(('jpg', 'rgb')), tmp_path / 'x'
    folder.symlink_to('x')
    assert 'mend its permissions, or leave the video out' in sentence(reader.count, str(folder))
    folder.unlink()
    make_folder(tmp_path)
    assert reader.count(str(folder)) == 3
    last = folder / 'image_00003.jpg'
    last.unlink()
    assert 'no such frame; extract the video or make the' in sentence(reader.read, str(folder),
                                                                      [1, 2, 3])
    last.mkdir()
    assert 'cannot be read: Is a directory; extract the video again' in sentence(
        reader.read, str(folder), [1, 2, 3])
    last.rmdir()
    last.write_bytes(jpeg())
    assert sentence(reader.read, str(folder), [1, 2, 3]) == ''


def test_frames_beyond_the_last(tmp_path):
    make_folder(tmp_path)
    make_hdf5(tmp_path)
    rename('a_{}.jpg')(tmp_path)
    for storage, file, words in (('jpg', 'x', 'frame 4 is wanted and the folder has'),
                                 ('hdf5', 'x.hdf5', 'frame 3: the file has 3 frames (from 0)')):
        reader, first = make_reader((storage, 'rgb')), STORED[storage][2]
        assert words in sentence(reader.read, str(tmp_path / file), [first + 2, first + 3])
        assert sentence(reader.read, str(tmp_path / file), [first + 1, first + 2]) == ''


def test_frames_stored_in_two_ways(tmp_path):
    """With --fast_decode, JPEG images come smaller, and others do not."""
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x/image_00001.jpg').write_bytes(jpeg(192, 144))
    Image.new('RGB', (192, 144)).save(tmp_path / 'x/image_00002.jpg', 'png')
    fast = JpgFrames(is_fast=True, min_side=36)
    assert 'extract the video again, or drop --fast_decode' in sentence(
        fast.read, str(tmp_path / 'x'), [1, 2])
    assert sentence(JpgFrames().read, str(tmp_path / 'x'), [1, 2]) == ''


def test_no_frames_of_any_video(own_data, tmp_path, capsys):
    frames = own_data.root / 'jpg'
    shutil.copytree(frames, tmp_path / 'jpg')
    for path in frames.glob('*/*/*.jpg'):
        path.write_bytes(b'')
    for flags, words in ((['--no_train', '--random_weights'], 'no video can be read; the first: '),
                         (['--no_val', '--n_epochs', 1], '; and no other video of class ')):
        argv = own_data.argv(tmp_path / 'r', '--bad_frames', 'skip', *flags)
        assert run_main(argv) == 2
        assert words in (said := capsys.readouterr().err)
        assert 'jpg: the frame is empty; extract the video again' in said
    shutil.rmtree(frames)
    shutil.copytree(tmp_path / 'jpg', frames)
    assert run_main(argv) == 0


def test_an_index_of_videos(tmp_path):
    (tmp_path / 'i').write_bytes(b'no index' * 999)
    assert 'delete it, or give another --video_index' in sentence(VideoIndex, tmp_path / 'i')
    (tmp_path / 'i').unlink()
    assert sentence(VideoIndex, tmp_path / 'i') == ''


# ---------------------------------------------------------------- weights

def repacked(source, path, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, 'w', compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))


def packed(content, path):
    torch.save({'state_dict': {'a.weight': torch.zeros(100_000)}}, path.with_suffix('.tmp'))
    repacked(path.with_suffix('.tmp'), path)


def damaged(content, path):
    torch.save(content, path)
    file = bytearray(path.read_bytes())
    file[file.index(content['state_dict']['fc.weight'].numpy().tobytes())] ^= 1
    path.write_bytes(file)


def nested(content, path):
    values = [1]
    for _ in range(100):
        values = [values, values]
    torch.save({**content, 'more': values}, path)


class Large:
    def __reduce__(self):
        return bytearray, (2 ** 40,)


def saved(change):
    """Saves the content after a change to it."""
    def write(content, path):
        changed = change(content)
        torch.save(content if changed is None else changed, path)
    return write


def on(key, **values):
    """Saves the content with other values in one of its fields."""
    return saved(lambda content: content[key].update(values))


def renamed_stages(content):
    """The weights alone, with one block less in a stage."""
    return {name.replace('layer2.0', 'layer2.7'): value
            for name, value in content['state_dict'].items()}


WEIGHTS = {
    'a list': (saved(lambda content: [1]), 'not a checkpoint: it holds a list'),
    'no weights': (saved(lambda content: {'a': 1}), 'it holds no state_dict of weights; give'),
    'no tensor': (on('state_dict', a='b'), "not a tensor; give a file of weights"),
    'complex': (on('state_dict', a=torch.zeros(2).cfloat()), 'is of complex numbers; give a file'),
    'shared': (saved(lambda content: dict.fromkeys(map(str, range(999)), torch.zeros(99_999))),
               'bytes of tensors and has'),
    'nested': (nested, 'or values nested deeper, than any training'),
    'memory': (saved(lambda content: {**content, 'b': Large()}), 'since it asks for a bytearray'),
    'packed': (packed, 'give the file as torch.save wrote it'),
    'damaged': (damaged, 'by its checksum; give another copy'),
    'code': (saved(lambda content: {**content, 'b': os.system}), 'would run code from the file ('),
    'cut': (lambda content, path: path.write_bytes(b'PK\3\4' + bytes(99)),
            'not a checkpoint, or one that is cut short; give another'),
    'a folder': (lambda content, path: path.mkdir(), 'cannot be read (Is a directory); give a .pt'),
    'gone': (lambda content, path: None, 'no such checkpoint; check the path'),
    'later': (saved(lambda content: {**content, 'format_version': 99}), 'is of format 99, and'),
    'epoch': (saved(lambda content: {**content, 'epoch': -1}), 'its epoch'),
    'depth': (on('network_options', model_depth=11), 'of depth 11, which there is not; give an'),
    'model': (on('network_options', model='vgg'), "no model 'vgg': choose one of resnet"),
    'stem': (on('network_options', stem_planes=-1), 'its network_options.stem_planes'),
    'clips': (on('clip_options', sample_size=10 ** 9), 'its clip_options ask for clips of'),
    'record': (saved(lambda content: {**content, 'clip_options': 3}),
               'its clip_options are no record of flags; give an'),
    'value': (on('clip_options', sample_size='many'), 'its clip_options say'),
    'no flag': (on('clip_options', sample_size=[[]]), 'its clip_options say'),
    'no list': (on('clip_options', sample_size=[3]), 'its clip_options say'),
    'no network': (saved(lambda content: {'a.weight': torch.zeros(3)}),
                   'is missing, they begin with a.weight'),
    'of images': (saved(lambda content: {'conv1.weight': torch.zeros(64, 3, 7, 7)}),
                  'of 5 axes; give weights of a 3D ResNet'),
    'channels': (saved(lambda content: {'conv1.weight': torch.zeros(8, 4, 7, 7, 7)}),
                 'input channels; give weights for 3 (rgb)'),
    'stages': (saved(renamed_stages), 'blocks; the depths are those of --help'),
    'width': (on('network_options', resnet_widen_factor=1e5), 'describes a network of'),
    'lacking': (saved(lambda content: {**content, 'state_dict': {
        name: value for name, value in content['state_dict'].items() if name != 'bn1.weight'}}),
                'its tensors do not fit the network: 1 missing')}


@pytest.fixture(scope='module')
def content(data):
    return torch.load(data.root / 'save_1.pth', weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize('name', WEIGHTS)
def test_weights(data, content, tmp_path, name):
    write, words = WEIGHTS[name]
    path = tmp_path / 'a.pth'
    write(copy.deepcopy(content), path)
    assert words in run_script('describe_checkpoint', path).stderr
    path.rmdir() if path.is_dir() else None
    shutil.copy(data.root / 'save_1.pth', path)
    assert run_script('describe_checkpoint', path).returncode == 0


def test_safetensors(tmp_path, content):
    path = tmp_path / 'a.safetensors'
    path.write_bytes(b'cut')
    assert 'not a .safetensors file, or one that is cut short' in sentence(load_model, path)
    write_safetensors(path, content)
    assert sentence(load_model, path) == ''


def bare(**others):
    """Saves the weights alone, some of them others."""
    return saved(lambda content: {**content['state_dict'], **others})


def without(*names):
    return saved(lambda content: {name: value for name, value in content['state_dict'].items()
                                  if name not in names})


def with_nan_in_optimizer(content):
    content['optimizer']['state'][0]['momentum_buffer'][0] = torch.nan


FLOW = torch.zeros(8, 2, 7, 7, 7)
# What is saved, flags with FILE for it, words of the error, and the flags that it asks for.
ON_WEIGHTS = {
    'no average': (saved(lambda content: None), '--resume_path FILE --no_train --use_ema yes',
                   'give --use_ema auto, or another file',
                   '--resume_path FILE --no_train --use_ema auto'),
    'no classifier': (without('fc.weight', 'fc.bias'), '--resume_path FILE --no_train',
                      'fine-tune it with --pretrain_path, which', '--pretrain_path FILE'),
    'no names': (without(), '--pretrain_path FILE --keep_classifier',
                 'drop --keep_classifier, and a new', '--pretrain_path FILE'),
    'no state': (without(), '--resume_path FILE', 'holds weights but no state of a training',
                 '--pretrain_path FILE'),
    'flow': (bare(**{'conv1.weight': FLOW}), '--pretrain_path FILE --file_type jpg',
             'which is read from hdf5: add --file_type hdf5',
             '--pretrain_path FILE --file_type hdf5'),
    'other depth': (without(), '--resume_path FILE --no_train --model_depth 18',
                    'drop the flag or give another', '--resume_path FILE --no_train'),
    'classes before': (without(), '--pretrain_path FILE --n_pretrain_classes 7',
                       '--n_pretrain_classes says', '--pretrain_path FILE'),
    'several labels': (saved(lambda content: None), '--resume_path FILE --no_train --multi_label',
                       'and --multi_label was given; drop', '--resume_path FILE --no_train'),
    'four classes': (bare(**{'fc.weight': torch.zeros(4, 64), 'fc.bias': torch.zeros(4)}),
                     '--resume_path FILE --no_train --n_classes 4',
                     'classes and the annotation', '--pretrain_path FILE'),
    'module': (without(), '--pretrain_path FILE --ft_begin_module layer9',
               'no such module; choose one of conv1', '--pretrain_path FILE --ft_begin_module fc'),
    'features': (without(),
                 '--resume_path FILE --no_train --inference --inference_subset val '
                 '--output_features f.h5 --feature_module layer9',
                 'no such module; the network has layer', '--resume_path FILE --no_train '
                 '--inference --inference_subset val --output_features f.h5 '
                 '--feature_module layer4'),
    'optimiser': (saved(lambda content: content.pop('options') and None),
                  '--resume_path FILE --n_epochs 2 --ft_begin_module fc',
                  '--head_lr_factor and --no_norm_decay it was trained with',
                  '--resume_path FILE --n_epochs 2'),
    'optimiser of nan': (saved(with_nan_in_optimizer), '--resume_path FILE --n_epochs 2',
                         'or start a new training from it with --pretrain_path',
                         '--pretrain_path FILE --n_epochs 2'),
    'optimiser, batch norm': (saved(lambda content: None),
                              '--resume_path FILE --n_epochs 2 --freeze_bn',
                              'give the --ft_begin_module, --freeze_bn, --layer_decay',
                              '--resume_path FILE --n_epochs 2'),
    'other training': (saved(lambda content: None),
                       '--resume_path FILE --n_epochs 2 --optimizer adamw',
                       'give the one it was trained with', '--resume_path FILE --n_epochs 2'),
    'average': (saved(lambda content: {**content, 'ema_state_dict': {'a': torch.zeros(1)}}),
                '--resume_path FILE --n_epochs 2 --ema_decay 0.9',
                'its moving average of the weights is not',
                '--resume_path RIGHT --n_epochs 2 --ema_decay 0.9'),
    'record of options': (on('options', learning_rate='much'), '--resume_path FILE',
                          'its options are no record of flags', '--resume_path RIGHT'),
    'record, no options': (saved(lambda content: {**content, 'options': 3}), '--resume_path FILE',
                           'its options is 3', '--resume_path RIGHT'),
    'teacher of flow': (bare(**{'conv1.weight': FLOW}), '--teacher_path FILE',
                        'and this training has rgb; give another teacher', ''),
    'teacher of others': (saved(lambda content: {**content, 'class_names': ['a', 'b', 'c']}),
                          '--teacher_path FILE', 'the teacher has 3 classes without red, green',
                          '')}


@pytest.mark.slow
@pytest.mark.parametrize('name', ON_WEIGHTS)
def test_flags_and_weights(data, content, tmp_path, capsys, name):
    write, fails, words, then = ON_WEIGHTS[name]
    path = tmp_path / 'a.pth'
    write(copy.deepcopy(content), path)
    at = (argv := data.argv(tmp_path / 'r', '--no_val', '--n_epochs', 1)).index('--n_classes')
    del argv[at:at + 2]
    if '--no_train' in fails:
        argv.remove('--no_val')
    said, right = [], str(data.root / 'save_1.pth')
    for flags in (fails, then):
        flags = flags.replace('FILE', str(path)).replace('RIGHT', right)
        status = run_main([*argv, *flags.split()])
        said.append(capsys.readouterr().err.strip().splitlines()[-1:])
        assert status == 2 if len(said) == 1 else status in (0, 2)
    assert words in said[0][0]
    assert said[1] != said[0] and (status == 0 or 'hdf5' in said[1][0]), said
