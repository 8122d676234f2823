"""Folders of frames: which images are frames, in which order, and what is said of the others."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

import main as main_module
from datasets.frame_folders import FolderError, chosen, find_frames, frame_names, holds_frames
from datasets.frames import FrameError, JpgFrames
from runtime.errors import InputError
from util_scripts import check_data, folder_json, predict, ucf101_json

TINY = ['--model_depth', '10', '--resnet_widen_factor', '0.125', '--sample_size', '32',
        '--sample_duration', '4', '--no_cuda', '--n_threads', '0', '--batch_size', '2',
        '--n_epochs', '1']


def grey(i):
    return Image.new('RGB', (40, 32), (10 * i + 5,) * 3)


def write_frames(folder, names, first=0):
    """Image i of the folder, from 0, has the level 10 (first + i) + 5."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        # Without loss, also where the name is that of a JPEG image or the extension is unusual.
        kind = {'jpg': 'JPEG', 'jpeg': 'JPEG'}.get(name.rpartition('.')[2].lower())
        options = {'quality': 95} if kind else {'lossless': True}
        grey(first + i).save(folder / name, format=kind, **options)


def levels(clip):
    """The level of each frame of a clip, as the image's number."""
    return [round((frame.float().mean().item() - 5) / 10) for frame in clip]


NAMES = {
    'usual': 'image_{:05d}.jpg', 'six digits': 'image_{:06d}.jpg', 'no padding': '{}.jpg',
    'dash': 'frame-{}.png', 'webp': 'x{:03d}.webp', 'bmp': 'f{:02d}.BMP', 'jpeg': 'f{}.JPEG',
    'two numbers': 'v_Run_g01_c02_{:04d}.jpg', 'blank': 'my frame {}.png',
    'after the number': '{:04d}_rgb.jpg'}


@pytest.mark.parametrize('first, step', [(0, 1), (1, 1), (2, 1), (98, 1), (0, 5), (1, 5), (7, 3)])
@pytest.mark.parametrize('name', NAMES)
def test_any_names_are_read_in_the_order_of_their_numbers(tmp_path, name, first, step):
    names = [NAMES[name].format(first + step * i) for i in range(12)]
    write_frames(tmp_path, names)
    reader = JpgFrames()
    assert reader.count(str(tmp_path)) == 12
    reader.check(str(tmp_path), 1, 13)
    assert levels(reader.read(str(tmp_path), range(1, 13))) == list(range(12))
    assert levels(reader.read(str(tmp_path), [1, 6, 11, 12])) == [0, 5, 10, 11]
    assert reader.left_out(str(tmp_path)) == []
    with pytest.raises(FrameError, match=f'{names[-1]}|no such frame'):
        reader.read(str(tmp_path), [13])


def test_random_names_and_numbers():
    seed = random.randrange(2 ** 32)
    print('seed', seed)
    draw = random.Random(seed)
    for _ in range(300):
        head = ''.join(draw.choices('ab_- .(é3', k=draw.randrange(5)))
        head += '_' if head[-1:].isdigit() else ''
        tail = draw.choice(['', '_x', ' y'])
        extension = draw.choice(['.jpg', '.JPG', '.png', '.webp', '.bmp', '.jpeg'])
        if f'{head}0'.startswith('.'):
            continue
        width, first, step = draw.randrange(8), draw.randrange(200), draw.randint(1, 30)
        numbers = range(first, first + step * draw.randint(2, 300), step)
        names = [f'{head}{number:0{width}d}{tail}{extension}' for number in numbers]
        others = ['notes.txt', 'cover.jpg', f'{names[0].rpartition(".")[0]} (1).jpg']
        found = chosen(sorted(names + others)) if len(names) > 2 else chosen(sorted(names))
        assert found.names == names and not found.missing
        assert sorted(found.strays) == (sorted(others) if len(names) > 2 else [])


def test_numbers_in_no_even_step_come_in_their_order():
    names = [f'{number}.jpg' for number in (3, 10, 11, 17, 40)]
    assert chosen(sorted(names))[:2] == (names, ())


def test_a_frame_between_others_is_missed_and_named(tmp_path):
    names = [f'f{i:03d}.png' for i in range(0, 50, 5)]
    write_frames(tmp_path, names)
    (tmp_path / 'f015.png').unlink()
    reader = JpgFrames()
    assert reader.left_out(str(tmp_path)) == [('f015.png', 'missing between other frames')]
    folder = find_frames(str(tmp_path))
    assert list(folder.names) == names and folder.n == 9
    assert levels(reader.read(str(tmp_path), [3, 5])) == [2, 4]
    with pytest.raises(FrameError, match='f015.png: no such frame'):
        reader.read(str(tmp_path), [3, 4])


