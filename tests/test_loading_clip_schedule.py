"""Training on small clips first: which clips, batches and rates, resumed and in processes."""

import pytest
import torch

import weights
from datasets.loading import ClipSchedule
from opts import parse_opts
from tests.processes import run_ranks, same_state
from tests.test_training import log_rows, state_of
from tests.tiny_data import loader_of, run_main, states_of

SCHEDULE = ('--clip_schedule', '4x32@1', '8x32@1', '8x48@2')


def argv(data, folder, *more):
    """argv of the tiny data without what the schedule says."""
    words = data.argv(folder, '--batch_size', 3, '--no_val', *more)
    for flag in ('--sample_size', '--sample_duration', '--n_epochs'):
        place = words.index(flag)
        del words[place:place + 2]
    return [*words, *SCHEDULE]


def test_each_phase_has_its_clips_and_batches(tiny_data, capsys):
    opts = parse_opts(argv(tiny_data, 'unused'))
    assert (opts.sample_duration, opts.sample_size, opts.n_epochs) == (8, 48, 4)
    loader = loader_of(tiny_data, 'train', '--batch_size', 3, '--sample_size', 48,
                       '--sample_duration', 8)
    schedule = ClipSchedule(loader, opts)
    shapes, n_before = [], 0
    for epoch in range(1, 5):
        loader = schedule.at(epoch)
        assert schedule.n_batches_before(epoch) == n_before
        n_before += len(loader)
        loader.batch_sampler.set_position(epoch)
        batches = list(loader)
        assert sorted(video for batch in batches for video in batch.videos.tolist()) == [*range(12)]
        shapes.append(batches[0].clips.shape)
    # 3 clips of 8x48x48 have the pixels of 13.5 of 4x32x32, of which there are 12.
    assert shapes == [(12, 3, 4, 32, 32), (6, 3, 8, 32, 32), (3, 3, 8, 48, 48),
                      (3, 3, 8, 48, 48)]
    assert [schedule.batch_factor(epoch) for epoch in range(1, 5)] == [4, 2, 1, 1]


@pytest.mark.parametrize('optimizer, power', [('sgd', 1), ('adamw', 0.5)])
def test_the_rate_grows_with_the_batch(tiny_data, tmp_path, capsys, optimizer, power):
    assert run_main(argv(tiny_data, tmp_path, '--optimizer', optimizer, '--learning_rate',
                         0.001)) == 0
    assert 'epochs 1 to 1: clips of 4 frames of 32x32, 1 batches of 12' in capsys.readouterr().out
    rows = log_rows(tmp_path)
    assert [float(row['lr']) for row in rows] == pytest.approx(
        [0.001 * factor ** power for factor in (4, 2, 2, *[1] * 8)], rel=1e-6)
    assert [row['iter'] for row in rows] == [str(number) for number in range(1, 12)]
    file = state_of(tmp_path, 4)
    assert file['clip_options']['sample_size'] == 48
    assert file['optimizer']['param_groups'][0]['initial_lr'] == 0.001


@pytest.mark.slow
def test_resumed_in_any_phase_it_ends_the_same(tiny_data, tmp_path, monkeypatch):
    flags = ('--lr_scheduler', 'cosine', '--warmup_epochs', 1.5, '--ema_decay', 0.5)
    saved = states_of(argv(tiny_data, tmp_path / 'whole', *flags), tmp_path, monkeypatch)
    assert len(saved) == 11
    for number in (0, 1, 2, 7):
        folder = tmp_path / f'from_{number}'
        assert run_main(argv(tiny_data, folder, *flags, '--resume_path', saved[number])) == 0
        assert same_state(state_of(folder, 4), state_of(tmp_path / 'whole', 4)), number
    # All but the paths is in the file, too.
    assert run_main(['--root_path', tiny_data.root, '--video_path', 'jpg', '--annotation_path',
                     'annotation.json', '--result_path', tmp_path / 'paths', '--n_threads', 0,
                     '--no_cuda', '--no_val', '--checkpoint', 1, '--resume_path',
                     tmp_path / 'whole' / 'save_1.pth']) == 0
    assert same_state(state_of(tmp_path / 'paths', 4), state_of(tmp_path / 'whole', 4))


@pytest.mark.slow
def test_loader_processes_change_nothing(tiny_data, tmp_path):
    folders = {n: tmp_path / str(n) for n in (0, 2)}
    for n, folder in folders.items():
        assert run_main(argv(tiny_data, folder, '--n_threads', n)) == 0
    assert same_state(*(state_of(folder, 4) for folder in folders.values()))


@pytest.mark.slow
@pytest.mark.parametrize('n_processes', [2, 3])
def test_several_processes_train_as_one(tiny_data, tmp_path, pytestconfig, n_processes):
    """Of the batches of the last phase, of 3 clips, one of two processes has two."""
    if n_processes == 3 and not pytestconfig.getoption('deep'):
        pytest.skip('two share more unevenly; add --deep')
    assert run_main(argv(tiny_data, tmp_path / 'first')) == 0
    flags = ('--pretrain_path', tmp_path / 'first' / 'save_4.pth', '--freeze_bn',
             '--learning_rate', 0.001)
    assert run_main(argv(tiny_data, tmp_path / 'one', *flags)) == 0
    command = argv(tiny_data, tmp_path / 'all', *flags)
    status, said = run_ranks(n_processes, command, tmp_path / 'output')
    assert status == [0] * n_processes, said
    one, several = (state_of(tmp_path / name, 4)['state_dict'] for name in ('one', 'all'))
    for name, value in one.items():
        torch.testing.assert_close(several[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('flags, words', [
    (('--n_epochs', 7), '--clip_schedule has 4 epochs, and --n_epochs is 7'),
    (('--sample_size', 64), 'ends with clips of 8x48'),
    (('--clip_schedule', '8x64'), "'8x64' is not FRAMESxPIXELS@EPOCHS"),
    (('--clip_schedule', '8x64@0'), "'8x64@0' is not FRAMESxPIXELS@EPOCHS"),
    (('--clip_schedule', '16x64@1', '8x64@1'), 'larger clips than its last')])
def test_schedules_that_contradict(tiny_data, tmp_path, capsys, flags, words):
    assert run_main([*argv(tiny_data, tmp_path), *flags]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and words in error


def test_a_schedule_is_taken_from_a_file_and_may_grow(tiny_data, tmp_path, capsys):
    assert run_main(argv(tiny_data, tmp_path, '--learning_rate', 0.001)) == 0
    more = argv(tiny_data, tmp_path, '--learning_rate', 0.001, '--resume_path', 'auto')
    assert run_main([*more, '--clip_schedule', '4x32@1', '8x32@1', '8x48@3']) == 0
    assert weights.load(tmp_path / 'save_5.pth')['options']['n_epochs'] == 5
    assert len(log_rows(tmp_path)) == 15
