"""HDF5 files of optical flow made of videos."""

import numpy as np
import pytest

from datasets.frames import Hdf5Flow
from runtime.errors import InputError
from tests.helpers import grey_frames, run_script, write_video
from tests.test_generate_video_hdf5 import call, stored, videos  # noqa: F401  (a fixture)
from util_scripts import generate_flow_hdf5
from util_scripts.generate_flow_hdf5 import as_image

try:
    import cv2
except ImportError:
    cv2 = None

needs_opencv = pytest.mark.skipif(cv2 is None, reason='OpenCV is not installed')
needs_contrib = pytest.mark.skipif(not hasattr(cv2, 'optflow'),
                                   reason='the contributed part of OpenCV is not installed')


def test_flow_is_clipped_and_127_5_is_no_motion():
    flow = np.array([-100, -20, -10, 0, 10, 20, 100])
    assert as_image(flow).tolist() == [0, 0, 64, 128, 191, 255, 255]


def moving(right, down, n_frames=6, height=120, width=160):
    """A smooth random picture that moves so many pixels a frame: (T, H, W, 3) uint8."""
    rng = np.random.default_rng(0)
    ground = np.kron(rng.random((50, 60)), np.ones((8, 8)))
    for axis in (0, 1):
        for _ in range(3):
            ground = (np.roll(ground, 2, axis) + ground + np.roll(ground, -2, axis)) / 3
    tops, lefts = (100 - step * np.arange(n_frames) for step in (down, right))
    rows = [ground[top:top + height, left:left + width] for top, left in zip(tops, lefts)]
    return np.repeat((255 * np.stack(rows)).astype(np.uint8)[..., None], 3, axis=3)


@pytest.mark.slow
@needs_opencv
@pytest.mark.parametrize('method', ['dis', pytest.param('tvl1', marks=needs_contrib)])
@pytest.mark.parametrize('right, down', [(4, 0), (0, -3)])
def test_flow_is_the_motion_in_pixels(videos, tmp_path, method, right, down):  # noqa: F811
    write_video(videos / 'Run' / 'a.mp4', moving(right, down, 4), codec='libx264')
    assert call(generate_flow_hdf5, videos, tmp_path, '--size', 120, '--method', method) == 0
    clip = Hdf5Flow().read(str(tmp_path / 'Run' / 'a.hdf5'), [0, 1, 2, 3]).float()
    assert clip.shape == (4, 2, 120, 160)
    pixels = (clip[:, :, 30:-30, 30:-30].median(3).values.median(2).values / 127.5 - 1) * 20
    assert np.abs(pixels.numpy() - [right, down]).max() < 0.4
    assert stored(tmp_path / 'Run' / 'a.hdf5', 'video_u')[3] == stored(
        tmp_path / 'Run' / 'a.hdf5', 'video_u')[2]


@needs_opencv
def test_flow_has_as_many_images_as_frames(videos, tmp_path, capsys):  # noqa: F811
    write_video(videos / 'Run' / 'one.mp4', grey_frames([50]))
    write_video(videos / 'Run' / 'five.mp4', moving(1, 0, 5))
    (videos / 'Run' / 'empty.avi').touch()
    assert call(generate_flow_hdf5, videos, tmp_path) == 1
    assert 'empty.avi' in capsys.readouterr().err
    reader = Hdf5Flow()
    assert reader.count(tmp_path / 'Run' / 'five.hdf5') == 5
    assert reader.count(tmp_path / 'Run' / 'one.hdf5') == 1
    assert reader.read(tmp_path / 'Run' / 'one.hdf5', [0]).unique().tolist() == [128]


@needs_opencv
def test_pictures_too_small_for_flow_are_named(videos, tmp_path, capsys):  # noqa: F811
    write_video(videos / 'Run' / 'a.mp4', moving(1, 0, 3))
    assert call(generate_flow_hdf5, videos, tmp_path, '--size', 4) == 1
    assert 'a.mp4: no flow of pictures of 5x4' in capsys.readouterr().err
    assert not list((tmp_path / 'Run').iterdir())


@pytest.mark.parametrize('method', ['dis', 'tvl1'])
def test_without_opencv_the_cure_is_named(videos, tmp_path, monkeypatch, method):  # noqa: F811
    monkeypatch.setitem(__import__('sys').modules, 'cv2', None)
    with pytest.raises(InputError, match=f'--method {method} .*pip install opencv'):
        call(generate_flow_hdf5, videos, tmp_path, '--method', method)


def test_help_says_what_the_values_are():
    shown = run_script('generate_flow_hdf5', '--help').stdout
    for word in ('-20...20', '127.5', 'opencv-python-headless', 'video_u', 'video_v'):
        assert word in shown
