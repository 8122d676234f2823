"""Logs of a run where they cannot be written: that is said, and the run goes on."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from runtime.logs import RunLog, TableLog
from tests.processes import start_main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
N_EPOCHS = 30


def _argv(data, folder, *more):
    """A training whose logs outgrow its opts.json."""
    return data.argv(folder, '--n_epochs', N_EPOCHS, '--batch_size', 2, '--no_val', '--checkpoint',
                     1000, *more)


@pytest.fixture(scope='module')
def whole(tiny_data, tmp_path_factory):
    """Result folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp('whole')
    process = start_main(_argv(tiny_data, folder), folder / 'output')
    process.join()
    assert process.exitcode == 0
    return folder


def _rows(folder, name='train_batch.log'):
    return (folder / name).read_text().splitlines(keepends=True)


def _run(data, folder, *more, file_limit):
    """(lines of output before the last, the last) of a training that can save no checkpoint, which
    ends all the same."""
    process = start_main(_argv(data, folder, *more), folder / 'output', file_limit=file_limit)
    process.join()
    *lines, last = (folder / 'output').read_text().splitlines()
    assert process.exitcode == 1 and any(f'epoch {N_EPOCHS}/{N_EPOCHS}' in line for line in lines)
    warnings = [line for line in lines if line.startswith('warning: ')]
    assert len(warnings) == 2, warnings  # one of logs, and one of the checkpoint
    assert 'the checkpoint cannot be written' in warnings[-1]
    return warnings[0], last


def test_rows_on_a_full_disk(tiny_data, tmp_path, whole):
    first, last = _run(tiny_data, tmp_path, file_limit=4000)
    assert first.startswith(f'warning: {tmp_path / "train_batch.log"}: cannot be written (File '
                            'too large); what cannot be logged is lost; the run goes on')
    ours, expected = _rows(tmp_path), _rows(whole)
    assert [row for row in expected if row in ours] == ours and 50 < len(ours) < len(expected)
    assert last == (f'warning: {tmp_path}: could not be written and are lost: '
                    f'{len(expected) - len(ours)} rows of train_batch.log')
    assert _rows(tmp_path, 'train.log') == _rows(whole, 'train.log')


@pytest.mark.parametrize('file_limit', [4000, 50_000], ids=['the first picture', 'later'])
def test_tensorboard_on_a_full_disk(tiny_data, tmp_path, file_limit):
    """The thread of its writer ends, which neither stops the run nor keeps it from ending."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    first, last = _run(tiny_data, tmp_path, '--tensorboard', file_limit=file_limit)
    assert 'cannot be written (File too large); ' in first
    assert last.endswith('events of TensorBoard')
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    steps = []
    if 'train_batch/loss' in events.Tags()['scalars']:
        steps = [event.step for event in events.Scalars('train_batch/loss')]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) < 6 * N_EPOCHS


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='needs a file that is always full')
def test_rows_of_a_disk_that_is_full_for_a_while(tmp_path):
    heard, path = [], tmp_path / 'a.log'
    table = TableLog(path, ['epoch', 'loss'], lambda *what: heard.append(what))

    def write(*epochs):
        for epoch in epochs:
            table.write(epoch=epoch, loss=torch.tensor(0.5))
        table.flush()
    write(1)
    path.rename(tmp_path / 'away')
    path.symlink_to('/dev/full')
    write(2, 3)
    write()
    (tmp_path / 'away').rename(path)
    write(4)
    assert [(path.name, error.strerror) for path, error in heard] == [
        ('a.log', 'No space left on device')] and table.n_lost == 2
    assert path.read_text() == 'epoch\tloss\n1\t0.5\n4\t0.5\n'


def test_events_where_there_is_no_folder(tmp_path, capsys):
    """As of a storage that went away; the log has its own say, and goes on."""
    (tmp_path / 'file').touch()
    log = RunLog(tmp_path / 'file' / 'gone', tensorboard=True)
    log.options({'lr': 0.1})
    log.clips(torch.zeros(1, 3, 2, 4, 4, dtype=torch.uint8), ['red'], 1)
    log.close()
    first, last = capsys.readouterr().err.splitlines()
    assert f'{tmp_path / "file" / "gone"}: cannot be written (' in first
    assert last.endswith('could not be written and are lost: events of TensorBoard')


def test_logs_and_files_import_without_torch():
    code = ('import sys; import runtime.files, runtime.logs, runtime.profiler, runtime.errors; '
            'sys.exit("torch" in sys.modules or "tensorboard" in sys.modules)')
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT).returncode == 0
