# SPDX-License-Identifier: MIT
"""Genuine tools write and lamella reads; lamella writes and they read."""
import json

import pytest

from harness import GENUINE, KiB, MiB, make_mixed_file, run
from workload import (SHAPES, Shape, Workload, assert_same, guest_bytes,
                      io_script)

IDS = [shape.name for shape in SHAPES]
OPERATIONS = 150


def map_of(tools, path):
    """The map by value, data without regard to holes of the host file.

    Where a cluster of data lies over a hole, lamella says so; the genuine tool
    asks the host file for images with preallocated metadata only.
    """
    listed = []
    for extent in json.loads(tools.run('map', '-f', 'qcow2', '--output=json',
                                       path)):
        start, length = extent['start'], extent['length']
        what = (extent['depth'], extent['data'] or extent['zero'],
                extent['data'])
        host = extent.get('offset')
        if listed and listed[-1][2] == what and \
                sum(listed[-1][:2]) == start and goes_on(listed[-1], host):
            listed[-1][1] += length
        else:
            listed.append([start, length, what, host])
    return listed


def goes_on(extent, host):
    if extent[3] is None or host is None:
        return extent[3] is host
    return extent[3] + extent[1] == host


def check(tools, path):
    """No error and no leak."""
    tools.run('check', '-f', 'qcow2', path)


@pytest.mark.parametrize('seed', [1, 2])
@pytest.mark.parametrize('shape', SHAPES, ids=IDS)
def test_reads_theirs(shape, seed, genuine, lamella, tmp_path):
    image = tmp_path / 'theirs.qcow2'
    work = Workload(seed, shape)
    genuine.run(*shape.create_args(image), image, shape.size)
    io_script(genuine, image, work.commands(OPERATIONS))
    raw = tmp_path / 'model.raw'
    raw.write_bytes(work.model)

    assert_same(guest_bytes(lamella, image, tmp_path), work.model, 'convert')
    io_script(lamella, image, work.read_back(60))
    lamella.run('compare', '-f', 'qcow2', '-F', 'raw', image, raw)
    check(lamella, image)
    assert map_of(lamella, image) == map_of(genuine, image)


@pytest.mark.parametrize('seed', [3, 4])
@pytest.mark.parametrize('shape', SHAPES, ids=IDS)
def test_they_read_ours(shape, seed, lamella, tmp_path):
    if not GENUINE:
        pytest.skip('no genuine qemu-img here')
    image = tmp_path / 'ours.qcow2'
    work = Workload(seed, shape)
    lamella.run(*shape.create_args(image), image, shape.size)
    io_script(lamella, image, work.commands(OPERATIONS))
    raw = tmp_path / 'model.raw'
    raw.write_bytes(work.model)

    for tools in GENUINE:
        check(tools, image)
        assert_same(guest_bytes(tools, image, tmp_path), work.model,
                    tools.name)
        io_script(tools, image, work.read_back(40))
        tools.run('compare', '-f', 'qcow2', '-F', 'raw', image, raw)
    check(lamella, image)
    assert map_of(lamella, image) == map_of(GENUINE[-1], image)