def test_copies_are_no_frames(tmp_path):
    write_frames(tmp_path, [f'image_{i:05d}.jpg' for i in range(1, 6)])
    for name in ('image_00001 (1).jpg', 'image_00001 - Copy.jpg', 'copy of image_00002.jpg'):
        (tmp_path / name).write_bytes((tmp_path / 'image_00001.jpg').read_bytes())
    reader = JpgFrames()
    assert reader.count(str(tmp_path)) == 5
    assert {name for name, _ in reader.left_out(str(tmp_path))} == {
        'image_00001 (1).jpg', 'image_00001 - Copy.jpg', 'copy of image_00002.jpg'}


def test_several_kinds_need_a_template(tmp_path):
    write_frames(tmp_path, [f'img_{i}.jpg' for i in range(5)])
    write_frames(tmp_path, [f'flow_x_{i}.jpg' for i in range(5)])
    with pytest.raises(FrameError, match='several kinds.*img_%d.jpg.*--frame_template'):
        JpgFrames().count(str(tmp_path))
    reader = JpgFrames('img_%05d.jpg')
    assert reader.count(str(tmp_path)) == 5
    assert levels(reader.read(str(tmp_path), [1, 5])) == [0, 4]


def test_the_template_is_said_where_all_images_differ_in_one_number(tmp_path):
    write_frames(tmp_path, [f'{i:04d}_cam1.jpg' for i in range(8, 12)])
    with pytest.raises(FrameError, match='as with --frame_template "%d_cam1.jpg"'):
        JpgFrames().count(str(tmp_path))
    assert levels(JpgFrames('%d_cam1.jpg').read(str(tmp_path), [1, 4])) == [0, 3]


@pytest.mark.parametrize('n_others, is_told', [(0, True), (1, True), (4, True), (5, False),
                                               (6, False)])
def test_a_kind_of_which_there_are_twice_as_many_is_taken(n_others, is_told):
    names = [f'img_{i}.png' for i in range(10)]
    all_names = sorted(names + [f'x_{i}.png' for i in range(n_others)])
    if is_told:
        assert chosen(all_names).names == names
    else:
        with pytest.raises(FolderError, match='several kinds'):
            chosen(all_names)


def test_hidden_files_and_those_of_the_2020_code_do_not_count(tmp_path):
    assert not holds_frames(str(tmp_path))
    write_frames(tmp_path, ['frame_1.png', '.frame_2.png'])
    (tmp_path / 'n_frames').write_text('1')
    assert find_frames(str(tmp_path)) == (['frame_1.png'], (), ())
    assert holds_frames(str(tmp_path))


def test_a_folder_is_named_by_its_frames():
    assert [str(chosen(names)) for names in (['a_1.png'], ['a_1.png', 'a_2.png'])] == [
        '1 frame, a_1.png', '2 frames, a_1.png to a_2.png']


def test_more_than_half_of_the_frames_are_not_missing():
    for last, n_missing in ((12, 6), (13, 0)):
        names = [f'f{number:02d}.png' for number in (1, 2, 3, 4, 5, last)]
        assert len(chosen(names).missing) == n_missing


def test_a_missing_name_has_as_many_digits_as_the_first():
    assert chosen(['f_8.png', 'f_10.png', 'f_11.png', 'f_12.png']).missing == ('f_9.png',)


def test_a_template_says_which_number_counts():
    names = [f'cam{cam}_{i}_x{9 - i}.png' for i in range(5) for cam in (1,)]
    with pytest.raises(FolderError):
        chosen(names)
    assert chosen(names, '*_%03d_x*.png').names == names
    assert chosen(names, 'cam1_*_x%d.PNG').names == names[::-1]
    with pytest.raises(FolderError, match='^cam1_1_x8.png and cam2_1_x8.png are both frame 1'):
        chosen(names + ['cam2_1_x8.png', 'cam3_1_x8.png'], 'cam*_%d_x*.png')


@pytest.mark.parametrize('names', [['1.jpg', '01.jpg'], ['a1.jpg', 'a2.jpg', 'a1.JPG']])
def test_two_images_for_a_frame_are_named(names):
    with pytest.raises(FolderError, match='are both frame 1'):
        chosen(sorted(names))


