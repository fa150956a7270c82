# SPDX-License-Identifier: MIT
"""Command lines by the genuine tools and by ours, on equal inputs.

lines/*.txt hold one command line each (several, separated by ";;", run one
after the other).  Compared are exit status, stdout and stderr of each, and the
files afterwards: which there are, and what is in them.  What differs on purpose
stands in lines/on-purpose.txt with its reason; a line there that no longer
differs fails, too.
"""
import glob
import os
import shlex

import pytest

from harness import pytest_fail
from outcome import compare_files, perform

HERE = os.path.dirname(os.path.abspath(__file__))


def read_lines(name):
    with open(name) as table:
        return [line.strip() for line in table
                if line.strip() and not line.startswith('#')]


def read_on_purpose():
    """command line -> reason; in the file "reason" comes first, indented lines
    after it are the command lines."""
    reasons, reason = {}, None
    with open(os.path.join(HERE, 'lines', 'on-purpose.txt')) as table:
        for line in table:
            if line.startswith('#') or not line.strip():
                continue
            if line[0].isspace():
                reasons[line.strip()] = reason
            else:
                reason = line.strip()
    return reasons


LINES = [(os.path.basename(name)[:-4], line)
         for name in sorted(glob.glob(os.path.join(HERE, 'lines', '*.txt')))
         if not name.endswith('on-purpose.txt')
         for line in read_lines(name)]
ON_PURPOSE = read_on_purpose()


def difference(line, texts, ours, stage, rooms):
    genuine = os.path.dirname(texts.img[0])
    commands = [shlex.split(part) for part in line.split(';;')]
    for number, words in enumerate(commands):
        a = perform(genuine, words, rooms[0], number > 0)
        b = perform(ours, words, rooms[1], number > 0)
        if not b.same(a):
            return '%s\n=== genuine: %s\n=== ours: %s' % (
                shlex.join(words), a, b)
    layout = len(commands) == 1 and commands[0][:1] == ['create'] \
        and not {'luks', 'vmdk'} & set(line.split())
    return compare_files(texts.img[0], stage, rooms, layout)


@pytest.mark.parametrize('table,line', LINES)
def test_line(table, line, texts, ours, stage, rooms):
    found = difference(line, texts, ours, stage, rooms)
    if line in ON_PURPOSE:
        if not found:
            pytest_fail('%s\nno longer differs: take it off the list of what '
                        'differs on purpose' % line)
    elif found:
        pytest_fail('%s\n%s' % (line, found))


def test_on_purpose_has_no_dead_lines():
    known = {line for _, line in LINES}
    assert not [line for line in ON_PURPOSE if line not in known]


def test_enough():
    assert len(LINES) >= 400
