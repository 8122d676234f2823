"""Pages on runs: their numbers, what stands in them as text alone, how they act in a browser."""

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from tests.helpers import run_script
from tests.tiny_data import CLASSES, run_main
from util_scripts import report
from util_scripts.helpers.charts import Curve, confusion_matrix, line_chart
from util_scripts.helpers.html_page import film, table, without_empty
from util_scripts.helpers.intervals import by_group, wilson
from util_scripts.helpers.report_data import command

BROWSER = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
               None)


class Page(html.parser.HTMLParser):
    """The tags of a page, and its text; fails where tags are not closed in order."""

    VOID = {'meta', 'img', 'br'}

    def __init__(self, content):
        super().__init__()
        self.tags, self.text, self._open = [], [], []
        self.feed(content)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] not in ('style', 'script'):
            self.text.append(data)


@pytest.fixture(scope='module')
def folder(tiny_data):
    """A run of two epochs whose results hold a mistake."""
    argv = tiny_data.argv('reported', '--n_epochs', 2, '--inference', '--output_topk', 0)
    assert run_main(argv) == 0
    folder = tiny_data.root / 'reported'
    data = json.loads((folder / 'val.json').read_text())
    for number, (video_id, entries) in enumerate(data['results'].items()):
        label = CLASSES[0] if number == 2 else video_id.split('_')[0]
        others = [{'label': name, 'score': 0.1} for name in CLASSES if name != label]
        data['results'][video_id] = [{'label': label, 'score': 0.8}, *others]
    assert [*data['results']][2].startswith('green')
    (folder / 'val.json').write_text(json.dumps(data))
    return folder


@pytest.fixture(scope='module')
def content(folder):
    report.main([str(folder)])
    return (folder / 'report.html').read_text()


# ---------------------------------------------------------------- what stands in it

def test_all_parts_are_there(content, folder):
    words = ' '.join(' '.join(Page(content).text).split())
    low, high = wilson(5, 6)
    for part in ('83.3 %', '5 of 6 videos', f'{100 * low:.1f} to {100 * high:.1f} %',
                 'Options that differ from the defaults', '--resnet_widen_factor', '0.125',
                 'Environment', 'torchvision', 'To do it again', 'Confusion matrix',
                 'said red (0.80)', 'Curves', 'learning rate'):
        assert part in words, part
    pages = [attributes for tag, attributes in Page(content).tags if tag == 'div'
             and 'film' in attributes.get('class', '')]
    assert len(pages) == 1 and 'data:image/jpeg' in pages[0]['style']


def test_the_command_does_it_again(folder, tmp_path):
    options = json.loads((folder / 'opts.json').read_text())
    words = command({**options, 'result_path': str(tmp_path / 'again')})
    assert words[:2] == ['python', 'main.py'] and run_main(words[2:]) == 0
    again = json.loads((tmp_path / 'again' / 'opts.json').read_text())
    for name, value in options.items():
        assert name in ('result_path', 'root_path') or again[name] == value, name
    assert ((folder / 'train.log').read_text() == (tmp_path / 'again' / 'train.log').read_text())


def test_nothing_is_fetched(content):
    for tag, attributes in Page(content).tags:
        assert 'src' not in attributes
        assert attributes.get('href', '#').startswith('#')
    assert not re.findall(r'url\((?!data:)', content) and '@import' not in content
    assert "default-src 'none'" in content


def test_text_of_data_stays_text(own_data, tmp_path, content):
    evil = '<img src=x onerror=alert(1)>"\'&</script>'
    annotation = own_data.read()
    annotation['labels'][0] = evil
    for entry in annotation['database'].values():
        if entry['annotations'].get('label') == 'red':
            entry['annotations']['label'] = evil
    own_data.write(annotation)
    folder = tmp_path / '<b>run&\33[2J\u202e'
    folder.mkdir()
    results = {video_id: [{'label': evil, 'score': 0.9}, {'label': 'blue', 'score': 0.1}]
               for video_id, entry in annotation['database'].items()
               if entry['subset'] == 'validation'}
    (folder / 'val.json').write_text(json.dumps({'results': results}))
    (folder / 'opts.json').write_text(json.dumps({
        'annotation_path': str(own_data.annotation_path), 'video_path': str(own_data.root / 'jpg'),
        'model': evil}))
    done = run_script('report', folder, '--output', tmp_path / 'out.html')
    assert done.returncode == 0, done.stderr
    page = Page((tmp_path / 'out.html').read_text())
    allowed = {tag for tag, _ in Page(content).tags}
    assert {tag for tag, _ in page.tags} <= allowed and 'b' not in allowed
    assert any(evil in part for part in page.text) and 'Report: <b>run&\\x1b[2J\\u202e' in page.text


