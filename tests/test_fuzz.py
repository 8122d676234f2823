"""Mutated files for some seconds; `python -m tests.fuzz --minutes 60` for longer."""

from pathlib import Path

import pytest

from tests.processes import LIMIT_SEC, start_command


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='reads /proc')
def test_mutated_files_are_read_or_refused(tmp_path, seed):
    output = tmp_path / 'output'
    process = start_command('tests.fuzz', ['--minutes', 0.05, '--seed', seed, '--keep', tmp_path],
                            output)
    process.join(LIMIT_SEC)
    said = output.read_text()
    assert process.exitcode == 0 and ' files, 0 failures' in said, said
