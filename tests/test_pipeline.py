"""Frames of real clips through a trained network, by the command line, against recorded results."""

import csv
import json

import pytest

from tests.tiny_data import run_main

RUNS = ('center_16', 'center_8_windows', 'nocrop', 'activitynet_mean', 'duration_32_all_classes',
        'validation_3_clips', 'validation_5_clips')


@pytest.mark.golden
@pytest.mark.parametrize('name', RUNS)
def test_recorded_run(golden_dir, tmp_path, name):
    folder = golden_dir / 'pipeline'
    expected = json.loads((folder / 'expected.json').read_text())
    assert set(expected) == set(RUNS)
    argv = ['--root_path', folder, '--video_path', 'jpg', '--annotation_path', 'annotation.json',
            '--result_path', tmp_path, '--dataset', 'ucf101', '--n_classes', 6,
            '--resume_path', 'resnet-18-w0125.pth', '--model_depth', 18,
            '--resnet_widen_factor', 0.125, '--no_train', '--batch_size', 8, '--n_threads', 0,
            '--no_cuda', *expected[name]['flags']]
    assert run_main(argv) == 0
    if 'val_log' in expected[name]:
        with open(tmp_path / 'val.log') as file:
            row, = csv.DictReader(file, delimiter='\t')
        for column, value in expected[name]['val_log'].items():
            assert float(row[column]) == pytest.approx(value, abs=1e-3)
    else:
        found = json.loads((tmp_path / 'val.json').read_text())['results']
        wanted = expected[name]['result']['results']
        assert found.keys() == wanted.keys()
        for video_id, entries in wanted.items():
            _compare(found[video_id], entries)


def _compare(found, wanted):
    """Equal segments, scores within 1e-3; labels may swap where scores are within 2e-3."""
    if 'segment' in wanted[0]:
        assert [window['segment'] for window in found] == [window['segment'] for window in wanted]
        for window, other in zip(found, wanted):
            _compare(window['result'], other['result'])
        return
    scores = {row['label']: row['score'] for row in wanted}
    assert len(found) == len(wanted)
    for row, other in zip(found, wanted):
        assert row['score'] == pytest.approx(other['score'], abs=1e-3)
        assert scores.get(row['label'], other['score']) == pytest.approx(other['score'], abs=2e-3)
