"""HDF5 files of JPEG images made of videos."""

import errno

import h5py
import numpy as np
import pytest

from datasets.frames import Hdf5Frames, video_path
from features import Features, write_features
from runtime.errors import InputError
from tests.helpers import cut_short, files_of_at_most, grey_frames, run_script, write_video
from util_scripts import generate_video_hdf5, generate_video_jpgs
from util_scripts.generate_video_hdf5 import Hdf5File


@pytest.fixture
def videos(tmp_path):
    return tmp_path / 'videos'


def call(script, videos, dst, *flags, dataset='ucf101'):
    """Exit status, in this process."""
    return script.main([str(videos), str(dst), dataset, '--n_jobs', '1', *map(str, flags)])


def stored(path, name='video'):
    with h5py.File(path) as file:
        return [image.tobytes() for image in file[name]]


# ---------------------------------------------------------------- images

@pytest.mark.parametrize('flags', [(), ('--quality', 2, '--size', 96), ('--fps', 10)])
def test_the_images_are_those_of_the_jpgs(videos, tmp_path, flags):
    write_video(videos / 'Run' / 'a.mp4', grey_frames(range(20, 220, 10)))
    assert call(generate_video_hdf5, videos, tmp_path / 'hdf5', *flags) == 0
    assert call(generate_video_jpgs, videos, tmp_path / 'jpg', *flags) == 0
    jpgs = [path.read_bytes() for path in sorted((tmp_path / 'jpg' / 'Run' / 'a').glob('*.jpg'))]
    assert stored(tmp_path / 'hdf5' / 'Run' / 'a.hdf5') == jpgs


@pytest.mark.parametrize('stem', ['v_1.5', 'n' * 251, '動' * 83, 'a!()[]#;&+~@ b'])
def test_the_reader_finds_what_was_written(videos, tmp_path, stem):
    made = write_video(videos / 'Run' / 'a.mp4', grey_frames([50, 100]))
    made.rename(made.with_name(f'{stem}.mp4'))
    assert call(generate_video_hdf5, videos, tmp_path / 'hdf5') == 0
    path = video_path(tmp_path / 'hdf5', f'Run/{stem}', '.hdf5')
    assert Hdf5Frames().count(path) == 2
    assert Hdf5Frames().read(path, [0, 1]).float().mean((1, 2, 3)).round(decimals=-1).tolist() == [
        50, 100]


def test_names_that_are_cut_to_the_same_are_both_left(videos, tmp_path, capsys):
    for end in 'ab':
        made = write_video(videos / 'Run' / 'a.mp4', grey_frames([50]))
        made.rename(made.with_name('n' * 250 + f'{end}.mp4'))
    assert call(generate_video_hdf5, videos, tmp_path / 'hdf5') == 1
    assert capsys.readouterr().err.count('would both be') == 2


def test_activitynet_has_no_labels(videos, tmp_path):
    write_video(videos / 'abc.mp4', grey_frames([50]))
    assert call(generate_video_hdf5, videos, tmp_path / 'hdf5', dataset='activitynet') == 0
    assert (tmp_path / 'hdf5' / 'v_abc.hdf5').is_file()


def test_a_file_appears_whole_or_not_at_all(videos, tmp_path, monkeypatch):
    write_video(videos / 'Run' / 'a.mp4', grey_frames([50, 100]))
    folder = tmp_path / 'hdf5' / 'Run'
    seen, write = [], Hdf5File.write.__func__

    def watched(path, rows):
        write(Hdf5File, path, rows)
        seen.extend(entry.name for entry in folder.iterdir())
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(Hdf5File, 'write', watched)
    with pytest.raises(InputError, match='No space left'):
        call(generate_video_hdf5, videos, tmp_path / 'hdf5')
    assert len(seen) == 2 and all(name.startswith('.extracting-') for name in seen)
    assert not list(folder.iterdir())


@pytest.mark.parametrize('limit', [0, 1000, 5000])
def test_a_full_disk_is_no_crash(videos, tmp_path, capsys, limit):
    """HDF5 itself would end the process in a segmentation fault."""
    write_video(videos / 'Run' / 'a.avi', grey_frames(range(0, 200, 20)))
    with files_of_at_most(limit):
        assert call(generate_video_hdf5, videos, tmp_path / 'out') == 1
    assert 'a.hdf5 cannot be written: File too large' in capsys.readouterr().err
    assert not [path for path in (tmp_path / 'out').rglob('*') if path.is_file()]
    with files_of_at_most(limit), pytest.raises(InputError, match='File too large'):
        write_features(tmp_path / 'f.h5', Features(np.ones((9, 9), np.float32), ['a'] * 9,
                                                   np.ones((9, 2), int), np.zeros(9, int), ['b']))
    assert not (tmp_path / 'f.h5').exists()


