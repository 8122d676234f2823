"""An inference that ends in the middle: what was done is kept, and the same command goes on."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from datasets.annotations import label_list_records, read_annotation
from features import read_features
from model import build_network
from opts import CLIP_FLAGS, INFERENCE_FLAGS, NETWORK_FLAGS, parse_opts, replace
from results import partial_results
from runtime.distributed import World
from tests.processes import LIMIT_SEC, start_main, start_ranks, wait_for
from tests.tiny_data import CLASSES, TinyData, run_main

pytestmark = pytest.mark.slow

# Windows of two videos share batches, and of the six videos the fourth is where a run ends.
VIDEOS = [f'{name}_{i}' for name in CLASSES for i in (4, 5)]
BAD = 'green_5'
FLAGS = ('--no_train', '--no_val', '--inference', '--inference_batch_size', 4, '--output_topk', 0,
         '--no-check_paths')
STRIDE = ('--inference_stride', 3)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """A data set of this module, and a checkpoint whose scores are not all zeros and ones."""
    data = TinyData(tmp_path_factory.mktemp('data'))
    for video_id in VIDEOS:
        shutil.copytree(data.frame(video_id).parent, data.root / 'copies' / video_id)
    assert run_main(data.argv('weights', '--n_epochs', 1, '--learning_rate', 0.002)) == 0
    return data


@pytest.fixture
def frames(data):
    """Changes frames for one test: `broken`, `piped` and `gone`."""
    changes = FrameChanges(data)
    yield changes
    changes.mend()


class FrameChanges:

    def __init__(self, data):
        self._data = data

    def mend(self):
        """Make all frames what they were."""
        for video_id in VIDEOS:
            folder = self._data.frame(video_id).parent
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self._data.root / 'copies' / video_id, folder)

    def broken(self, video_id):
        """Let the first frame of a video end whatever reads it."""
        self._data.frame(video_id).write_bytes(b'')

    def piped(self, video_id):
        """Let whoever reads the first frame of a video wait; a function that gives it to them."""
        frame = self._data.frame(video_id)
        image = frame.read_bytes()
        frame.unlink()
        os.mkfifo(frame)
        return lambda: frame.write_bytes(image)

    def gone(self, video_ids):
        """Mend all frames, and delete those of some videos."""
        self.mend()
        for video_id in video_ids:
            shutil.rmtree(self._data.frame(video_id).parent)


def argv(data, folder, *more):
    return data.argv(folder, '--resume_path', 'weights/save_1.pth', *FLAGS, *more)


def kept(folder):
    """Ids of the videos in the files of results that are not finished."""
    lines = [line for path in sorted(folder.glob('val.partial.*.jsonl'))
             for line in path.read_text().splitlines(keepends=True)[1:]]
    return [json.loads(line)['video'] for line in lines if line.endswith('\n')]


def names(folder):
    """Names of the files of results, whole or not."""
    return sorted(path.name for path in folder.glob('*val*'))


def whole(data, tmp_path, *more):
    """val.json of a run that nothing happened to."""
    assert run_main(argv(data, tmp_path / 'whole', *more)) == 0
    assert names(tmp_path / 'whole') == ['val.json']
    return (tmp_path / 'whole' / 'val.json').read_text()


def broken_off(data, frames, folder, *more):
    """Run until BAD, which ends it; mend the frames, but for those of the videos that are done."""
    frames.broken(BAD)
    assert run_main(argv(data, folder, *more)) == 2
    done = kept(folder)
    assert done[:2] == ['red_4', 'red_5'] and BAD not in done
    assert not (folder / 'val.json').exists()
    frames.gone(done)
    return done


# ---------------------------------------------------------------- the same results

@pytest.mark.parametrize('more', [
    STRIDE, (*STRIDE, '--inference_no_average'), ('--inference_views', '3x2'),
    (*STRIDE, '--inference_crop', 'nocrop'), (*STRIDE, '--n_threads', 2)])
def test_the_same_command_goes_on(data, frames, tmp_path, capsys, more):
    """To the bit; and nothing of the videos that are done is read, since it is gone."""
    expected = whole(data, tmp_path, *more)
    done = broken_off(data, frames, tmp_path / 'parts', *more)
    capsys.readouterr()
    assert run_main(argv(data, tmp_path / 'parts', *more)) == 0
    assert f'{len(done)} of 6 videos are taken over' in capsys.readouterr().out
    assert (tmp_path / 'parts' / 'val.json').read_text() == expected
    assert names(tmp_path / 'parts') == ['val.json']


@pytest.mark.parametrize('more', [(), ('--inference_no_average',)])
def test_features_are_kept_too(data, frames, tmp_path, more):
    more = (*STRIDE, '--output_features', 'f.h5', *more)
    expected = whole(data, tmp_path, *more)
    features = read_features(data.root / 'f.h5')
    (data.root / 'f.h5').unlink()
    broken_off(data, frames, tmp_path / 'parts', *more)
    assert run_main(argv(data, tmp_path / 'parts', *more)) == 0
    assert (tmp_path / 'parts' / 'val.json').read_text() == expected
    for values, others in zip(read_features(data.root / 'f.h5'), features, strict=True):
        assert np.array_equal(values, others)


def test_videos_with_bad_frames_are_reported_again(data, frames, tmp_path, capsys):
    """Some windows of one are left out; it is not taken over, nor are its places moved."""
    more = (*STRIDE, '--bad_frames', 'skip')
    frames.broken('red_5')
    expected = whole(data, tmp_path, *more)
    report = capsys.readouterr().err
    assert 'bad frames: 1 of 6 videos were left out' in report
    frames.broken(BAD)
    assert run_main(argv(data, tmp_path / 'parts', *STRIDE)) == 2
    assert kept(tmp_path / 'parts') == ['red_4']
    frames.gone(['red_4'])
    frames.broken('red_5')
    capsys.readouterr()
    assert run_main(argv(data, tmp_path / 'parts', *more)) == 0
    captured = capsys.readouterr()
    assert captured.err == report and '1 of 6 videos are taken over' in captured.out
    assert (tmp_path / 'parts' / 'val.json').read_text() == expected


def test_only_videos_with_bad_frames_are_left(data, frames, tmp_path):
    more = (*STRIDE, '--bad_frames', 'skip', '--inference_batch_size', 1)
    for frame in data.frame('blue_5').parent.iterdir():
        frame.write_bytes(b'')
    expected = whole(data, tmp_path, *more)
    assert run_main(argv(data, tmp_path / 'parts', *more, '--bad_frames', 'error')) == 2
    assert len(kept(tmp_path / 'parts')) == 5
    assert run_main(argv(data, tmp_path / 'parts', *more)) == 0
    assert (tmp_path / 'parts' / 'val.json').read_text() == expected


# ---------------------------------------------------------------- how a run ends

@pytest.mark.parametrize('is_cut', [False, True])
def test_killed(data, frames, tmp_path, capsys, is_cut):
    """With the last line as it was written, and cut short."""
    expected = whole(data, tmp_path, *STRIDE)
    frames.piped(BAD)
    folder = tmp_path / 'parts'
    process = start_main(argv(data, folder, *STRIDE), tmp_path / 'output')
    wait_for(lambda: len(kept(folder)) >= 2)
    process.kill()
    process.join()
    done = all_done = kept(folder)
    if is_cut:
        path, = folder.glob('val.partial.*')
        path.write_bytes(path.read_bytes()[:-9])
        done = done[:-1]
    # What was cut may not spoil what the next run adds, which ends too.
    frames.gone(done)
    frames.broken('blue_5')
    assert run_main(argv(data, folder, *STRIDE)) == 2
    more_done = kept_by_lines(folder)
    assert {*all_done, BAD} <= more_done
    frames.gone(more_done)
    capsys.readouterr()
    assert run_main(argv(data, folder, *STRIDE)) == 0
    assert f'{len(more_done)} of 6 videos are taken over' in capsys.readouterr().out
    assert (folder / 'val.json').read_text() == expected


def kept_by_lines(folder):
    """The same as `kept`, where lines may be cut short."""
    path, = folder.glob('val.partial.*')
    done = set()
    for line in path.read_text().splitlines()[1:]:
        try:
            done.add(json.loads(line)['video'])
        except ValueError:
            continue
    return done


@pytest.mark.parametrize('signum', [signal.SIGTERM, signal.SIGINT])
def test_stopped(data, frames, tmp_path, signum):
    expected = whole(data, tmp_path, *STRIDE)
    give = frames.piped(BAD)
    folder = tmp_path / 'parts'
    process = start_main(argv(data, folder, *STRIDE), tmp_path / 'output')
    wait_for(lambda: len(kept(folder)) >= 2)
    os.kill(process.pid, signum)
    give()
    process.join(LIMIT_SEC)
    assert process.exitcode == 128 + signum
    line = (tmp_path / 'output').read_text().splitlines()[-1]
    assert line == f'stopped by {signum.name}; the same command goes on'
    frames.gone(kept(folder))
    assert run_main(argv(data, folder, *STRIDE)) == 0
    assert (folder / 'val.json').read_text() == expected


def start_two(data, folder, output, *more):
    return start_ranks(2, argv(data, folder, *more), output)


# Batches of one window, so that two processes have a share each.
SHARED = (*STRIDE, '--inference_batch_size', 1, '--output_features', 'f.h5')


def test_two_processes_then_one(data, frames, tmp_path, capsys):
    expected = whole(data, tmp_path, *SHARED)
    features = read_features(data.root / 'f.h5').features
    frames.piped(BAD)
    folder = tmp_path / 'parts'
    processes = start_two(data, folder, tmp_path / 'output', *SHARED)
    wait_for(lambda: len([path for path in folder.glob('val.partial.*')
                          if path.read_text().count('\n') > 1]) == 2)
    for process in processes:
        process.kill()
        process.join()
    done = kept(folder)
    assert 2 <= len(done) < 6
    frames.gone(done)
    assert run_main(argv(data, folder, *SHARED)) == 0
    assert f'{len(done)} of 6 videos are taken over' in capsys.readouterr().out
    assert (folder / 'val.json').read_text() == expected
    assert np.array_equal(read_features(data.root / 'f.h5').features, features)
    assert names(folder) == ['val.json']


def test_two_processes_stop_together(data, frames, tmp_path):
    """The one that has nothing left to do as well."""
    give = frames.piped(BAD)
    folder = tmp_path / 'parts'
    processes = start_two(data, folder, tmp_path / 'output', *SHARED)
    wait_for(lambda: len(kept(folder)) >= 4)
    for process in processes:
        os.kill(process.pid, signal.SIGTERM)
    give()
    for process in processes:
        process.join(LIMIT_SEC)
    output = (tmp_path / 'output').read_text()
    assert [process.exitcode for process in processes] == [143, 143], output
    assert output.count('stopped by SIGTERM; the same command goes on') == 1
    assert 'Traceback' not in output and not (folder / 'val.json').exists()


def test_one_process_then_two(data, frames, tmp_path):
    expected = whole(data, tmp_path, *SHARED)
    features = read_features(data.root / 'f.h5').features
    (data.root / 'f.h5').unlink()
    folder = tmp_path / 'parts'
    broken_off(data, frames, folder, *SHARED)
    processes = start_two(data, folder, tmp_path / 'output', *SHARED)
    for process in processes:
        process.join()
    output = (tmp_path / 'output').read_text()
    assert [process.exitcode for process in processes] == [0, 0], output
    assert output.count('are taken over') == 1
    assert (folder / 'val.json').read_text() == expected
    assert np.array_equal(read_features(data.root / 'f.h5').features, features)
    assert names(folder) == ['val.json']


def test_a_training_before_it_is_resumed(data, frames, tmp_path, capsys):
    """The weights are those at its end, so its inference goes on as well."""
    command = data.argv(tmp_path, '--no_val', '--inference', *STRIDE, '--n_epochs', 1,
                        '--inference_batch_size', 4, '--no-check_paths')
    frames.broken(BAD)
    assert run_main(command) == 2
    frames.gone(kept(tmp_path))
    capsys.readouterr()
    assert run_main([*command, '--resume_path', 'auto']) == 0
    assert 'of 6 videos are taken over' in capsys.readouterr().out


def test_a_new_training_sets_them_aside(data, frames, tmp_path):
    command = data.argv(tmp_path, '--no_val', '--inference', *STRIDE, '--n_epochs', 1,
                        '--inference_batch_size', 4, '--no-check_paths')
    frames.broken(BAD)
    assert run_main(command) == 2
    done = kept(tmp_path)
    frames.mend()
    assert run_main(command) == 0
    assert done and kept(tmp_path / 'earlier_1') == done and not kept(tmp_path)


# ---------------------------------------------------------------- what is not taken over

def test_other_settings_begin_afresh(data, frames, tmp_path, capsys):
    """What the first left stays, for when its settings come back."""
    others = ('--inference_stride', 4)
    expected, of_others = (whole(data, tmp_path / str(i), *flags)
                           for i, flags in enumerate((STRIDE, others)))
    folder = tmp_path / 'parts'
    done = broken_off(data, frames, folder, *STRIDE)
    frames.mend()
    capsys.readouterr()
    assert run_main(argv(data, folder, *others)) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if 'begins afresh' in line]
    assert len(said) == 1 and '(inference_stride 3, here 4)' in said[0]
    assert (folder / 'val.json').read_text() == of_others
    assert kept(folder) == done
    frames.gone(done)
    assert run_main(argv(data, folder, *STRIDE)) == 0
    assert (folder / 'val.json').read_text() == expected


def test_other_weights_and_videos_begin_afresh(data, frames, tmp_path, capsys):
    broken_off(data, frames, tmp_path, *STRIDE)
    frames.mend()
    annotation = data.read()
    annotation['database']['blue_4']['annotations']['segment'][1] -= 1
    (data.root / 'shorter.json').write_text(json.dumps(annotation))
    more = ('--annotation_path', 'shorter.json', '--pretrain_path', 'weights/save_1.pth')
    command = argv(data, tmp_path, *STRIDE, *more)
    at = command.index('--resume_path')
    del command[at:at + 2]
    assert run_main(command) == 0
    assert '(other videos; other weights)' in capsys.readouterr().out


OPTS = parse_opts(['--video_path', 'jpg', '--annotation_path', 'a.json', '--result_path', 'r',
                   '--model_depth', '10', '--resnet_widen_factor', '.125'])
# Another value of each flag of inference; one that is added there is to have one here.
OTHERS = {'file_type': 'hdf5', 'fast_decode': True, 'exact_pixels': True, 'inference_stride': 8,
          'inference_crop': 'nocrop', 'inference_views': (10, 3), 'inference_no_average': True,
          'output_topk': 0, 'feature_module': 'layer4', 'multi_label': True, 'precision': 'bf16',
          'tf32': True, 'backend': 'openvino'}
# Where frames and results lie, and whether there are to be features.
PLACES = {'video_path', 'result_path', 'inference_subset', 'output_features'}


@pytest.fixture(scope='module')
def found_in(data):
    """Videos and a network."""
    records, _ = label_list_records(read_annotation(data.annotation_path), 'validation')
    return records, build_network(OPTS)


def another(value):
    """A value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, Path):
        return value / 'other'
    return [*value, 1] if isinstance(value, list) else f'other {value}'


