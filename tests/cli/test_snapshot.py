# SPDX-License-Identifier: MIT
"""snapshot beside the genuine tool: words, status, and what is listed after."""
import re

import pytest

from differential import mention, outcome
from harness import pytest_fail, run

# One after the other on one set of images.
LINES = [
    '', 'a.qcow2', '-l a.qcow2', '-c s1 a.qcow2', '-l a.qcow2',
    '-c s1 a.qcow2', '-c 1 a.qcow2', '-c 日本 a.qcow2', '--list a.qcow2',
    '-d 2 a.qcow2', '-d nope a.qcow2', '-a nope a.qcow2', '-a 3 a.qcow2',
    '-a s1 a.qcow2', '-d s1 a.qcow2', '-l a.qcow2', '-q -d 1 a.qcow2',
    '-q -d 1 a.qcow2', '-q -l a.qcow2', '-c a -d b a.qcow2',
    '-l -c b a.qcow2', '-l -l a.qcow2', '-c b', '-c b a.qcow2 t2', '-c',
    '-x a.qcow2', '--foo a.qcow2', '-c x -f raw r.raw', '-a x -f raw r.raw',
    '-d x -f raw r.raw', '-l -f raw r.raw', '-q -c x -f raw r.raw',
    '-c x nofile', '-l nofile', '-c x df.qcow2', '-l df.qcow2',
    '-c x bits.qcow2', '-l bits.qcow2', '-U -l a.qcow2', '-U -c k a.qcow2',
    '--image-opts -l driver=qcow2,file.filename=a.qcow2',
    '--image-opts -f qcow2 -l driver=qcow2,file.filename=a.qcow2',
    '--object secret,id=x,data=y -l a.qcow2', '-f bogus -l a.qcow2',
    '-c q empty.qcow2', '-a q empty.qcow2', '-l empty.qcow2',
    '-d q empty.qcow2', '-c q v2.qcow2', '-c q2 v2.qcow2', '-a q v2.qcow2',
    '-d q v2.qcow2', '-l v2.qcow2',
]
DATES = re.compile(r'20\d\d-\d\d-\d\d \d\d:\d\d:\d\d')


def make(tools, folder):
    folder.mkdir()
    create = ['create', '-q', '-f', 'qcow2']
    tools.run(*create, 'a.qcow2', '1M', cwd=folder)
    tools.run(*create, '-o', 'data_file=df.data', 'df.qcow2', '1M', cwd=folder)
    tools.run(*create, '-o', 'refcount_bits=1', 'bits.qcow2', '1M', cwd=folder)
    tools.run(*create, '-o', 'compat=0.10', 'v2.qcow2', '1M', cwd=folder)
    tools.run(*create, 'empty.qcow2', '0', cwd=folder)
    tools.run('create', '-q', '-f', 'raw', 'r.raw', '1M', cwd=folder)
    for name in 'a', 'bits', 'v2':
        tools.io_run(folder / (name + '.qcow2'), 'write -P 1 0 128k')


def test_beside(texts, our_img, tmp_path):
    folders = tmp_path / 'theirs', tmp_path / 'ours'
    for folder in folders:
        make(texts, folder)
    for line in LINES:
        args = ['snapshot', *line.split()]
        theirs, mine = (outcome(tool, args, folder) for tool, folder in
                        zip((texts.img[0], our_img), folders))
        for one in theirs, mine:
            one.out = DATES.sub('DATE', one.out)
        if theirs != mine:
            pytest_fail(mention(args, theirs, mine))
    for name in 'a', 'bits', 'v2', 'empty':
        texts.run('check', '-q', folders[1] / (name + '.qcow2'))


def test_refused_leaves_no_trace(our_lamella, reference, tmp_path):
    """A refcount that cannot go higher: the same bytes as before."""
    image = tmp_path / 'bits.qcow2'
    reference.run('create', '-q', '-f', 'qcow2', '-o', 'refcount_bits=1',
                  image, '8M')
    reference.io_run(image, 'write -P 1 0 3M')
    before = image.read_bytes()
    done = run(our_lamella, 'snapshot', '-c', 'x', image, status=1)
    assert 'refcount cannot exceed 1' in done.stderr
    assert image.read_bytes() == before
