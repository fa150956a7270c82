# SPDX-License-Identifier: MIT
"""The programs in examples/ do what they say."""
import os
import shutil
import subprocess
import sys

import pytest

from harness import MiB, ROOT, build_dir, make_mixed_file, run


def example(name, *arguments, **options):
    path = os.path.join(build_dir(), 'examples', 'example-' + name)
    return run(path, *arguments, **options)


@pytest.fixture(scope='module')
def images(tmp_path_factory, lamella):
    """A raw disk, and a qcow2 image of it in two layers."""
    top = tmp_path_factory.mktemp('examples')
    make_mixed_file(top / 'disk.raw', 3 * MiB + 512, seed=21)
    lamella.run('convert', '-O', 'qcow2', top / 'disk.raw', top / 'base.qcow2')
    lamella.run('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b',
                'base.qcow2', top / 'top.qcow2')
    lamella.io_run(top / 'top.qcow2', 'write -P 7 1M 64k')
    lamella.io_run(top / 'disk.raw', 'write -P 7 1M 64k',
                   options=['-f', 'raw'])
    return top


def test_every_program_is_here():
    """None is in the folder that is not run below."""
    programs = {name for name in os.listdir(os.path.join(ROOT, 'examples'))
                if name.endswith(('.c', '.py', '.rs'))}
    assert programs == {'cat.c', 'convert.c', 'map.c', 'overlay.c', 'queue.c',
                        'read.py', 'read.rs'}


def test_cat(images, tmp_path):
    with open(tmp_path / 'out', 'wb') as out:
        subprocess.run([os.path.join(build_dir(), 'examples', 'example-cat'),
                        images / 'top.qcow2'], stdout=out, check=True)
    assert (tmp_path / 'out').read_bytes() == \
        (images / 'disk.raw').read_bytes()


def test_cat_says_why(tmp_path):
    done = example('cat', tmp_path / 'absent', status=1)
    assert 'absent' in done.stderr and done.stderr.count('\n') == 1


def test_map(images):
    lines = example('map', images / 'top.qcow2').stdout.splitlines()
    extents = [line.split() for line in lines]
    at = 0
    for extent in extents:
        assert int(extent[0]) == at
        at += int(extent[1])
    assert at == 3 * MiB + 512
    assert [str(MiB), str(65536), 'data'] in [e[:3] for e in extents]
    files = {e[3].split(':')[0] for e in extents if len(e) == 4}
    assert {os.path.basename(file) for file in files} == \
        {'base.qcow2', 'top.qcow2'}


def test_queue(images):
    for name in ('top.qcow2', 'disk.raw'):
        done = example('queue', images / name)
        assert int(done.stdout) == sum((images / 'disk.raw').read_bytes())


def test_queue_says_why(images, tmp_path):
    """An image whose data break off."""
    damaged = tmp_path / 'damaged.qcow2'
    damaged.write_bytes((images / 'base.qcow2').read_bytes()[:1 << 20])
    done = example('queue', damaged, status=1)
    assert 'damaged.qcow2' in done.stderr and done.stderr.count('\n') == 1


def test_overlay(lamella, tmp_path):
    base, top = tmp_path / 'base.qcow2', tmp_path / 'top.qcow2'
    lamella.run('create', '-q', '-f', 'qcow2', base, '1M')
    assert example('overlay', base, top).stdout == \
        '%s: after\n%s: before\n' % (top, base)
    for image in (base, top):
        lamella.run('check', '-q', image)
    assert 'base.qcow2' in lamella.run('info', top)
    example('overlay', base, top, status=1)     # it is there already


def test_convert(images, lamella, tmp_path):
    target = tmp_path / 'new.qcow2'
    done = example('convert', images / 'top.qcow2', target)
    assert done.stderr.endswith('100 %\n')
    assert done.stdout.endswith('in a disk of %d\n' % (3 * MiB + 512))
    lamella.run('compare', images / 'disk.raw', target)


def test_python(images):
    library = os.path.join(build_dir(), 'lib', 'liblamella.so')
    program = os.path.join(ROOT, 'examples', 'read.py')
    env = dict(os.environ, LIBLAMELLA=library)
    done = run(sys.executable, program, images / 'top.qcow2', env=env)
    first = (images / 'disk.raw').read_bytes()[:16]
    assert done.stdout == '%d bytes, first: %s\n' % (3 * MiB + 512, first)
    done = run(sys.executable, program, images / 'none', env=env, status=1)
    assert 'none' in done.stderr and 'Traceback' not in done.stderr


def test_rust(images, tmp_path):
    if not shutil.which('rustc'):
        pytest.skip('rustc is not here')
    folder = os.path.join(build_dir(), 'lib')
    program = tmp_path / 'read'
    run('rustc', '-D', 'warnings', '-L', folder, '-l', 'lamella', '-o', program,
        os.path.join(ROOT, 'examples', 'read.rs'))
    env = dict(os.environ, LD_LIBRARY_PATH=folder)
    done = run(program, images / 'top.qcow2', env=env)
    assert done.stdout.startswith('%d bytes, first: ' % (3 * MiB + 512))
    done = run(program, tmp_path / 'absent', env=env, status=1)
    assert 'absent' in done.stderr and done.stderr.count('\n') == 1