def test_several_runs_and_runs_without_results(folder, tmp_path, capsys):
    bare = tmp_path / 'bare'
    bare.mkdir()
    (bare / 'val.log').write_text('epoch\tloss\tacc\tvideo_top1\n1\t2.5\t0.25\tnan\n'
                                  '2\tnan\t0.5\t1\n')
    report.main([str(folder), str(bare), '--output', str(tmp_path / 'two.html')])
    words = ' '.join(Page((tmp_path / 'two.html').read_text()).text)
    assert 'How bare was made' in words and 'Results of bare' not in words
    assert 'two.html' in capsys.readouterr().out


def test_runs_without_validation_show_their_training(tmp_path):
    """Nothing is drawn, named or explained that they have not."""
    for name in 'one', 'two':
        (tmp_path / name).mkdir()
        (tmp_path / name / 'train.log').write_text('epoch\tloss\tacc\tlr\tn_trained\n'
                                                   '1\t2.5\t0.25\t0.1\t33208008\n')
    for names in ['one'], ['one', 'two']:
        report.main([*(str(tmp_path / name) for name in names), '--output',
                     str(tmp_path / 'a.html')])
        content = (tmp_path / 'a.html').read_text()
        words = ' '.join(Page(content).text)
        for title in 'loss by epoch', 'clip accuracy by epoch':
            chart = re.search(f'aria-label="{title}".*?</svg>', content)[0]
            assert chart.count('class="dot') == len(names)
        assert 'best epoch' not in words and 'validation' not in words and '33208008' in words


def test_results_of_the_evaluation_that_the_end_of_a_training_names(folder, tmp_path):
    run = tmp_path / 'run'
    shutil.copytree(folder, run / 'evaluation')
    (run / 'evaluation' / 'train.log').rename(run / 'train.log')
    report.main([str(run)])
    words = ' '.join(Page((run / 'report.html').read_text()).text)
    assert 'Results of run' in words and 'Most confused' in words


def test_frames_that_are_not_there_are_said(folder, tmp_path, capsys):
    report.main([str(folder), '--video_path', str(tmp_path), '--output', str(tmp_path / 'a.html')])
    assert 'no thumbnails' in capsys.readouterr().err
    assert 'No pictures' in (tmp_path / 'a.html').read_text()