def test_all_flags_of_inference_have_another_value_here():
    assert OTHERS.keys() == set(INFERENCE_FLAGS)


@pytest.mark.parametrize('flag', sorted(vars(OPTS).keys() - {'given'}))
def test_flags_that_decide_results_are_compared_and_no_others(found_in, tmp_path, flag):
    opts = replace(OPTS, result_path=tmp_path)
    value = getattr(opts, flag)
    other = OTHERS.get(flag, another(value))
    with partial_results(opts, World(), *found_in) as partial:
        partial.add('red_4', {'result': []})
    assert partial_results(opts, World(), *found_in).read().keys() == {'red_4'}
    found = partial_results(replace(opts, **{flag: other}), World(), *found_in)
    if flag in {*OTHERS, *NETWORK_FLAGS, *CLIP_FLAGS, *PLACES}:
        assert not found.read()
    else:
        assert found.read().keys() == {'red_4'} and not found.others()
    if flag in OTHERS:
        said = list(other) if isinstance(other, tuple) else other  # as JSON has it
        assert f'({flag} {value}, here {said})' in found.others()


def test_a_finished_inference_is_done_again(data, frames, tmp_path, capsys):
    expected = whole(data, tmp_path, *STRIDE)
    frames.broken(BAD)
    assert run_main(argv(data, tmp_path / 'whole', *STRIDE)) == 2
    frames.mend()
    assert run_main(argv(data, tmp_path / 'whole', *STRIDE)) == 0
    assert (tmp_path / 'whole' / 'val.json').read_text() == expected