def test_what_is_done_is_skipped_and_what_is_bad_is_named(videos, tmp_path, capsys):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    (videos / 'Run' / 'b.avi').touch()
    noise = np.random.default_rng(0).integers(0, 255, (100, 48, 64, 3), dtype=np.uint8)
    cut_short(write_video(videos / 'Run' / 'c.mkv', noise), 0.6)
    assert call(generate_video_hdf5, videos, tmp_path) == 1
    out, err = capsys.readouterr()
    assert '1 done' in out and '1 damaged, 1 failed' in out
    assert 'failed: ' in err and 'b.avi' in err and 'c.mkv' in err
    assert 50 <= len(stored(tmp_path / 'Run' / 'c.hdf5')) <= 65
    before = (tmp_path / 'Run' / 'a.hdf5').stat().st_mtime_ns
    assert call(generate_video_hdf5, videos, tmp_path) == 1
    again = capsys.readouterr()
    assert '1 skipped (there already), 1 damaged, 1 failed' in again.out and again.err == err
    assert (tmp_path / 'Run' / 'a.hdf5').stat().st_mtime_ns == before


@pytest.mark.parametrize('flags', [('--fps', 5), ('--size', 96), ('--quality', 2),
                                   ('--overwrite',)])
def test_what_has_changed_is_made_again(videos, tmp_path, capsys, flags):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    call(generate_video_hdf5, videos, tmp_path / 'hdf5')
    assert call(generate_video_hdf5, videos, tmp_path / 'hdf5', *flags) == 0
    assert '1 made again' in capsys.readouterr().out
    call(generate_video_hdf5, videos, tmp_path / 'fresh', *flags)
    ours, fresh = (stored(tmp_path / name / 'Run' / 'a.hdf5') for name in ('hdf5', 'fresh'))
    assert ours == fresh


def test_a_file_without_record_is_checked_by_its_frames(videos, tmp_path, capsys):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    call(generate_video_hdf5, videos, tmp_path)
    path = tmp_path / 'Run' / 'a.hdf5'
    with h5py.File(path, 'a') as file:
        del file.attrs['extracted']
    capsys.readouterr()
    assert call(generate_video_hdf5, videos, tmp_path) == 0
    assert '1 skipped' in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:500])
    assert call(generate_video_hdf5, videos, tmp_path) == 0
    assert '1 made again' in capsys.readouterr().out and len(stored(path)) == 2


@pytest.mark.parametrize('spoiled', [b'', b'other', None])
@pytest.mark.parametrize('has_record', [True, False])
def test_frames_that_are_empty_or_others_are_made_again(videos, tmp_path, capsys, spoiled,
                                                        has_record):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100, 150]))
    call(generate_video_hdf5, videos, tmp_path)
    path = tmp_path / 'Run' / 'a.hdf5'
    whole = stored(path)
    with h5py.File(path, 'a') as file:
        if spoiled is not None:
            file['video'][1] = np.frombuffer(spoiled, np.uint8)
        if not has_record:
            del file.attrs['extracted']
    capsys.readouterr()
    assert call(generate_video_hdf5, videos, tmp_path) == 0
    # Without a record only the number of frames tells.
    is_seen = spoiled == b'' or spoiled is not None and has_record
    assert ('1 made again' if is_seen else '1 skipped') in capsys.readouterr().out
    assert (stored(path) == whole) == (is_seen or spoiled is None)


def test_a_file_of_other_data_is_kept(videos, tmp_path, capsys):
    write_video(videos / 'Run' / 'a.avi', grey_frames([50, 100]))
    (tmp_path / 'Run').mkdir()
    with h5py.File(tmp_path / 'Run' / 'a.hdf5', 'w') as file:
        file['video_u'] = [1]
    assert call(generate_video_hdf5, videos, tmp_path) == 1
    assert 'move it away' in capsys.readouterr().err
    assert stored(tmp_path / 'Run' / 'a.hdf5', 'video_u')


@pytest.mark.slow
def test_as_a_command_with_processes(videos, tmp_path):
    for name in 'ab':
        write_video(videos / 'Run' / f'{name}.avi', grey_frames([50, 100]))
    made = run_script('generate_video_hdf5', videos, tmp_path / 'hdf5', 'ucf101', '--n_jobs', 2)
    assert made.returncode == 0 and made.stdout.startswith('2 videos: 2 done')
