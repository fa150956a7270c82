# SPDX-License-Identifier: MIT
"""amend beside the genuine tool: its words, the image it leaves, and that the
genuine tool finds nothing wrong with ours."""
import re
import shutil

import pytest

from differential import mention, outcome
from harness import KiB, pytest_fail, run

STOCK = {
    'v2': 'compat=0.10', 'v3': 'compat=1.1',
    'wide': 'refcount_bits=64,lazy_refcounts=on', 'sub': 'extended_l2=on',
    'zstd': 'compression_type=zstd', 'small': 'cluster_size=512',
    'lazy': 'lazy_refcounts=on',
}

LINES = [
    'v2.qcow2', '-o compat=1.1', '-o compat=1.1 v2.qcow2 v3.qcow2', '--foo',
    '-f qcow2 -o help', '-f raw -o help r.raw', '-f raw -o size=1M r.raw',
    '-f qcow2 -o lazy_refcounts=on nope.qcow2', '-o compat=1.2 v2.qcow2',
    '-f qcow2 --image-opts -o compat=1.1 v2.qcow2', '-t bad -o compat=1.1 v3',
    '-o nonsense=1 v3.qcow2', '-o cluster_size=64k v3.qcow2',
    '-o lazy_refcounts=maybe v3.qcow2', '-o refcount_bits=x v3.qcow2',
    '-o refcount_bits=3 v3.qcow2', '-o refcount_bits=0 v3.qcow2',
    '-o refcount_bits=128 v3.qcow2', '-o refcount_bits=8 v2.qcow2',
    '-o lazy_refcounts=on v2.qcow2', '-o compat=0.10 wide.qcow2',
    '-o compat=0.10,lazy_refcounts=on v3.qcow2',
    '-o compat=0.10,lazy_refcounts=on lazy.qcow2',
    '-o backing_file=r.raw v3.qcow2', '-o data_file=foo v3.qcow2',
    '-o data_file_raw=on v3.qcow2', '-o data_file_raw=off v3.qcow2',
    '-o compat=0.10 sub.qcow2', '-o compat=0.10 zstd.qcow2',
    '-o compat=0.10 snap.qcow2', '-o refcount_bits=1 snap.qcow2',
    '-f qcow2 -o compat=v3,lazy_refcounts=on v2.qcow2',
    '-f qcow2 -o compat=v2 v3.qcow2', '-o compat=v2 over.qcow2',
    '-o compat=0.10,refcount_bits=16 wide.qcow2',
    '-o refcount_bits=64 small.qcow2', '-o refcount_bits=2 v3.qcow2',
    '-o lazy_refcounts=off,refcount_bits=1 wide.qcow2',
    '-o compat=1.1,refcount_bits=32,size=16M v2.qcow2', '-o size=4M v3.qcow2',
    '-q -p -o compat=1.1,refcount_bits=8 v2.qcow2', '--force -o size=9M v3.qcow2',
    '--image-opts -o lazy_refcounts driver=qcow2,file.filename=v3.qcow2',
]


@pytest.fixture(scope='session')
def stock(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp('amend')
    (folder / 'r.raw').write_bytes(b'below' * 64 * KiB)
    names = dict(STOCK, over='backing_file=r.raw,backing_fmt=raw', snap='')
    for name, options in names.items():
        path = folder / (name + '.qcow2')
        options = ['-o', options] if options else []
        texts.run('create', '-q', '-f', 'qcow2', *options, path, '8M')
        texts.io_run(path, 'write -P 7 0 3M', 'write -z 64k 192k',
                     'write -z 3M 1M', 'write -c -P 9 4M 64k')
    texts.run('snapshot', '-c', 's', folder / 'snap.qcow2')
    texts.run('resize', '-q', folder / 'snap.qcow2', '9M')
    return folder


def spoken(done):
    """What a run printed, but for progress."""
    done.out = re.sub(r'\(.*%\)', '', done.out).strip()
    return done.status, done.out, done.err


def facts(texts, path):
    """What the genuine tool says of the image."""
    text = texts.run('info', path)
    wanted = r'\s*(virtual size|compat|.* refcounts|refcount bits|.* type):'
    return [line for line in text.splitlines() if re.match(wanted, line)]


@pytest.mark.parametrize('line', LINES)
def test_amend(texts, our_img, stock, tmp_path, line):
    folders = tmp_path / 'theirs', tmp_path / 'ours'
    for folder in folders:
        shutil.copytree(stock, folder)
    args = ['amend'] + line.split()
    done = [outcome(tool, args, folder)
            for tool, folder in zip((texts.img[0], our_img), folders)]
    if spoken(done[0]) != spoken(done[1]):
        pytest_fail(mention(args, *done))
    for name in re.findall(r'\w+\.qcow2$', line):
        if not (stock / name).exists():
            continue
        theirs, ours = (folder / name for folder in folders)
        assert facts(texts, ours) == facts(texts, theirs)
        texts.run('check', '-q', ours)
        if done[0].status == 0:
            texts.run('compare', '-q', theirs, ours)


def test_progress(our_img, stock, tmp_path):
    shutil.copy(stock / 'v3.qcow2', tmp_path)
    done = run(our_img, 'amend', '-p', '-o', 'refcount_bits=64',
               tmp_path / 'v3.qcow2')
    assert done.stdout.split()[-1] == '(100.00/100%)'


def test_downgrade_stays_small(texts, our_img, stock, tmp_path):
    """Copied tables do not push the others megabytes away: a volume may end
    where the image does."""
    shutil.copy(stock / 'v3.qcow2', tmp_path)
    path = tmp_path / 'v3.qcow2'
    before = path.stat().st_size
    run(our_img, 'amend', '-q', '-o', 'compat=0.10', path)
    assert path.stat().st_size < before + 1024 * KiB
