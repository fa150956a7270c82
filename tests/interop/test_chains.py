# SPDX-License-Identifier: MIT
"""Chains of overlays that both tools write and read."""
import json

import pytest

from harness import GENUINE, KiB, MiB
from workload import Shape, Workload, assert_same, guest_bytes, io_script
from test_interop import check, map_of


def resized(model, size):
    """What an overlay of another size shows of the bytes below it."""
    shown = bytearray(size)
    shown[:min(size, len(model))] = model[:size]
    return shown


class Chain:
    """Layers made one above the other, with the model of the top."""

    def __init__(self, folder):
        self.folder = folder
        self.layers = []
        self.model = None

    def path(self):
        return self.folder / self.layers[-1][0]

    def raw_base(self, content):
        (self.folder / 'base.raw').write_bytes(content)
        self.layers = [('base.raw', 'raw')]
        self.model = bytearray(content)

    def add(self, tools, shape, seed, count=40, writer=None):
        """A layer by create and io; its backing file is named relatively."""
        name = 'layer%d.qcow2' % len(self.layers)
        image = self.folder / name
        arguments = shape.create_args(image)
        if self.layers:
            below, fmt = self.layers[-1]
            arguments += ['-b', below, '-F', fmt]
            self.model = resized(self.model, shape.size)
        else:
            self.model = bytearray(shape.size)
        tools.run(*arguments, image, shape.size)
        self.layers.append((name, 'qcow2'))
        work = Workload(seed, shape, self.model)
        io_script(writer or tools, image, work.commands(count))
        return image


OVERLAYS = [
    Shape('v3', cluster=4 * KiB, size=MiB),
    Shape('v3-64k', size=MiB),
    Shape('v2', 'compat=0.10', cluster=4 * KiB, size=MiB, discard=False),
    Shape('512', cluster=512, size=MiB),
    Shape('extended', 'extended_l2=on', cluster=16 * KiB, size=MiB),
    Shape('zstd', 'compression_type=zstd', cluster=8 * KiB, size=MiB),
    Shape('2M', cluster=2 * MiB, size=MiB),
]


def verify_layers(chain, lamella, tmp_path):
    """Every tool reads the model, every layer is clean."""
    for tools in [lamella, *GENUINE]:
        assert_same(guest_bytes(tools, chain.path(), tmp_path), chain.model,
                    tools.name)
    for name, fmt in chain.layers:
        if fmt == 'qcow2':
            for tools in [lamella, *GENUINE]:
                check(tools, chain.folder / name)


def verify(chain, lamella, tmp_path):
    """Besides, maps agree."""
    verify_layers(chain, lamella, tmp_path)
    assert map_of(lamella, chain.path()) == map_of(GENUINE[-1], chain.path())


@pytest.mark.parametrize('upper', OVERLAYS, ids=lambda shape: shape.name)
@pytest.mark.parametrize('lower', ['raw', *OVERLAYS],
                         ids=lambda lower: getattr(lower, 'name', lower))
def test_two_layers(lower, upper, reference, lamella, tmp_path):
    chain = Chain(tmp_path)
    if lower == 'raw':
        chain.raw_base(bytes(range(1, 256)) * (MiB // 255) + b'x' * (MiB % 255))
    else:
        chain.add(reference, lower, 1)
    chain.add(lamella, upper, 2, count=80)
    verify(chain, lamella, tmp_path)


@pytest.mark.parametrize('writer', ['ours', 'theirs'])
@pytest.mark.parametrize('lower_size,upper_size', [
    (MiB, 2 * MiB), (2 * MiB, MiB), (MiB + 512, 2 * MiB + 1536),
    (2 * MiB - 512, MiB - 1536), (100 * KiB, MiB), (MiB, 100 * KiB + 512),
    (0, MiB),
])
@pytest.mark.parametrize('cluster', [4 * KiB, 64 * KiB],
                         ids=['4k', '64k'])
def test_other_length(lower_size, upper_size, cluster, writer, reference,
                      lamella, tmp_path):
    """The overlay is longer or shorter than its backing file."""
    tools = lamella if writer == 'ours' else reference
    chain = Chain(tmp_path)
    if lower_size:
        chain.add(tools, Shape('l', size=lower_size, cluster=cluster), 21)
    else:
        chain.raw_base(b'')
    chain.add(tools, Shape('u', size=upper_size, cluster=cluster), 22)
    chain.add(tools, Shape('top', size=upper_size + 8 * KiB,
                           cluster=cluster), 23, count=10)
    verify(chain, lamella, tmp_path)


@pytest.mark.parametrize('seed', [31, 32])
def test_twenty_layers(seed, reference, lamella, tmp_path):
    """Both tools in turn, shapes and sizes mixed."""
    chain = Chain(tmp_path)
    chain.raw_base(b'base' * (256 * KiB))
    for depth in range(20):
        shape = OVERLAYS[(depth * 3 + seed) % len(OVERLAYS)]
        tools, other = (lamella, reference)[::1 if depth % 2 else -1]
        chain.add(tools, shape, seed * 100 + depth, count=12, writer=other)
    verify(chain, lamella, tmp_path)
    listed = json.loads(lamella.run('info', '--output=json', '--backing-chain',
                                    chain.path()))
    assert [layer['format'] for layer in listed] == ['qcow2'] * 20 + ['raw']


@pytest.mark.parametrize('flags,options', [
    ([], ''), (['-c'], ''), (['-c'], 'compression_type=zstd')],
    ids=['plain', 'deflate', 'zstd'])
def test_convert_onto_backing(flags, options, reference, lamella, tmp_path):
    """convert -B keeps the backing file and copies the layer above it."""
    chain = Chain(tmp_path)
    for number in range(3):
        chain.add(reference, Shape('l', size=MiB, cluster=4 * KiB),
                  41 + number)
    out = tmp_path / 'onto.qcow2'
    arguments = ['-o', options] if options else []
    lamella.run('convert', '-f', 'qcow2', '-O', 'qcow2', *flags, *arguments,
                '-B', chain.layers[1][0], '-F', 'qcow2', chain.path(), out,
                cwd=tmp_path)
    for tools in [lamella, *GENUINE]:
        check(tools, out)
        assert_same(guest_bytes(tools, out, tmp_path), chain.model, tools.name)
    layers = json.loads(reference.run('info', '--output=json',
                                      '--backing-chain', out))
    assert len(layers) == 3


def test_external_data_file_in_the_middle(reference, lamella, tmp_path):
    chain = Chain(tmp_path)
    chain.add(reference, Shape('low', size=MiB, cluster=4 * KiB), 51)
    chain.add(lamella, Shape('middle', 'data_file={data}', size=MiB,
                             compress=False), 52)
    chain.add(lamella, Shape('top', size=MiB, cluster=4 * KiB), 53)
    verify(chain, lamella, tmp_path)
