# SPDX-License-Identifier: MIT
"""measure beside the genuine tool: every figure, in text and JSON."""
import os

import pytest

from differential import assert_same
from harness import need_libcrypto, run

SIZES = ['0', '1', '512', '1000001', '10M', '1G', '100G', '3T']
GEOMETRIES = ['cluster_size=%s,refcount_bits=%d' % (size, bits)
              for size in ('512', '4k', '64k', '2M') for bits in (1, 8, 16, 64)]
LINES = [
    '', '--foo', '--size foo', '--size -1', '--size 1M a.qcow2', 'a.qcow2 b',
    '-O nope --size 1', '-f nope a.qcow2', 'nope.qcow2', '-O nope nope.qcow2',
    '--output=xx --size 1', '--output json --size 1000000', '-l x --size 1',
    '-l snapshot.foo=1 a.qcow2', '-f raw --size 1', '-O qcow2 -o size=1G',
    '-O qcow2 -o cluster_size=100 --size 1M', '-O qcow2 --size 3P',
    '-O qcow2 --size 2P', '-O qcow2 -o extended_l2=on --size 1P',
    '-O qcow2 -o extended_l2=on,cluster_size=4k --size 3G',
    '-O qcow2 -o cluster_size=foo --size 1', '-o cluster_size=4k --size 0',
    '-O qcow2 -o refcount_bits=3 --size 1M',
    '-O qcow2 -o compat=0.10,refcount_bits=1 --size 1G',
    '-O raw -o backing_file=x --size 1M', '-O qcow2 -o foo=1 nope.qcow2',
    '-O qcow2 -o preallocation=full --size 10M',
    '-O qcow2 -o preallocation=metadata --size 10M',
    '-O qcow2 -o backing_file=x,backing_fmt=raw --size 10M',
    '-O qcow2 -o data_file=x --size 10M', '-O raw -o preallocation=full --size 3',
    '-O qcow2 a.qcow2', 'a.qcow2', '-U a.qcow2', '-f qcow2 a.qcow2',
    '-O qcow2 --output=json a.qcow2', '-O qcow2 -l s a.qcow2',
    '-O qcow2 -l snapshot.name=s a.qcow2', '-O qcow2 -l snapshot.id=1 a.qcow2',
    '-O qcow2 -o preallocation=falloc a.qcow2',
    '-O qcow2 -o compat=0.10 a.qcow2', '-O qcow2 -o size=5G a.qcow2',
    '-O qcow2 -o cluster_size=4k a.qcow2', '-O qcow2 -o cluster_size=2M a.qcow2',
    '-O qcow2 -o cluster_size=512 o.qcow2', '-O qcow2 o.qcow2', 'o.qcow2',
    '-O qcow2 -o backing_file=a.qcow2,backing_fmt=qcow2 o.qcow2',
    '-O qcow2 --image-opts driver=qcow2,file.filename=a.qcow2',
    '-O qcow2 --image-opts -f qcow2 a.qcow2', '-O qcow2 m.qcow2',
    '-O qcow2 f.qcow2', '-O qcow2 -f raw r.raw', '-O raw -f raw r.raw',
    '-O qcow2 -o cluster_size=512 r.raw', '-O qcow2 c.qcow2',
]


@pytest.fixture(scope='session')
def folder(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp('measured')
    create = ['create', '-q', '-f', 'qcow2']
    texts.run(*create, path / 'a.qcow2', '64M')
    texts.io_run(path / 'a.qcow2', 'write -P 7 0 10M', 'write -z 20M 1M',
                 'write 30000000 100')
    texts.run('snapshot', '-c', 's', path / 'a.qcow2')
    texts.io_run(path / 'a.qcow2', 'write -P 7 40M 1M')
    texts.run('bitmap', '--add', path / 'a.qcow2', 'b')
    texts.run('bitmap', '--add', '-g', '512', path / 'a.qcow2', 'longer name')
    texts.run(*create, '-b', 'a.qcow2', '-F', 'qcow2', path / 'o.qcow2', '100M')
    texts.io_run(path / 'o.qcow2', 'write 63M 2M', 'write -z 0 1M')
    for name, mode in (('m', 'metadata'), ('f', 'falloc')):
        texts.run(*create, '-o', 'preallocation=' + mode,
                  path / (name + '.qcow2'), '64M')
        texts.io_run(path / (name + '.qcow2'), 'write 5M 1M')
    texts.run('convert', '-c', '-O', 'qcow2', path / 'a.qcow2',
              path / 'c.qcow2')
    with open(path / 'r.raw', 'wb') as raw:
        raw.seek(300000)
        raw.write(b'data')
        raw.truncate(1000000)
    return path


@pytest.mark.parametrize('line', LINES)
def test_command_line(texts, our_img, folder, line):
    assert_same(texts, our_img, ['measure', *line.split()], folder)


@pytest.mark.parametrize('options', GEOMETRIES)
def test_sizes(texts, our_img, tmp_path, options):
    for size in SIZES:
        assert_same(texts, our_img, ['measure', '-O', 'qcow2', '-o', options,
                                     '--size', size], tmp_path)


@pytest.mark.parametrize('target', [
    ['-O', 'qcow2', '-o', 'encrypt.format=luks,encrypt.key-secret=s,'
     'encrypt.iter-time=1'],
    ['-O', 'qcow2', '-o', 'encrypt.format=luks,encrypt.key-secret=s,'
     'encrypt.iter-time=1,encrypt.cipher-alg=aes-128'],
    ['-O', 'luks', '-o', 'key-secret=s,iter-time=1']])
def test_encrypted(texts, our_img, tmp_path, target):
    need_libcrypto()
    assert_same(texts, our_img, ['measure', *target, '--object',
                                 'secret,id=s,data=abc', '--size', '10M'],
                tmp_path)


def test_nothing_is_made(our_img, tmp_path):
    run(our_img, 'measure', '-O', 'qcow2', '-o', 'data_file=x', '--size', '1G')
    assert os.listdir(tmp_path) == []
