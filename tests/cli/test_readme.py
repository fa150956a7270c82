# SPDX-License-Identifier: MIT
"""What the README shows works as it stands there."""
import os
import re
import shutil

import pytest

from harness import GiB, ROOT, build_dir, run


def readme():
    with open(os.path.join(ROOT, 'README.md'), encoding='utf-8') as text:
        return text.read()


def commands():
    tour = readme().split('## A tour in two minutes')[1].split('\n## ')[0]
    return re.findall(r'^    \$ (lamella .*)$', tour, re.MULTILINE)


@pytest.fixture(scope='module')
def place(tmp_path_factory, lamella):
    """What the tour takes as given: a volume, and images of others."""
    top = tmp_path_factory.mktemp('tour')
    with open(top / 'volume', 'wb') as volume:
        volume.truncate(10 * GiB)
    for name in 'old.qcow2', 'upload.qcow2':
        lamella.run('create', '-q', '-f', 'qcow2', top / name, '10M')
    lamella.run('snapshot', '-c', 'before-upgrade', top / 'old.qcow2')
    return top


def test_the_tour(place):
    found = commands()
    assert len(found) > 10
    env = dict(os.environ, PATH=build_dir() + ':' + os.environ['PATH'])
    for command in found:
        # Ten gigabytes of zeroes say no more than the first of them.
        command = command.replace('/dev/vg/volume', 'volume') \
            .replace('| sha256sum', '| head -c 4000000 | sha256sum')
        run('sh', '-ec', command, cwd=place, env=env)


def test_the_program(lamella, tmp_path):
    if not shutil.which('cc'):
        pytest.skip('no compiler here')
    lamella.run('create', '-q', '-f', 'qcow2', tmp_path / 'top.qcow2', '2M')
    lamella.io_run(tmp_path / 'top.qcow2', 'write -P 7 1M 64k')
    code = re.search(r'```c\n(.*?)```', readme(), re.DOTALL)[1]
    first, rest = code.split('\n\n', 1)
    (tmp_path / 'program.c').write_text(
        '#include <stdio.h>\n%s\nint main(void)\n{\n%s\nreturn rc < 0 || '
        'sector[511] != 7;\n}\n' % (first, rest))
    library = os.path.join(build_dir(), 'lib')
    run('cc', '-Wall', '-Werror', '-I', os.path.join(ROOT, 'include'),
        'program.c', '-o', 'program', '-L', library, '-llamella', cwd=tmp_path)
    run(tmp_path / 'program', cwd=tmp_path,
        env=dict(os.environ, LD_LIBRARY_PATH=library))
