# SPDX-License-Identifier: MIT
"""commit, rebase and stream: on twins of a chain, by the genuine tool and by
ours; afterwards each tool reads the same from each."""
import json
import random
import shutil

import pytest

from harness import KiB, MiB, run
from test_chains import OVERLAYS, Chain, verify_layers
from test_interop import check
from workload import Shape, assert_same, guest_bytes

SIZES = [MiB, MiB, MiB + 512, MiB - 1536, 700 * KiB, MiB + 200 * KiB]


def shape_of(rng):
    shape = rng.choice(OVERLAYS)
    return Shape(shape.name, shape.options, rng.choice(SIZES), shape.cluster,
                 shape.compress, shape.discard)


def make_chain(folder, tools, seed, layers=3, raw=None):
    """Written by ours: the genuine tools' discards spoil compressed clusters
    that share a host cluster with what is discarded."""
    rng = random.Random(seed)
    folder.mkdir()
    chain = Chain(folder)
    if rng.random() < .5 if raw is None else raw:
        chain.raw_base(rng.randbytes(16) * (rng.choice(SIZES) // 16 // 32 * 32))
    for number in range(layers):
        chain.add(tools, shape_of(rng), seed * 100 + number, count=25)
    return chain


def twin(chain, folder):
    """A copy; backing files are named relatively."""
    shutil.copytree(chain.folder, folder)
    copy = Chain(folder)
    copy.layers = list(chain.layers)
    copy.model = bytearray(chain.model)
    return copy


def allocated(tools, path, depth=0):
    """Guest bytes that the layer @depth has, zeroes included."""
    listed = json.loads(tools.run('map', '-f', 'qcow2', '--output=json', path))
    return sum(extent['length'] for extent in listed
               if extent['present'] and extent['depth'] == depth)


def by_both(lamella, ours, genuine, theirs, *args, cwd=False):
    """False: the genuine tool could not.  It commits zeroes into no image of
    version 2, and compresses a rebase of partial clusters into a crash."""
    done = []
    for tools, chain in (lamella, ours), (genuine, theirs):
        name = chain.path().name if cwd else chain.path()
        done.append(run(*tools.img, *args, name, status=None,
                        cwd=chain.folder if cwd else None))
    assert done[0].returncode == 0, done[0].stderr
    return done[1].returncode == 0


def chain_length(tools, path):
    return len(json.loads(tools.run('info', '--backing-chain', '--output=json',
                                    path)))


@pytest.mark.parametrize('seed', range(5, 13))
def test_commit(seed, genuine, lamella, tmp_path):
    ours = make_chain(tmp_path / 'ours', lamella, seed)
    theirs = twin(ours, tmp_path / 'theirs')
    both = by_both(lamella, ours, genuine, theirs, 'commit', '-q', '-f',
                   'qcow2')
    verify_layers(ours, lamella, tmp_path)
    assert allocated(genuine, ours.path()) == 0
    if not both:
        return
    name, fmt = ours.layers[-2]
    contents = [guest_bytes(genuine, chain.folder / name, tmp_path, fmt=fmt)
                for chain in (ours, theirs)]
    assert_same(contents[0], contents[1], 'the layer that took the data')
    if fmt == 'qcow2':
        # Both store what they were given, in the same units.
        assert allocated(genuine, ours.folder / name) <= \
            allocated(genuine, theirs.folder / name)


def test_commit_gives_space_back(reference, lamella, tmp_path):
    """Zeroes that own clusters lose them where the overlay has zeroes, too."""
    made = []
    for tools in lamella, reference:
        base, top = (tmp_path / (tools.name + name) for name in ('base', 'top'))
        reference.run('create', '-q', '-f', 'qcow2', base, '2M')
        reference.run('create', '-q', '-f', 'qcow2', '-b', base.name, '-F',
                      'qcow2', top)
        reference.io_run(base, 'write 0 1M', 'write -z 0 1M')
        reference.io_run(top, 'write -zu 256k 512k')
        tools.run('commit', '-q', top)
        listed = json.loads(reference.run('map', '--output=json', base))
        made.append(sum(extent['length'] for extent in listed
                        if 'offset' in extent))
        check(reference, base)
    assert made == [512 * KiB, 512 * KiB]


@pytest.mark.parametrize('seed', range(21, 25))
def test_commit_further_down(seed, genuine, lamella, tmp_path):
    ours = make_chain(tmp_path / 'ours', lamella, seed, layers=4)
    theirs = twin(ours, tmp_path / 'theirs')
    base, fmt = ours.layers[1]
    both = by_both(lamella, ours, genuine, theirs, 'commit', '-q', '-f',
                   'qcow2', '-b', base, cwd=True)
    verify_layers(ours, lamella, tmp_path)
    if not both:
        return
    contents = [guest_bytes(genuine, chain.folder / base, tmp_path, fmt=fmt)
                for chain in (ours, theirs)]
    assert_same(contents[0], contents[1], base)
    shown = contents[0][:len(ours.model)]
    assert_same(shown, bytes(ours.model), 'the base as the top')


@pytest.mark.parametrize('seed', range(31, 41))
def test_rebase(seed, genuine, lamella, tmp_path):
    """Onto a layer further down, another chain, or nothing."""
    ours = make_chain(tmp_path / 'ours', lamella, seed, layers=4)
    flags = ['-c'] if seed % 2 and genuine.version >= (8,) else []
    other = ours.folder / 'other'
    make_chain(other, lamella, seed + 500, layers=2, raw=True)
    theirs = twin(ours, tmp_path / 'theirs')
    rng = random.Random(seed)
    target, fmt = rng.choice([ours.layers[0], ours.layers[1], ('', None),
                              ('other/layer1.qcow2', 'qcow2'),
                              ('other/base.raw', 'raw')])
    both = by_both(lamella, ours, genuine, theirs, 'rebase', '-f', 'qcow2',
                   *flags, '-b', target, *(['-F', fmt] if fmt else []))
    verify_layers(ours, lamella, tmp_path)
    if not both:
        return
    assert allocated(genuine, ours.path()) <= \
        allocated(genuine, theirs.path()) + 64 * KiB
    facts = [json.loads(genuine.run('info', '--output=json', chain.path()))
             for chain in (ours, theirs)]
    for key in 'backing-filename', 'backing-filename-format', 'virtual-size':
        assert facts[0].get(key) == facts[1].get(key)


@pytest.mark.parametrize('seed', range(51, 59))
def test_stream(seed, reference, lamella, tmp_path):
    chain = make_chain(tmp_path / 'ours', lamella, seed, layers=4)
    length = len(chain.layers)
    keep = random.Random(seed).randrange(length - 2)
    base = [] if not keep else ['-b', chain.layers[keep - 1][0]]
    lamella.run('stream', '-q', '-f', 'qcow2', *base, chain.path().name,
                cwd=chain.folder)
    verify_layers(chain, lamella, tmp_path)
    assert chain_length(reference, chain.path()) == keep + 1


def test_stream_from_elsewhere(reference, lamella, tmp_path):
    """The name of a layer that lies in another folder is not relative to the
    overlay's; one in the same folder is."""
    low = make_chain(tmp_path / 'low', lamella, 71, layers=2, raw=True)
    top = tmp_path / 'top.qcow2'
    reference.run('create', '-q', '-f', 'qcow2', '-b', 'low/layer2.qcow2',
                  '-F', 'qcow2', top)
    before = guest_bytes(reference, top, tmp_path)
    lamella.run('stream', '-q', '-b', low.folder / 'base.raw', top)
    assert guest_bytes(reference, top, tmp_path) == before
    assert chain_length(reference, top) == 2


def add_layers(tools, chain, count, each):
    """Many layers, with a few clusters in each."""
    for number in range(count):
        shape = Shape('thin', size=MiB, cluster=4 * KiB)
        chain.add(tools, shape, number, count=each)


@pytest.mark.parametrize('command', ['commit', 'rebase', 'stream'])
def test_hundred_layers(command, reference, lamella, tmp_path):
    folder = tmp_path / 'chain'
    folder.mkdir()
    chain = Chain(folder)
    chain.raw_base(b'base' * (256 * KiB))
    add_layers(lamella, chain, 100, 2)
    lines = {'commit': ['commit', '-q', '-b', 'base.raw'],
             'rebase': ['rebase', '-b', 'base.raw', '-F', 'raw'],
             'stream': ['stream', '-q', '-b', 'base.raw']}
    lamella.run(*lines[command], chain.path().name, cwd=folder)
    content = guest_bytes(reference, folder / 'base.raw', tmp_path, fmt='raw')
    if command == 'commit':
        assert_same(content, bytes(chain.model), 'the base')
    else:
        assert chain_length(reference, chain.path()) == 2
        assert_same(guest_bytes(reference, chain.path(), tmp_path),
                    bytes(chain.model), 'the top')
        check(reference, chain.path())