@pytest.mark.slow
def test_lists_of_labels(tmp_path):
    from tests.tiny_data import MultiLabelData
    data = MultiLabelData(tmp_path)
    assert run_main(data.argv('out', '--n_epochs', 1, '--inference', '--output_topk', 0)) == 0
    done = run_script('report', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    words = ' '.join(Page((tmp_path / 'out' / 'report.html').read_text()).text)
    assert 'Average precision by class' in words and 'Confusion' not in words


@pytest.mark.parametrize('name, text, said', [
    ('opts.json', '{"inference_subset": [1]}', 'its inference_subset is a value of type list'),
    ('train.log', 'loss\tacc\n1\t2\n', 'no column epoch')])
def test_files_of_a_run_that_are_wrong(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    done = run_script('report', tmp_path)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


# ---------------------------------------------------------------- numbers

def test_groups_that_are_alike_make_the_interval_wide(seed):
    """Of groups whose videos are all right or all wrong there are as many as groups, not videos."""
    rng = np.random.default_rng(seed)
    right = rng.random(40) < 0.6
    groups = np.arange(40).repeat(25)
    low, high = by_group(right.repeat(25).astype(float), groups)
    alone = wilson(int(right.sum()), 40)
    assert low <= right.mean() <= high
    assert high - low == pytest.approx(alone[1] - alone[0], rel=0.2)
    assert high - low > 3 * np.subtract(*wilson(int(right.sum()) * 25, 1000)[::-1])


def test_charts_of_odd_numbers():
    epochs = np.arange(1, 6.0)
    for values in ([1, np.nan, 2, 3, np.inf], [np.nan] * 5, [0, 0, 0, 0, 0], [1e-9, 1, 5, 1e4, 2]):
        for is_log in (False, True):
            chart = line_chart('a', [Curve('b', epochs, np.array(values, float), 0, 1)],
                               is_log=is_log)
            assert 'nan' not in chart.replace('epoch 2, nan', '') and 'inf"' not in chart
            Page(chart)
    Page(line_chart('one', [Curve('b', epochs[:1], np.array([0.5]), 3, 0)]))


def test_a_matrix_of_many_classes_is_a_picture():
    counts = np.eye(400, dtype=int)
    counts[3, 7] = 2
    names = [f'class {i}' for i in range(400)]
    drawn = confusion_matrix(counts, names)
    assert drawn.count('<rect') == 401 and 'class 3 taken for class 7: 2 of 3' in drawn
    assert '<td' in confusion_matrix(counts[:9, :9], names[:9])


# ---------------------------------------------------------------- in a browser

CLICKS = '''
<script>
const said = [], say = line => said.push(line);
const rows = () => [...document.querySelectorAll('table:has(th button) tbody tr')]
  .map(row => row.children[0].textContent).join(',');
const titles = document.querySelectorAll('th button');
say('first ' + rows());
titles[0].click(); say('by name ' + rows());
titles[0].click(); say('back ' + rows() + ' ' + titles[0].parentElement.getAttribute('aria-sort'));
titles[1].focus(); say('focus ' + (document.activeElement === titles[1]));
titles[1].click(); say('by accuracy ' + rows());
const pause = document.querySelector('[data-pause]'), film = document.querySelector('.film');
const state = () => getComputedStyle(film).animationPlayState + ' ' + pause.textContent;
say('film ' + state()); pause.click(); say('film ' + state());
say('wide ' + (document.documentElement.scrollWidth > innerWidth));
say('ground ' + getComputedStyle(document.body).backgroundColor);
for (const link of document.querySelectorAll('nav a'))
  say('link ' + (document.querySelector(link.getAttribute('href')) !== null));
document.title = JSON.stringify(said);
</script>'''


def in_browser(content, tmp_path, *flags):
    """What CLICKS says, in a page of a phone's width."""
    # The page itself lets nothing run but its own script.
    page = re.sub('<meta http-equiv[^>]*>', '', content)
    (tmp_path / 'clicked.html').write_text(page.replace('</body>', CLICKS + '</body>'))
    done = subprocess.run(
        [BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--window-size=500,900',
         f'--user-data-dir={tmp_path / "profile"}', '--dump-dom', *flags,
         (tmp_path / 'clicked.html').as_uri()], capture_output=True, text=True, timeout=120)
    title = re.search('<title>(.*?)</title>', done.stdout, re.DOTALL)
    return json.loads(html.unescape(title[1]))


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason='no chromium or chrome is installed')
def test_a_browser_sorts_pauses_and_fits(content, tmp_path):
    said = in_browser(content, tmp_path)
    # The worst class first.
    assert said[0] == 'first green,red,blue'
    assert said[1] == 'by name blue,green,red'
    assert said[2] == 'back red,green,blue descending'
    assert said[3:5] == ['focus true', 'by accuracy green,red,blue']
    assert said[5:7] == ['film running Pause pictures', 'film paused Play pictures']
    assert said[7] == 'wide false'
    assert said[8] == 'ground rgb(255, 255, 255)' and set(said[9:]) == {'link true'}
    dark = in_browser(content, tmp_path, '--blink-settings=preferredColorScheme=0')
    assert dark[8] == 'ground rgb(20, 23, 27)'
    calm = in_browser(content, tmp_path, '--force-prefers-reduced-motion')
    assert calm[5] == 'film paused Play pictures'


def test_parts_of_pages():
    assert table(['a<'], []) and '&lt;' in table(['a<'], [('<x>',)]) and '<x>' not in table(
        ['a'], [('<x>',)])
    assert without_empty(['a', 'b', 'c'], [(1, '', ''), ('', '', 0)]) == (
        ['a', 'c'], [[1, ''], ['', 0]])
    assert '<table class="stacked">' in table(['a'], [('b',)], is_stacked=True)
    assert 'class=long' in table(['a'], [('a sentence of more than a few words',)])
    assert 'class=long' not in table(['a'], [('/a/path/without/any/spaces/in/it',), ('a b',)])
    frames = np.zeros((4, 36, 48, 3), np.uint8)
    assert 'steps(4)' in film(frames, 'a') and '--length:640px' in film(frames, 'a')
