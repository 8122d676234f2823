"""Mutated files for some seconds; `python -m tests.fuzz --minutes 60` for longer."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='reads /proc')
def test_mutated_files_are_read_or_refused(tmp_path, seed):
    ended = subprocess.run([sys.executable, '-m', 'tests.fuzz', '--minutes', '0.05', '--seed',
                            str(seed), '--keep', str(tmp_path)], cwd=ROOT, text=True,
                           capture_output=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ' files, 0 failures' in ended.stdout