def test_of_two_images_for_a_frame_a_template_means_the_one_it_would_write():
    names = sorted([f'i{n}.jpg' for n in range(1, 12)] + [f'i{n:03d}.jpg' for n in range(1, 12)])
    for template in ('i%03d.jpg', 'i%d.jpg'):
        assert chosen(names, template).names == [f'{template[:-4]}.jpg' % n for n in range(1, 12)]


def test_frames_of_several_extensions_are_one_kind_if_no_number_is_there_twice():
    names = [f'image_{n:05d}.{"png" if n % 3 else "jpg"}' for n in range(1, 12)]
    assert chosen(sorted(names)) == (names, (), ())
    twice = chosen(sorted([*names, 'image_00001.jpg']))
    assert len(twice.strays) == sum('png' in name for name in names)


@pytest.mark.parametrize('wrong', ['frame.png', 'a%d_%d.png', 'a/%d.png', '%s.png'])
def test_wrong_templates_are_refused(tiny_data, wrong):
    with pytest.raises(InputError, match='is not a file name with one %d'):
        main_module.main([*tiny_data.argv('unused'), '--frame_template', wrong])


def test_an_index_follows_its_folder(tmp_path):
    write_frames(tmp_path, ['1.png', '2.png'])
    assert find_frames(str(tmp_path)).n == 2
    write_frames(tmp_path, ['1.png', '2.png', '3.png'])
    assert JpgFrames().count(str(tmp_path)) == 3


def test_names_that_were_wanted_and_found_are_said(tmp_path):
    reader = JpgFrames()
    (tmp_path / 'notes.txt').write_text('')
    with pytest.raises(FrameError, match=r'no frames \(image_00001.jpg ...\), but notes.txt'):
        reader.check(str(tmp_path), 1, 3)
    write_frames(tmp_path, ['f0.png', 'f1.png'])
    with pytest.raises(FrameError, match='frames 1 to 3 and the folder has 2 frames, f0.png to f1'):
        reader.check(str(tmp_path), 1, 4)
    with pytest.raises(FrameError, match=r'no frames \(x%d.png\), but f0.png, f1.png, notes.txt'):
        JpgFrames('x%d.png').check(str(tmp_path), 1, 3)


@pytest.mark.parametrize('missing', [(3,), (4, 6)])
def test_what_is_said_of_gaps_helps(tmp_path, missing):
    """An annotation that is made again names frames that are not there, too."""
    folder = tmp_path / 'f' / 'a' / 'x'
    write_frames(folder, [f'image_{n:05d}.jpg' for n in range(1, 9) if n not in missing])
    n_frames = JpgFrames().count(str(folder))
    with pytest.raises(FrameError, match='later ones; .* rename the frames') as refused:
        JpgFrames().check(str(folder), 1, n_frames + 1)
        JpgFrames().read(str(folder), range(1, n_frames + 1))
    assert f'image_{missing[0]:05d}.jpg: no such frame' in str(refused.value)


def test_a_template_that_matches_nothing_is_told_what_is_there(tmp_path):
    write_frames(tmp_path / 'f' / 'a' / 'x', ['f_1.png', 'f_2.png'])
    with pytest.raises(InputError, match=r'a/x: the folder has no frames \(x%d.png\), but f_1.png'):
        folder_json.main([str(tmp_path / 'f'), str(tmp_path / 'a.json'), '--frame_template',
                          'x%d.png'])


# ---------------------------------------------------------------- pixels

def test_images_of_other_kinds_are_those_of_pillow(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (32, 40, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., :3]).save(tmp_path / '1.png')
    Image.fromarray(pixels).save(tmp_path / '2.png')
    Image.fromarray(pixels[..., :3]).quantize(256).save(tmp_path / '3.png')
    Image.fromarray(pixels).quantize(256).save(tmp_path / '4.png')  # a palette with transparency
    clip = JpgFrames().read(str(tmp_path), [1, 2, 3, 4])
    assert clip.shape == (4, 3, 32, 40)
    for i, name in enumerate(('1.png', '2.png', '3.png', '4.png')):
        wanted = np.asarray(Image.open(tmp_path / name).convert('RGBA').convert('RGB'))
        assert np.array_equal(clip[i].permute(1, 2, 0).numpy(), wanted)


def test_sixteen_bits_of_grey_are_scaled(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((8, 9), 256 * (50 * i + 7), np.uint16)).save(tmp_path / f'{i}.png')
    clip = JpgFrames().read(str(tmp_path), [1, 2, 3])
    assert clip[:, :, 0, 0].tolist() == [[7] * 3, [57] * 3, [107] * 3]