def as_folder(path):
    path.unlink()
    path.mkdir()


def as_loop(path):
    path.unlink()
    path.symlink_to(path.name)


@pytest.mark.parametrize('spoil, said', [
    (as_folder, 'Is a directory'), (as_loop, 'Too many levels of symbolic links'),
    pytest.param(lambda path: path.chmod(0), 'Permission denied); mend its permissions, or move',
                 marks=pytest.mark.skipif(os.geteuid() == 0, reason='root may read all files'))])
def test_files_that_cannot_be_read(data, frames, tmp_path, capsys, spoil, said):
    """One sentence names the file, what is wrong and the cure, which helps."""
    broken_off(data, frames, tmp_path / 'parts', *STRIDE)
    frames.mend()
    path, = (tmp_path / 'parts').glob('val.partial.*')
    spoil(path)
    capsys.readouterr()
    assert run_main(argv(data, tmp_path / 'parts', *STRIDE)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'error: {path}: cannot be read ({said}')
    assert error.endswith('move it away to begin afresh')
    assert ('permissions' in error) == ('permissions' in said)
    path.rename(tmp_path / 'away')
    assert run_main(argv(data, tmp_path / 'parts', *STRIDE)) == 0
    assert names(tmp_path / 'parts') == ['val.json']


def test_a_full_disk(data, tmp_path):
    """What cannot be kept is only said: the inference goes on to its end."""
    more = ('--inference_stride', 1, '--inference_no_average')
    expected = whole(data, tmp_path, *more)
    process = start_main(argv(data, tmp_path / 'full', *more), tmp_path / 'output',
                         file_limit=len(expected) + 100)
    process.join()
    output = (tmp_path / 'output').read_text()
    assert process.exitcode == 0, output
    assert output.count('are not kept from now on (File too large); the run goes on') == 1
    assert (tmp_path / 'full' / 'val.json').read_text() == expected