@pytest.mark.parametrize('shape', SHAPES, ids=IDS)
def test_taking_turns(shape, genuine, lamella, tmp_path):
    """Both write into one image, one after the other."""
    image = tmp_path / 'shared.qcow2'
    work = Workload(5, shape)
    lamella.run(*shape.create_args(image), image, shape.size)
    for turn in range(4):
        tools = (genuine, lamella)[turn % 2]
        io_script(tools, image, work.commands(OPERATIONS // 3))
        check(genuine, image)
    assert_same(guest_bytes(lamella, image, tmp_path), work.model, 'ours')
    assert_same(guest_bytes(genuine, image, tmp_path), work.model, 'theirs')


# Without -n the target is made by convert: its options go into -o.
CONVERSIONS = [
    ('plain', [], ''), ('v2', [], 'compat=0.10'),
    ('512', [], 'cluster_size=512'), ('2M', [], 'cluster_size=2M'),
    ('extended', [], 'extended_l2=on'), ('lazy', [], 'lazy_refcounts=on'),
    ('refcount8', [], 'refcount_bits=8'),
    ('deflate', ['-c'], ''), ('deflate-v2', ['-c'], 'compat=0.10'),
    ('deflate-4k', ['-c'], 'cluster_size=4k'),
    ('deflate-512', ['-c'], 'cluster_size=512'),
    ('deflate-2M', ['-c'], 'cluster_size=2M'),
    ('deflate-refcount1', ['-c'], 'refcount_bits=1'),
    ('zstd', ['-c'], 'compression_type=zstd'),
    ('zstd-4k', ['-c'], 'compression_type=zstd,cluster_size=4k'),
    ('zstd-2M', ['-c'], 'compression_type=zstd,cluster_size=2M'),
    ('zstd-extended', ['-c'], 'compression_type=zstd,extended_l2=on'),
]
CONVERSION_IDS = [conversion[0] for conversion in CONVERSIONS]


@pytest.fixture(scope='module')
def mixed(tmp_path_factory):
    """Noise, text, written zeroes and holes; the size is no whole cluster."""
    path = tmp_path_factory.mktemp('mixed') / 'mixed.raw'
    make_mixed_file(path, 9 * MiB + 5120, seed=7)
    return path


@pytest.mark.parametrize('name,flags,options', CONVERSIONS,
                         ids=CONVERSION_IDS)
def test_converted_by_us(name, flags, options, mixed, lamella, tmp_path):
    if not GENUINE:
        pytest.skip('no genuine qemu-img here')
    image = tmp_path / 'ours.qcow2'
    arguments = ['-o', options] if options else []
    lamella.run('convert', *flags, '-f', 'raw', '-O', 'qcow2', *arguments,
                mixed, image)
    for tools in GENUINE:
        check(tools, image)
        tools.run('compare', '-f', 'raw', '-F', 'qcow2', mixed, image)
    assert_same(guest_bytes(lamella, image, tmp_path), mixed.read_bytes(),
                'and back')


@pytest.mark.parametrize('name,flags,options', CONVERSIONS,
                         ids=CONVERSION_IDS)
def test_converted_by_them(name, flags, options, mixed, genuine, lamella,
                           tmp_path):
    image = tmp_path / 'theirs.qcow2'
    arguments = ['-o', options] if options else []
    genuine.run('convert', *flags, '-f', 'raw', '-O', 'qcow2', *arguments,
                mixed, image)
    check(lamella, image)
    lamella.run('compare', '-f', 'raw', '-F', 'qcow2', mixed, image)
    assert_same(guest_bytes(lamella, image, tmp_path), mixed.read_bytes(),
                'convert')


@pytest.mark.parametrize('writer', ['theirs', 'ours'])
@pytest.mark.parametrize('flags', [[], ['-c']], ids=['plain', 'compressed'])
def test_not_much_larger(writer, flags, mixed, reference, lamella, tmp_path):
    """Neither tool's file is noticeably longer than the other's."""
    sizes = {}
    for tools in (reference, lamella):
        image = tmp_path / (tools.name + '.qcow2')
        tools.run('convert', *flags, '-f', 'raw', '-O', 'qcow2', mixed, image)
        sizes[tools.name] = image.stat().st_size
    ours, theirs = sizes[lamella.name], sizes[reference.name]
    limit = 1.01 if flags else 1.0
    if writer == 'ours':
        assert ours <= theirs * limit + 64 * KiB, sizes
    else:
        assert theirs <= ours * 1.5, sizes


@pytest.mark.parametrize('compat', ['0.10', '1.1'])
def test_internal_snapshots(compat, genuine, lamella, tmp_path):
    """Snapshots read as they were, also after we have written above them."""
    image = tmp_path / 'snapshots.qcow2'
    shape = Shape('s', 'compat=' + compat, size=2 * MiB, cluster=4 * KiB)
    work = Workload(11, shape)
    genuine.run(*shape.create_args(image), image, shape.size)
    states = {}
    for name, writer in (('one', genuine), ('two', lamella), ('three', genuine),
                         ('four', lamella)):
        io_script(writer, image, work.commands(60))
        genuine.run('snapshot', '-c', name, image)
        states[name] = bytes(work.model)
        check(genuine, image)
        check(lamella, image)
    io_script(lamella, image, work.commands(60))
    check(genuine, image)
    assert_same(guest_bytes(lamella, image, tmp_path), work.model, 'now')
    for name, state in states.items():
        assert_same(guest_bytes(lamella, image, tmp_path, '-l', name), state,
                    'ours -l ' + name)
        assert_same(guest_bytes(genuine, image, tmp_path, '-l', name), state,
                    'theirs -l ' + name)


@pytest.mark.parametrize('raw', ['off', 'on'])
@pytest.mark.parametrize('size', [MiB, 1000448, 3000320])
def test_data_files_are_as_long_as_the_disk(size, raw, genuine, lamella,
                                            tmp_path):
    """Whatever the genuine tool does: a shorter one has been cut, and is not
    read behind its end."""
    image, data = tmp_path / 'a.qcow2', tmp_path / 'a.data'
    genuine.run('create', '-q', '-f', 'qcow2', '-o',
                'data_file=%s,data_file_raw=%s' % (data, raw), image, size)

    def judge(length):
        assert data.stat().st_size >= length
        lamella.run('check', '-q', image)
        assert_same(guest_bytes(lamella, image, tmp_path),
                    guest_bytes(genuine, image, tmp_path), 'at %d' % length)
    judge(size)
    genuine.run('resize', '-q', image, 5000192)
    genuine.io_run(image, 'write -P 3 4999680 512')
    judge(5000192)
    genuine.run('resize', '-q', '--shrink', image, 700416)
    genuine.io_run(image, 'write -P 4 600k 32k')
    judge(700416)
    with open(data, 'r+b') as file:
        file.truncate(8192)
    assert run(*lamella.img, 'check', '-q', image, status=None).returncode == 2
    done = run(*lamella.img, 'convert', '-O', 'raw', image, tmp_path / 'out',
               status=1)
    assert 'the file ends at 8192' in done.stderr
    assert not (tmp_path / 'out').exists()
