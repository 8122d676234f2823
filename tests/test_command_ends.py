"""How commands end: they say what they wrote and what comes next, and --quiet keeps that back."""

import json
import re
from pathlib import Path

import pytest

from runtime.output import MAX_NAMED, wrote
from tests.helpers import grey_frames, run_script, write_video
from tests.test_annotation_files import CASES, LISTS, make_frames, write_files
from tests.test_commands import COMMANDS
from tests.tiny_data import run_main

# Commands that write nothing but what they print, and so take no --quiet.
PRINT_ALONE = {'describe_checkpoint', 'eval_events', 'knn'}
# Commands whose end is tested where what they need is: servers, trainings, optional libraries.
ELSEWHERE = {'compare', 'demo', 'get_weights'}


class Made:
    """What the commands are given.

    data, run: a data set, and the result folder of a training on it
    """

    def __init__(self, folder, data):
        self.folder, self.data, self.run = folder, data, folder / 'run'
        assert run_main(data.argv(self.run, '--n_epochs', 1, '--inference', '--output_topk', 0,
                                  '--quiet')) == 0
        self.weights, self.results = self.run / 'save_1.pth', self.run / 'val.json'
        self.video = write_video(folder / 'videos/a/v_a.mp4', grey_frames(range(60, 84)))
        self.activitynet = folder / 'activitynet.json'
        self.activitynet.write_text(json.dumps({'database': {'a': {}}}))

    def lists(self, name):
        """Lists of a published data set, and the folder of its frames."""
        dst = self.folder / name
        if not dst.exists():
            make_frames(dst / 'jpg', CASES[name][0])
        return write_files(dst / 'lists', LISTS[name]), dst / 'jpg'


# Command -> what it is given, with a folder for what it writes.
WRITING = {
    'add_fps_into_activitynet_json': lambda made, out: [made.video.parent, made.activitynet,
                                                        out / 'a.json'],
    'benchmark': lambda made, out: [*made.data.argv(out), '--parts', 'loader', '--seconds', 0.01,
                                    '--json', out / 'a.json'],
    'check_data': lambda made, out: [*made.data.argv(out), '--page', out / 'a.html', '--save',
                                     out / 'a.txt'],
    'demo_videos': lambda made, out: [out, '--n_train', 1, '--n_val', 1],
    'eval_accuracy': lambda made, out: [made.data.annotation_path, made.results, '--save',
                                        '--subset', 'val'],
    'export': lambda made, out: [made.weights, out / 'a.safetensors'],
    'find_class_order': lambda made, out: [made.results, made.data.annotation_path, '--output',
                                           out / 'a.txt'],
    'folder_json': lambda made, out: [made.data.root / 'jpg', out / 'a.json'],
    'generate_flow_hdf5': lambda made, out: [made.folder / 'videos', out, 'ucf101', '--n_jobs', 1],
    'generate_video_hdf5': lambda made, out: [made.folder / 'videos', out, 'ucf101', '--n_jobs', 1],
    'generate_video_jpgs': lambda made, out: [made.folder / 'videos', out, 'ucf101', '--n_jobs', 1],
    'gradcam': lambda made, out: [made.video, '--weights', made.weights, '--no_cuda', '--output',
                                  out, '--npy'],
    'hmdb51_json': lambda made, out: [*made.lists('hmdb51'), out],
    'kinetics_json': lambda made, out: [made.lists('kinetics')[0], 700, made.lists('kinetics')[1],
                                        'jpg', out / 'a.json'],
    'mit_json': lambda made, out: [*made.lists('mit'), out / 'a.json'],
    'motion_tasks': lambda made, out: [made.data.root / 'jpg', out, '--speeds', 1, 2, '--n_frames',
                                       4],
    'networks_table': lambda made, out: ['--networks', 'resnet-10', '--sample_size', 32,
                                         '--sample_duration', 4, '--seconds', 0.01, '--output',
                                         out / 'a.md'],
    'plot_log': lambda made, out: [made.run, '--output', out / 'a.png'],
    'plot_results': lambda made, out: [made.results, made.data.annotation_path, '--subset', 'val',
                                       '--output', out],
    'predict': lambda made, out: [made.video, '--weights', made.weights, '--no_cuda', '--json',
                                  out / 'a.json', '--csv', out / 'a.csv', '--annotate',
                                  out / 'a.mp4'],
    'remove_dataparallel': lambda made, out: [made.weights, '--dst_file_path', out / 'a.pth'],
    'report': lambda made, out: [made.run, '--output', out / 'a.html'],
    'show_augmentations': lambda made, out: [made.video, '--output', out / 'a.png', '--n_draws', 1,
                                             '--sample_size', 32, '--sample_duration', 4],
    'ucf101_json': lambda made, out: [*made.lists('ucf101'), out],
}
# What is done next with pictures, tables and pages is plain.
LAST_OF_ALL = {'benchmark', 'check_data', 'eval_accuracy', 'gradcam', 'networks_table', 'plot_log',
               'plot_results', 'predict', 'show_augmentations'}
