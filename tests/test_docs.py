"""README, docs/ and the other pages are true: snippets run; commands, flags and files exist."""

import contextlib
import functools
import importlib
import io
import re
import shlex

import pytest

import main
from runtime.arguments import opposite
from tests.helpers import ROOT, grey_frames, write_video
from tests.tiny_data import run_main

PAGES = [ROOT / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')]
PAGES += sorted((ROOT / 'docs').glob('*.md'))
README = ROOT / 'README.md'
# Flags of programs that are not ours: torchrun, SLURM, pytest, pip, docker, make, git.
FOREIGN = {'--nproc_per_node', '--nnodes', '--rdzv_backend', '--rdzv_endpoint', '--max-restarts',
           '--signal', '--requeue', '--kills', '--index-url', '--shm-size', '--rm',
           '--gpus', '--user', '--build-arg', '--durations', '--deep'}
FLAG = re.compile(r'(?<![\w-])--[a-z]\w*(?:-\w+)*')
COMMAND = re.compile(r'(main\.py|-m util_scripts\.([a-z]\w*))((?:[^`\n\\#]|\\\n)*)')
SNIPPET = re.compile(r'```python\n(.*?)```', re.DOTALL)
FENCED = re.compile(r'^```.*?^```', re.DOTALL | re.MULTILINE)
LINK = re.compile(r'\[[^\]]+\]\(([^)\s]*)\)')
CODE = re.compile(r'`([^`\n]+)`')
FILE = re.compile(r'[\w./-]+\.(?:py|md|cfg|cff|yml|yaml|toml)|requirements[\w-]*\.txt|Makefile')
COMMANDS = [path.stem for path in sorted((ROOT / 'util_scripts').glob('*.py'))
            if "__name__ == '__main__'" in path.read_text()]
# A run of the size that README shows takes hours; these make it seconds.
SMALL = ['--n_epochs', '1', '--resnet_widen_factor', '0.125', '--sample_size', '32',
         '--sample_duration', '8', '--n_threads', '0', '--no_cuda']

each_page = pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)


@functools.cache
def flags_of(name):
    """The flags in the help of main.py (`main`) or of a command in util_scripts/, and opposites."""
    command = main if name == 'main' else importlib.import_module(f'util_scripts.{name}')
    with contextlib.redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit) as ended:
        command.main(['--help'])
    assert not ended.value.code
    flags = set(FLAG.findall(shown.getvalue()))
    return flags | set(map(opposite, flags))


def anchors(page):
    """What the headings of a page are linked by: lower case, hyphens, no punctuation."""
    headings = re.findall(r'^#+ (.*)$', FENCED.sub('', page.read_text()), re.MULTILINE)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


def section(page, heading):
    """The text below a heading of the second level."""
    return re.search(rf'^## {heading}\n(.*?)(?=^## |\Z)', page.read_text(),
                     re.DOTALL | re.MULTILINE)[1]


# ---------------------------------------------------------------- all pages

@pytest.mark.parametrize('page', [page for page in PAGES if SNIPPET.search(page.read_text())],
                         ids=lambda page: page.name)
def test_snippets_run(page, tmp_path, tiny_data, monkeypatch):
    assert run_main(tiny_data.argv(tmp_path / 'results', '--n_epochs', 1)) == 0
    (tmp_path / 'results' / 'save_1.pth').rename(tmp_path / 'results' / 'save_200.pth')
    write_video(tmp_path / 'clips' / 'a.mp4', grey_frames(range(0, 200, 5)))
    monkeypatch.chdir(tmp_path)
    names = {}
    for snippet in SNIPPET.findall(page.read_text()):
        exec(snippet, names)


@each_page
def test_commands_have_the_flags_they_are_given(page):
    for name, script, rest in COMMAND.findall(page.read_text()):
        unknown = set(FLAG.findall(rest)) - flags_of(script or 'main')
        assert not unknown, f'{name} has no {unknown}'


@each_page
def test_every_flag_exists(page):
    known = FOREIGN.union(*map(flags_of, ['main', *COMMANDS]))
    assert not set(FLAG.findall(page.read_text())) - known


