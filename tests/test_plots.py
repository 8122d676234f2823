"""Pictures of runs and of results: what is drawn, and what is said where nothing can be."""

import numpy as np
import pytest
from PIL import Image

from errors import InputError
from tests.tiny_data import run_main
from util_scripts import plot_log


@pytest.fixture(scope='module')
def result_path(tiny_data):
    """The folder of a run of one epoch, with results of its validation videos."""
    assert run_main(tiny_data.argv('plotted', '--n_epochs', 1, '--inference')) == 0
    return tiny_data.root / 'plotted'


def is_picture(path):
    """Whether a file is a picture with more than one colour in it."""
    pixels = np.asarray(Image.open(path).convert('RGB'))
    return min(pixels.shape[:2]) > 200 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 10


# ---------------------------------------------------------------- logs

def test_one_run_and_several(result_path, tmp_path, capsys):
    plot_log.main([str(result_path)])
    assert is_picture(result_path / 'log.png')
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'val.log').write_text('epoch\tloss\tacc\n1\t2.5\t0.25\n2\tnan\t0.5\n')
    plot_log.main([str(result_path), str(other), '--output', str(tmp_path / 'both.png')])
    assert is_picture(tmp_path / 'both.png')
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / 'both.png')


def test_names_tell_runs_apart():
    assert plot_log.run_names(['/x/a', '/x/b']) == ['a', 'b']
    assert plot_log.run_names(['/x/a/results', '/x/b/results']) == ['a/results', 'b/results']


@pytest.mark.parametrize('log, said', [(None, 'no epoch in'), ('epoch\tloss\n', 'no epoch in'),
                                       ('epoch\tloss\n1\tx\n', 'not a log')])
def test_no_log_to_draw(tmp_path, log, said):
    if log:
        (tmp_path / 'train.log').write_text(log)
    with pytest.raises(InputError, match=said):
        plot_log.main([str(tmp_path)])
