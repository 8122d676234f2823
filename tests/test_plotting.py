"""Pictures of runs and of results: what is drawn, and what is said where nothing can be."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.tiny_data import run_main
from util_scripts import plot_log, plot_results
from util_scripts.helpers import plotting
from util_scripts.helpers.mistakes import spread
from util_scripts.helpers.plotting import (Clip, best_row, draw_classes, draw_clips, draw_confusion,
                                           draw_runs)
from util_scripts.helpers.run_logs import run_names


@pytest.fixture(scope='module')
def result_path(tiny_data):
    """The folder of a run of one epoch, with results of its validation videos."""
    assert run_main(tiny_data.argv('plotted', '--n_epochs', 1, '--inference')) == 0
    return tiny_data.root / 'plotted'


def is_picture(path):
    """Returns True if a file is a picture with more than ten colours in it."""
    with Image.open(path) as picture:
        return min(picture.size) > 150 and picture.convert('RGB').getcolors(10) is None


# ---------------------------------------------------------------- logs

@pytest.mark.slow
def test_one_run_and_several(result_path, tmp_path, capsys):
    plot_log.main([str(result_path)])
    assert is_picture(result_path / 'curves.png')
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'val.log').write_text('epoch\tloss\tacc\n1\t2.5\t0.25\n2\tnan\t0.5\n')
    plot_log.main([str(result_path), str(other), '--output', str(tmp_path / 'both.png')])
    assert is_picture(tmp_path / 'both.png')
    assert capsys.readouterr().out.splitlines()[-1] == f'written: {tmp_path / "both.png"}'


def test_names_tell_runs_apart():
    assert run_names(['/x/a', '/x/b']) == ['a', 'b']
    assert run_names(['/x/a/results', '/x/b/results']) == ['a/results', 'b/results']


# ---------------------------------------------------------------- results

@pytest.fixture
def mistaken(tiny_data, tmp_path):
    """A result file with one mistake, green_4 taken for blue."""
    best = {f'{name}_{i}': name for name in ('red', 'green', 'blue') for i in (4, 5)}
    best['green_4'] = 'blue'
    results = {video_id: [{'label': label, 'score': 0.75}] for video_id, label in best.items()}
    (tmp_path / 'val.json').write_text(json.dumps({'results': results}))
    return tmp_path / 'val.json'


@pytest.mark.slow
def test_pictures_of_results(tiny_data, mistaken, capsys):
    assert not plot_results.main([str(mistaken), str(tiny_data.annotation_path), '--video_path',
                                  str(tiny_data.root / 'jpg')])
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ['most confused:', '  green taken for blue (1 of 2 videos)']
    for name in ('confusion', 'classes', 'mistakes'):
        assert str(mistaken.with_name(f'{name}.png')) in lines[-1].removeprefix('written: ')
        assert is_picture(mistaken.with_name(f'{name}.png'))


def test_results_of_a_run(tiny_data, result_path, tmp_path, capsys):
    assert not plot_results.main([str(result_path / 'val.json'), str(tiny_data.annotation_path),
                                  '--output', str(tmp_path / 'pictures'), '--groups', 'any.csv'])
    assert 'no mistakes are drawn, and --groups has no effect' in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / 'pictures').iterdir()) == [
        'classes.png', 'confusion.png']


def test_mistakes_are_of_many_recordings(tmp_path):
    names = ['a1', 'a2', 'a3', 'b1', 'c1', 'c2']
    mistakes = [(name, 'fall', 0.9 - 0.1 * i) for i, name in enumerate(names)]
    table = tmp_path / 'groups.csv'
    table.write_text('path,label,group\n' + ''.join(f'x/{n}.mp4,x,{n[0]}\n' for n in names))
    assert [name for name, *_ in spread(mistakes, table)] == ['a1', 'b1', 'c1', 'a2', 'c2', 'a3']
    of_ucf = [(f'v_Run_g{group:02}_c{clip:02}', 'fall', 0.5)
              for group, clip in [(1, 1), (1, 2), (2, 1)]]
    assert [name[-7:] for name, *_ in spread(of_ucf, None)] == ['g01_c01', 'g02_c01', 'g01_c02']


def test_pictures_take_any_names(tmp_path):
    """Without a formula between dollars, and without a word on letters that the font lacks."""
    names = ['$\\foo$', 'a\33[2J\nb', '\udcff', '日本', '$5', 'x' * 5000]
    counts = np.eye(len(names), dtype=int)
    draw_confusion(counts, names, tmp_path / 'confusion.png')
    draw_classes(counts, names, tmp_path / 'classes.png')
    frames = np.zeros((2, 16, 16, 3), np.uint8)
    draw_clips([Clip(frames, [1, 2], name, name, 0.5, name) for name in names],
               tmp_path / 'clips.png')
    assert len(list(tmp_path.iterdir())) == 3


def test_the_best_epoch():
    table = {'epoch': np.array([3., 4, 5]), 'acc': np.array([.9, .1, .2]),
             'video_top1': np.array([np.nan, .7, .7])}
    assert best_row({'validation': table}) == 1
    assert best_row({'training': table}) is None


@pytest.mark.parametrize('best', [1, 7, 14])
def test_what_is_said_of_the_best_epoch_is_beside_the_axis(tmp_path, monkeypatch, best):
    epochs = np.arange(1., 15)
    table = {'epoch': epochs, 'loss': np.exp(-epochs), 'acc': 0.01 + 0.01 * (epochs == best)}
    figures = []
    monkeypatch.setattr(plotting, 'save_figure', lambda figure, _: figures.append(figure))
    draw_runs({'': {'validation': table}}, tmp_path / 'a.png')
    figures[0].draw_without_rendering()
    for axes in figures[0].axes:
        text, = axes.texts
        box, inside = text.get_window_extent(), axes.get_window_extent()
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1 and text.get_text()[6:].startswith(
            f'{best}: ')
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1 + 5


@pytest.mark.slow
@pytest.mark.parametrize('n_classes', [2, 30, 200])
def test_few_classes_and_many(tmp_path, n_classes):
    counts = np.eye(n_classes, dtype=int) * 3
    counts[0] = 0  # a class without videos
    counts[1, 0] = 2
    names = [f'a class with number {number}' for number in range(n_classes)]
    draw_confusion(counts, names, tmp_path / 'confusion.png')
    draw_classes(counts, names, tmp_path / 'classes.png')
    assert is_picture(tmp_path / 'confusion.png') and is_picture(tmp_path / 'classes.png')
    with Image.open(tmp_path / 'confusion.png') as picture:
        assert 500 < max(picture.size) < 2400
    with Image.open(tmp_path / 'classes.png') as picture:
        assert max(picture.size) < 2500
    assert len(list(tmp_path.iterdir())) == 2
