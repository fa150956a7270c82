# SPDX-License-Identifier: MIT
"""A few sequences of random commands; `make soak-differential` has more."""
import os

import pytest

from harness import pytest_fail
from sequence import Difference, run_seed, shows, shrink

SEEDS = range(1, 13)
STEPS = 5


@pytest.mark.parametrize('seed', SEEDS)
def test_seed(seed, texts, ours, stage, tmp_path):
    where = stage, tmp_path / 'rooms', texts.img[0], ours
    try:
        compared = run_seed(seed, STEPS, *where)
    except Difference as difference:
        smaller = shrink(difference, *where)
        pytest_fail('%s\n%s' % (smaller.line, smaller))
    assert 0 < compared <= STEPS


def test_a_difference_is_found_and_made_smaller(texts, stage, tmp_path):
    """By tools of which one resizes to something else."""
    folder = tmp_path / 'wrong'
    folder.mkdir()
    tool = folder / 'qemu-img'
    tool.write_text('#!/bin/sh\n'
                    '[ "$1" != resize ] || set -- resize -f raw n.raw 3M\n'
                    'exec %s "$@"\n' % texts.img[0])
    tool.chmod(0o755)
    os.symlink(texts.io[0], folder / 'qemu-io')
    where = str(stage), str(tmp_path / 'rooms'), texts.img[0], str(folder)
    commands = [['info', 'raw.img'], ['create', '-q', 'n.raw', '1M'],
                ['info', 'n.raw'], ['resize', '-f', 'raw', 'n.raw', '2M']]
    text = shows(commands, *where)
    assert '3145728' in text and '2097152' in text
    smaller = shrink(Difference(commands, text), *where)
    assert smaller.commands == [commands[1], commands[3]]