SLOW = {'check_data', 'demo_videos', 'gradcam', 'networks_table', 'plot_log', 'plot_results'}


@pytest.fixture(scope='module')
def made(tmp_path_factory, tiny_data):
    return Made(tmp_path_factory.mktemp('made'), tiny_data)


def test_all_commands_are_looked_at():
    assert WRITING.keys() | PRINT_ALONE | ELSEWHERE == set(COMMANDS)
    assert LAST_OF_ALL <= WRITING.keys()


def files_in(folder):
    return {path.relative_to(folder) for path in folder.rglob('*') if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize('command', [
    pytest.param(command, marks=[pytest.mark.slow] if command in SLOW else [])
    for command in WRITING])
def test_a_command_says_what_it_wrote_and_what_comes_next(made, tmp_path, command):
    done = run_script(command, *WRITING[command](made, tmp_path))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    if command not in LAST_OF_ALL:
        assert re.match(r'next: ..', lines.pop())
    named = re.fullmatch(r'written: (.+?)( \(.*\))?', lines[-1])
    assert named, done.stdout
    paths = [Path(path) for path in named[1].split(', ')]
    folder = made.run if command == 'eval_accuracy' else tmp_path
    assert all(path.exists() and path.is_relative_to(folder) for path in paths)
    # Nothing is left unsaid: each file is named, or in a folder that is.
    assert all(any((folder / file).is_relative_to(path) for path in paths)
               for file in files_in(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize('command', ['predict', 'gradcam', 'folder_json', 'generate_video_jpgs',
                                     'report', 'export', 'ucf101_json'])
def test_quiet_keeps_back_all_but_results(made, tmp_path, command):
    found = []
    for name, *flags in ('loud',), ('quiet', '--quiet'):
        (tmp_path / name).mkdir()
        done = run_script(command, *WRITING[command](made, tmp_path / name), *flags)
        assert done.returncode == 0, done.stderr
        found.append((files_in(tmp_path / name), {*done.stdout.splitlines()},
                      {*done.stderr.splitlines()}))
    (written, loud, warnings), (written_quietly, quiet, warnings_left) = found
    assert written and written == written_quietly
    # Of these only two say more than what they write; warnings stay.
    assert quiet < loud and bool(quiet) is (command in ('predict', 'gradcam'))
    assert warnings_left <= warnings and bool(warnings_left) is (command == 'ucf101_json')


def test_quiet_is_over_with_its_command_and_hides_no_error(made, tmp_path):
    argv = WRITING['folder_json'](made, tmp_path)
    assert not run_script('folder_json', *argv, '--quiet').stdout
    assert 'written: ' in run_script('folder_json', *argv).stdout
    done = run_script('folder_json', tmp_path / 'none', tmp_path / 'a.json', '--quiet')
    assert done.returncode == 2 and done.stderr.startswith('error: ')


@pytest.mark.parametrize('command', sorted(PRINT_ALONE))
def test_commands_that_print_results_alone_take_no_quiet(command):
    done = run_script(command, '--quiet')
    assert done.returncode == 2 and 'unknown argument --quiet' in done.stderr


def test_many_files_are_counted(tmp_path, capsys):
    wrote(*(tmp_path / 'a' / f'{number}.png' for number in range(MAX_NAMED)),
          tmp_path / 'b.csv', about='all', then='look')
    assert capsys.readouterr().out == (f'written: {MAX_NAMED + 1} files in {tmp_path} (all)\n'
                                       'next: look\n')
