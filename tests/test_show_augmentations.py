"""The picture of clips before and after augmentation."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers import grey_frames, run_script, write_video

TINY = ('--sample_size', 32, '--sample_duration', 8)


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / 'clips/a.mp4', grey_frames(range(60, 100)))


def show(*argv, output):
    return run_script('show_augmentations', *argv, *TINY, '--output', output)


def pixels(path):
    """The pixels of a picture, (H, W, 3)."""
    return np.asarray(Image.open(path).convert('RGB'))


def test_before_and_after(video, tmp_path):
    result = show(video, '--rand_augment', 2, 9, '--random_erasing', 0.5, '--colorjitter',
                  output=tmp_path / 'new/a.png')
    assert result.returncode == 0 and not result.stderr
    assert result.stdout.splitlines() == [
        'augmentation: --colorjitter --rand_augment 2 9 --random_erasing 0.5',
        f'written: {tmp_path / "new/a.png"} (1 clip before and 3 draws after; --manual_seed '
        'draws others)']
    assert pixels(tmp_path / 'new/a.png').shape[1] > 1000


def test_more_draws_are_more_rows_and_the_seed_draws_others(video, tmp_path):
    for name, flags in {'one': ('--n_draws', 1), 'three': (), 'again': (),
                        'other': ('--manual_seed', 2)}.items():
        assert show(video, '--random_erasing', 1, *flags,
                    output=tmp_path / f'{name}.png').returncode == 0
    one, three, again, other = (pixels(tmp_path / f'{name}.png')
                                for name in ('one', 'three', 'again', 'other'))
    assert len(three) > 1.8 * len(one)
    assert np.array_equal(three, again) and not np.array_equal(three, other)


@pytest.mark.slow
@pytest.mark.parametrize('flag', ['--mixup', '--cutmix'])
def test_videos_are_mixed_with_each_other_and_a_single_one_with_itself(video, tmp_path, flag):
    white = write_video(tmp_path / 'clips/b.mp4', grey_frames([250] * 20))
    assert show(video, flag, 1, output=tmp_path / 'one.png').returncode == 0
    result = show(video, white, flag, 1, '--no_hflip', output=tmp_path / 'two.png')
    assert result.returncode == 0 and '2 clips before and 3 draws' in result.stdout
    assert len(pixels(tmp_path / 'two.png')) > 1.8 * len(pixels(tmp_path / 'one.png'))


def test_a_folder_of_frames_and_a_vector_picture(tiny_data, tmp_path):
    folder = tiny_data.frame().parent
    assert show(folder, output=tmp_path / 'a.svg').returncode == 0
    assert '<svg' in (tmp_path / 'a.svg').read_text()


@pytest.mark.parametrize('argv, words', [
    (['{folder}'], ['{folder}', 'without frames']),
    (['{video}', '--file_type', 'hdf5', '--input_type', 'flow'], ['optical flow', 'drop']),
    (['{video}', '--mixup', '-1'], ['--mixup', 'at least 0']),
    (['{text}'], ['{text}', 'cannot be decoded'])])
def test_bad_input(video, tmp_path, argv, words):
    text = tmp_path / 'text.mp4'
    text.write_text('no video')
    places = {'folder': tmp_path, 'video': video, 'text': text}
    result = show(*(word.format(**places) for word in argv[:1]),
                  output=tmp_path / 'a.png') if len(argv) < 2 else run_script(
        'show_augmentations', *(word.format(**places) for word in argv))
    line, = result.stderr.splitlines()
    assert result.returncode == 2 and all(word.format(**places) in line for word in words), line
    assert not (tmp_path / 'a.png').exists()


@pytest.mark.videos
def test_real_clips(videos_dir, tmp_path):
    path = videos_dir / 'ucf101/videos/IceDancing/v_IceDancing_g02_c05.mp4'
    assert show(path, '--rand_augment', 2, 9, '--speed_jitter', 0.5, 2,
                output=tmp_path / 'a.png').returncode == 0