@each_page
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(FENCED.sub('', page.read_text())):
        if not re.match(r'https?://', link):
            name, _, anchor = link.partition('#')
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@each_page
def test_every_file_that_is_named_exists(page):
    """Files of the repository, in code spans; NAME in capitals stands for any."""
    for span in CODE.findall(FENCED.sub('', page.read_text())):
        if FILE.fullmatch(span) and 'NAME' not in span:
            assert (ROOT / span).exists(), span


def test_every_command_is_named_somewhere():
    text = ''.join(page.read_text() for page in PAGES)
    assert not [name for name in COMMANDS if not re.search(rf'\b{name}\b', text)]


def test_every_page_is_linked_from_readme():
    links = LINK.findall(README.read_text())
    targets = {(ROOT / link.partition('#')[0]).resolve() for link in links}
    assert set(PAGES) - {README} <= targets


# ---------------------------------------------------------------- README

def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 220


def test_the_file_tree_is_complete():
    tree = FENCED.search(section(README, 'What lies where'))[0].splitlines()[1:-1]
    named = [line.split()[0] for line in tree]
    assert all(len(line.split()) > 1 for line in tree), 'each has a line'
    assert len(named) == len(set(named))
    there = {path.name for path in ROOT.glob('*.py')} | {'docs/', 'recipes/'}
    there |= {f'{path.parent.name}/' for path in ROOT.glob('*/__init__.py')}
    assert set(named) == there


@pytest.mark.slow
def test_the_run_on_your_own_videos_goes_through(tmp_path, monkeypatch):
    for name, step in (('run', 5), ('jump', 9)):
        for i in range(10):
            write_video(tmp_path / f'my_videos/{name}/{name}_{i}.mp4',
                        grey_frames([(i + step * j) % 250 for j in range(12)]))
    write_video(tmp_path / 'new.mp4', grey_frames(range(40)))
    monkeypatch.chdir(tmp_path)
    text = section(README, 'Your own folder of videos')
    blocks = re.findall(r'```bash\n(.*?)```', text, re.DOTALL)
    lines = ''.join(blocks).replace('\\\n', ' ').splitlines()
    assert len(lines) >= 8
    for line in lines:
        python, *argv = shlex.split(line)
        assert python == 'python'
        if argv[0] == 'main.py':
            assert run_main(argv[1:] + SMALL) == 0, line
        else:
            assert argv[0] == '-m'
            assert not importlib.import_module(argv[1]).main(argv[2:]), line
    assert (tmp_path / 'my_data/results/save_best.pth').is_file()


# ---------------------------------------------------------------- CITATION.cff

def read_cff(lines, indent=0):
    """The part of YAML that CITATION.cff is written in: nested mappings and lists of mappings.

    Takes what is indented by `indent` from the front of a list of lines.
    """
    if lines[0].startswith(' ' * indent + '- '):
        items = []
        while lines and lines[0].startswith(' ' * indent + '- '):
            lines[0] = lines[0].replace('- ', '  ', 1)
            items.append(read_cff(lines, indent + 2))
        return items
    found = {}
    while lines and re.match(rf' {{{indent}}}[a-z]', lines[0]):
        key, value = re.fullmatch(r'([a-z-]+):(?: (\S.*))?', lines.pop(0).strip()).groups()
        assert key not in found
        # A plain scalar cannot hold these.
        assert value is None or not re.search(r': | #|^[\[{\'"&*!|>%@`]', value), value
        found[key] = read_cff(lines, indent + 2) if value is None else value
    return found


def test_citation_names_both_papers():
    lines = (ROOT / 'CITATION.cff').read_text().splitlines()
    cff = read_cff(lines)
    assert not lines
    assert cff['cff-version'] == '1.2.0' and cff['message'] and cff['title'] and cff['authors']
    papers = [cff['preferred-citation'], *cff['references']]
    for paper in papers:
        assert paper['type'] and paper['title'] and paper['year'].isdecimal()
        assert all(author['family-names'] for author in paper['authors'])
    counts = [(paper['year'], len(paper['authors'])) for paper in papers]
    assert counts == [('2018', 3), ('2020', 4)]