@pytest.mark.parametrize('extension', ['jpg', 'png', 'webp'])
def test_images_are_turned_as_their_exif_says(tmp_path, extension):
    ramp = np.zeros((32, 48, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(0, 240, 5)[None], np.arange(0, 256, 8)[:, None]
    path = tmp_path / f'1.{extension}'
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        kind = {'webp': {'lossless': True}, 'jpg': {'quality': 98}}.get(extension, {})
        Image.fromarray(ramp).save(path, exif=exif, **kind)
        clip = JpgFrames().read(str(tmp_path), [1])
        upright = {2: ramp[:, ::-1], 3: ramp[::-1, ::-1], 4: ramp[::-1],
                   5: ramp.transpose(1, 0, 2), 6: np.rot90(ramp, -1),
                   7: ramp[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(ramp)}.get(orientation, ramp)
        assert clip.shape[2:] == upright.shape[:2]
        off = np.abs(clip[0].permute(1, 2, 0).numpy().astype(int) - upright.astype(int))
        assert off.mean() < 4, orientation


def test_turned_and_other_frames_of_a_video_are_told(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    grey(1).save(tmp_path / '1.jpg')
    grey(2).save(tmp_path / '2.jpg', exif=exif)
    with pytest.raises(FrameError, match='2.jpg: the frame is 32x40'):
        JpgFrames().read(str(tmp_path), [1, 2])


@pytest.mark.parametrize('spoil, words', [
    (lambda data: b'', 'empty'), (lambda data: b'nothing', 'not an image'),
    (lambda data: data[:len(data) // 2], 'truncated|undecodable')])
def test_broken_png_frames_are_named(tmp_path, spoil, words):
    noise = np.random.default_rng(0).integers(0, 255, (32, 40, 3), dtype=np.uint8)
    for i in range(3):
        Image.fromarray(noise).save(tmp_path / f'{i}.png')
    (tmp_path / '1.png').write_bytes(spoil((tmp_path / '1.png').read_bytes()))
    with pytest.raises(FrameError, match=f'1.png: the frame is ({words})'):
        JpgFrames().read(str(tmp_path), [1, 2, 3])


# ---------------------------------------------------------------- commands

@pytest.fixture
def folders(tmp_path):
    """Two classes of two videos, frames from 0 in steps of 2, and a stray copy in each."""
    for first, label in ((0, 'run'), (10, 'jump')):
        for i in range(2):
            write_frames(tmp_path / 'data' / label / f'{label}{i}',
                         [f'frame-{2 * n}.png' for n in range(8 + i)], first)
            grey(0).save(tmp_path / 'data' / label / f'{label}{i}' / 'frame-0 (1).png')
    return tmp_path / 'data'


@pytest.mark.parametrize('template', [[], ['--frame_template', 'frame-%d.png']])
def test_all_commands_read_such_frames(folders, tmp_path, capsys, template):
    own = tmp_path / 'own.json'
    folder_json.main([str(folders), str(own), '--val_fraction', '0.5', *template])
    out, err = capsys.readouterr()
    assert 'not taken: 4 images that are no frames (frame-0 (1).png, ...)' in err
    assert '--file_type jpg' in out and ('--frame_template frame-%d.png' in out) == bool(template)
    database = json.loads(own.read_text())['database']
    assert database['run1']['annotations']['segment'] == [1, 10]
    data = ['--video_path', str(folders), '--annotation_path', str(own), *template]
    assert check_data.main([*data, *TINY]) == 0
    assert 'not taken: 4 images' in capsys.readouterr().err
    main_module.main([*data, '--result_path', str(tmp_path / 'r'), '--inference', *TINY])
    assert len(json.loads((tmp_path / 'r' / 'val.json').read_text())['results']) == 2
    capsys.readouterr()
    assert predict.main([str(folders / 'run'), '--weights', str(tmp_path / 'r' / 'save_1.pth'),
                         '--no_cuda', *template]) == 0
    assert '2 videos' in capsys.readouterr().out


def test_scripts_of_published_lists_read_such_frames(tmp_path, capsys):
    splits = tmp_path / 'splits'
    splits.mkdir()
    (splits / 'classInd.txt').write_text('1 Run\n')
    (splits / 'trainlist01.txt').write_text('Run/a.avi 1\n')
    (splits / 'testlist01.txt').write_text('Run/b.avi\n')
    for name in 'ab':
        write_frames(tmp_path / 'jpg' / 'Run' / name, [f'{n:03d}.jpeg' for n in range(6)])
    grey(0).save(tmp_path / 'jpg' / 'Run' / 'a' / 'poster.jpg')
    ucf101_json.main([str(splits), str(tmp_path / 'jpg'), str(tmp_path)])
    database = json.loads((tmp_path / 'ucf101_01.json').read_text())['database']
    assert [entry['annotations']['segment'] for entry in database.values()] == [[1, 7], [1, 7]]
    assert 'not taken: 1 images that are no frames (poster.jpg)' in capsys.readouterr().err
    with pytest.raises(InputError, match='--frame_template is for folders of frames'):
        ucf101_json.main([str(splits), str(tmp_path / 'jpg'), str(tmp_path), '--video_type',
                          'video', '--frame_template', '%d.jpeg'])


def test_pictures_beside_videos_are_not_predicted(tmp_path):
    from tests.helpers import grey_frames, write_video
    from util_scripts.helpers.video_sources import FileSource, find_sources
    write_video(tmp_path / 'a.mp4', grey_frames(range(20, 60)))
    grey(0).save(tmp_path / 'thumbnail1.jpg')
    grey(1).save(tmp_path / 'thumbnail2.jpg')
    assert [type(source) for source in find_sources([tmp_path], 25)] == [FileSource]


def test_frames_that_are_predicted_are_not_said_to_be_left_out(tmp_path, capsys):
    from util_scripts.helpers.video_sources import find_sources
    write_frames(tmp_path, [f'image_{i:05d}.jpg' for i in range(1, 4)])
    (tmp_path / '.extracted.json').touch()
    assert len(find_sources([tmp_path], 25)) == 1 and not capsys.readouterr().err


def test_the_usual_names_need_no_list_of_the_folder(tmp_path, monkeypatch):
    write_frames(tmp_path, [f'image_{i:05d}.jpg' for i in range(1, 13)])
    usual = JpgFrames().read(str(tmp_path), range(1, 13))
    monkeypatch.setattr('os.listdir', None)
    assert torch.equal(JpgFrames().read(str(tmp_path), range(1, 13)), usual)


@pytest.mark.parametrize('numbers, missing', [
    ((1, 2, 3, 5, 9), ()), ((1, 2, 3, 4, 6, 9), (5, 7, 8)), ((0, 2, 4, 6, 9), ()),
    ((0, 2, 4, 8), (6,)), ((5,), ()), ((5, 9), ())])
def test_numbers_are_missing_where_most_steps_are_one(numbers, missing):
    names = [f'f_{number}.png' for number in numbers]
    folder = chosen(sorted(names))
    assert folder.missing == tuple(f'f_{number}.png' for number in missing)
    assert folder.names == [f'f_{number}.png' for number in sorted({*numbers, *missing})]
    assert folder.n == len(numbers)


def test_kinds_are_told_apart_by_the_largest_of_them():
    kinds = {'a': 10, 'b': 6, 'c': 2, 'd': 1}
    names = sorted(f'{kind}_{i}.png' for kind, n in kinds.items() for i in range(n))
    with pytest.raises(FolderError) as refused:
        chosen(names)
    assert ': a_%d.png (10), b_%d.png (6), c_%d.png (2); say' in str(refused.value)
    assert len(chosen([name for name in names if name[0] != 'b']).names) == 10


def test_the_first_frame_that_is_not_there_is_named(tmp_path):
    write_frames(tmp_path, ['f_1.png', 'f_2.png'])
    assert frame_names(str(tmp_path), [2, 1]) == ['f_2.png', 'f_1.png']
    with pytest.raises(FolderError, match='frame 3 is wanted and the folder has 2 frames'):
        frame_names(str(tmp_path), [1, 3, 9])


def test_a_folder_may_hold_frames_that_are_not_clear(tmp_path):
    assert not holds_frames(tmp_path / 'gone')
    write_frames(tmp_path, ['a_1.png', 'b_1.png'])
    assert holds_frames(tmp_path) and holds_frames(tmp_path, 'a_%d.png')
    assert not holds_frames(tmp_path, 'c_%d.png')


def test_usual_names_are_those_of_a_template_that_says_so_alone(tmp_path):
    names = [f'image_{i:05d}.jpg' for i in range(1, 4)]
    write_frames(tmp_path, names)
    for template, n in ((None, 3), ('image_%05d.jpg', 3), ('*_%d.jpg', 3), ('frame_%05d.jpg', 0)):
        folder = find_frames(str(tmp_path), template)
        assert folder.n == n and sorted([*folder.names, *folder.strays]) == names
