"""Every sentence of an InputError belongs to a case of the tests of advice, or says here why not.

A sentence is known by words that no other has: a case that asserts them follows its advice, since
tests/test_advice*.py compare each with the error that they provoke.
"""

import ast
from collections import Counter
from pathlib import Path

from tests.helpers import ROOT

ERRORS = ('InputError', 'AnnotationError', 'FrameError', 'CheckpointError', 'WeightsError',
          'NotFinite')
# What stands for a value in a sentence; so many characters in a row tell sentences apart.
VALUE, RUN = '\0', 10
# Words of sentences whose cases know them by words that others have too.
IN_SHORT = (
    'its classes are not the annotation', 'is no value of a flag', 'is not a value of it',
    '--help lists all flags', 'number of this node, from 0 to', ': ranks go from 0 to ',
    'is not empty and no demo made it', '); name another folder with --d', ' listed videos in it; ',
    'frames in it or below; give', ': its videos have several labels', 'no result of any of the',
    'its sha256 begins with', 'has no "results" of videos', ' labels a video and there are ',
    'no result for any of the', 'are not finite; run the', 'folder cannot be made: ',
    'be read (no such file)', 'in a folder that is browsed', 'finite; write them again',
    'the path, which is that of a folder', 'no videos in the list; ', 'looked for as class/video',
    'videos in it; check the path', 'none of its videos has a label', 'such folder; give the --res',
    'that has ended its first', 'in line 1; a CSV file with', ': the list is empty; ',
    'has no name; name it in line 1', 'whether it is in seconds or frames', 'rename it to one of ',
    ' are both the ', 'in line 1, which is ', ') in it or below; give another', ': its tensor ',
    '--random_weights evaluates a new network, and a training begins', 'and weights were given too',
    'ends what --ft_begin_module begins', 'the ending names the form')
# Why sentences have no case, and words of them.
WITHOUT_CASE = {
    'need exported networks, which tests/test_export.py makes in processes of its own': (
        'which is not trained; give the', 'needs the layers of the checkpoint',
        'does not say how its clips are prepared', 'update the code, or export the checkpoint',
        'which is not installed: ', '--dynamic_time or --dynamic_size, or give',
        'OpenVINO does not read .pt2', 'not an exported network, or one',
        'torch.export cannot make a program', '; write .onnx, which ONNX',
        'this network cannot be exported to ONNX', 'network takes clips of one size',
        'when it is exported; drop', 'size, or write another form',
        'which has no derivatives', 'no layer is called so; they are',
        'is for one label a video; dr', 'no clip for training can be read'),
    'need servers that fail, as tests/test_get_weights.py has them': (
        'cannot be downloaded (', 'what was downloaded is damaged', 'or give another --to',
        'is in none of the package indexes'),
    'need a machine that lacks memory, disk, rights, or a tool, or has GPUs': (
        'each loader process hands over', 'needs several processes: start',
        'the process that made it died', 'permissions, or give another dst_path',
        'free space or give another dst_path', 'on the PATH for extraction', 'cannot be listed: ',
        'extract the frames again, or give'),
    'need minutes, or chance': (
        'check the address and that all', '--result_path, or remove that folder',
        'data are a single batch, too few', '--resume_path is for --parts inference',
        'no frame came out of them', 'cannot be opened: ', 'again or take it out of the list',
        'no stage of the network gives a map', 'is no epoch in it yet; wait'),
}


def texts(node):
    """The texts in an expression, of which those in several pieces are whole."""
    if isinstance(node, ast.JoinedStr):
        yield ''.join(part.value if isinstance(part, ast.Constant) else VALUE
                      for part in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from texts(child)


def raised(tree):
    """(line, sentence) of each error that a module makes, and of each rule in a table of rules."""
    for node in ast.walk(tree):
        name = getattr(getattr(node, 'func', None), 'id', None)
        if isinstance(node, ast.Call) and name in ERRORS and node.args:
            yield node.lineno, VALUE.join(texts(node.args[0]))
        if isinstance(node, ast.Tuple) and len(node.elts) == 2:
            condition, sentence = node.elts
            if isinstance(sentence, (ast.Constant, ast.JoinedStr)) and not isinstance(
                    condition, (ast.Constant, ast.JoinedStr, ast.Name)):
                yield from ((node.lineno, text) for text in texts(sentence) if ': ' in text)


def sentences():
    """{sentence: where it is raised}"""
    found = {}
    folders = [path.parent for path in ROOT.glob('*/__init__.py') if path.parent.name != 'tests']
    inside = (path for folder in folders for path in folder.rglob('*.py'))
    for path in [*ROOT.glob('*.py'), *inside]:
        for line, sentence in raised(ast.parse(path.read_text())):
            found.setdefault(sentence, f'{path.relative_to(ROOT)}:{line}')
    return found


def words_of_cases():
    """All texts in the tests of advice but docstrings."""
    for path in Path(__file__).parent.glob('test_advice*.py'):
        tree = ast.parse(path.read_text())
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, (ast.Constant, ast.JoinedStr)) and id(node) not in docstrings:
                yield from texts(node)


def runs(sentence):
    """All runs of RUN characters in it that hold no value."""
    return {run for i in range(len(sentence) - RUN + 1)
            if VALUE not in (run := sentence[i:i + RUN])}


def test_every_sentence_has_a_case():
    found = sentences()
    assert len(found) > 300
    holders = Counter(run for sentence in found for run in runs(sentence))
    said = {run for words in words_of_cases() for run in runs(words.replace('\\', ''))}
    without = sorted(f'{place} {sentence!r}' for sentence, place in found.items()
                     # Some hold hardly more than what another error says.
                     if any(holders[run] == 1 for run in runs(sentence))
                     and not any(holders[run] == 1 and run in said for run in runs(sentence)))
    assert not without, '\n'.join([f'{len(without)} without a case:', *without])
