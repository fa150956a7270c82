# SPDX-License-Identifier: MIT
"""`dd` beside the genuine one: status, texts, sizes and bytes."""
import os
import shutil

import pytest

from differential import outcome
from harness import MiB, make_mixed_file, random_bytes, run, sha256


@pytest.fixture(scope='module')
def inputs(tmp_path_factory, reference):
    folder = tmp_path_factory.mktemp('dd')
    (folder / 'r.raw').write_bytes(random_bytes(5, 10000))
    make_mixed_file(folder / 'a.raw', 3 * MiB, 6)
    for name, options in (('a.qcow2', []), ('c.qcow2', ['-c'])):
        reference.run('convert', '-f', 'raw', '-O', 'qcow2', *options,
                      folder / 'a.raw', folder / name)
    return folder


@pytest.fixture
def folder(inputs, tmp_path):
    path = tmp_path / 'work'
    shutil.copytree(inputs, path)
    return path


# Both say and do the same.
SAME = [
    '', '-O raw', 'if=r.raw', 'of=o', 'if= of=o', 'if=nope of=o',
    '-f raw if=r.raw of=o foo', '-f raw if=r.raw of=o foo=1',
    '-f raw if=r.raw of=o isize=3', '-f raw extra if=r.raw of=o',
    '-f raw if=r.raw of=missing/o', '-O nope -f raw if=r.raw of=o',
    '-f nope if=r.raw of=o', '-l', '-O', '--image-opts -f raw if=x of=o',
    '--image-opts if=driver=raw,file.filename=a.raw of=o', '-U if=a.qcow2 of=o',
    '-f raw if=r.raw of=o', 'if=a.qcow2 of=o', 'if=c.qcow2 of=o -O qcow2',
    'if=r.raw if=a.qcow2 of=o', '-f raw of=o if=r.raw bs=1 bs=1M',
] + ['-f raw if=r.raw of=o ' + operands for operands in (
    'bs=512 count=4 skip=1', 'bs=1000 count=3', 'bs=1000 count=3 skip=2',
    'bs=1000 skip=9', 'bs=1000 skip=10', 'bs=10240 skip=1', 'bs=10241 skip=1',
    'bs=10000 count=1', 'bs=3000 count=3 skip=2', 'bs=9999', 'count=0',
    'bs=1000 count=0 skip=20', 'bs=1 count=1', 'bs=1 skip=1', 'bs=1k count=1',
    'count=9223372036854775807', 'count=9223372036854775808', 'count=-1',
    'count=1k', 'count=0x2', 'count= ', 'count=2x', 'skip=-1', 'skip=1k',
    'skip=9223372036854775807', 'bs=0', 'bs=-5', 'bs=abc', 'bs=2147483647',
    'bs=2147483648', 'bs=1.5k', 'bs=1.0001', 'bs=1E', 'bs=2k,', 'bs=')
] + ['if=%s of=o -O %s %s' % (image, form, operands)
     for image in ('a.qcow2', 'c.qcow2') for form in ('raw', 'qcow2')
     for operands in ('bs=64k skip=3', 'bs=1000 count=2000 skip=77',
                      'bs=65537 skip=1 count=40', 'bs=2M skip=1')]


@pytest.mark.parametrize('args', SAME)
def test_same(our_img, texts, reference, folder, args):
    """The same words, and an output of the same size with the same bytes."""
    argv = ['dd', *args.split()]
    theirs = outcome(texts.img[0], argv, folder)
    theirs.made = contents(reference, folder)
    ours = outcome(our_img, argv, folder)
    assert ours == theirs, '%s\n%s\n%s' % (args, theirs, ours)
    assert contents(reference, folder) == theirs.made


def contents(reference, folder):
    if not (folder / 'o').exists():
        return None
    form = 'qcow2' if (folder / 'o').read_bytes()[:4] == b'QFI\xfb' else 'raw'
    reference.run('convert', '-f', form, '-O', 'raw', 'o', 'plain',
                  cwd=folder)
    made = (form, os.stat(folder / 'plain').st_size, sha256(folder / 'plain'))
    os.unlink(folder / 'o')
    os.unlink(folder / 'plain')
    return made


def test_output_is_replaced(lamella, folder):
    (folder / 'o').write_bytes(b'z' * 20000)
    lamella.run('dd', '-f', 'raw', 'if=r.raw', 'of=o', 'count=2', cwd=folder)
    assert (folder / 'o').read_bytes() == \
        (folder / 'r.raw').read_bytes()[:1024]


def test_output_is_input(lamella, our_img, folder):
    """qemu-img empties it."""
    before = sha256(folder / 'r.raw')
    for tool in lamella.img[0], our_img:
        done = run(tool, 'dd', '-f', 'raw', 'if=r.raw', 'of=./r.raw',
                   status=1, cwd=folder)
        assert 'the same file' in done.stderr
        assert done.stderr.count('\n') == 1
        assert sha256(folder / 'r.raw') == before


def test_failed_output_is_removed(lamella, folder):
    os.truncate(folder / 'a.qcow2', MiB)
    done = run(*lamella.img, 'dd', 'if=a.qcow2', 'of=o', status=1, cwd=folder)
    assert 'a.qcow2' in done.stderr and done.stderr.count('\n') == 1
    assert not (folder / 'o').exists()
