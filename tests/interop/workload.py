# SPDX-License-Identifier: MIT
"""Seeded random writes, zero writes, discards on an image, and a model of it.

The same commands drive the genuine qemu-io and `lamella io`; the model says
what the guest must read afterwards.
"""
import random

from harness import KiB, MiB, pytest_fail, run


class Shape:
    """How an image is made: options of create, and what it can do."""

    def __init__(self, name, options='', size=4 * MiB, cluster=64 * KiB,
                 compress=True, discard=True):
        self.name = name
        self.options = options
        self.size = size
        self.cluster = cluster
        self.compress = compress
        self.discard = discard
        self.data_file = 'data_file' in options

    def create_args(self, path):
        """Arguments of create; a data file lies beside the image."""
        text = 'cluster_size=%d' % self.cluster
        if self.options:
            text += ',' + self.options.format(data=str(path) + '.data')
        return ['create', '-q', '-f', 'qcow2', '-o', text]


SHAPES = [
    Shape('default'),
    Shape('v2', 'compat=0.10'),
    Shape('v2-512', 'compat=0.10', size=600 * KiB, cluster=512),
    Shape('512', size=MiB, cluster=512),
    Shape('1k-refcount1', 'refcount_bits=1', size=MiB, cluster=KiB),
    Shape('4k-refcount64', 'refcount_bits=64', size=2 * MiB, cluster=4 * KiB),
    Shape('4k-refcount2', 'refcount_bits=2', size=2 * MiB, cluster=4 * KiB),
    Shape('2M', size=21 * MiB, cluster=2 * MiB),
    Shape('odd-size', size=3 * MiB + 12800),
    Shape('zstd', 'compression_type=zstd'),
    Shape('zstd-4k', 'compression_type=zstd', size=2 * MiB, cluster=4 * KiB),
    Shape('zstd-2M', 'compression_type=zstd', size=11 * MiB, cluster=2 * MiB),
    Shape('lazy', 'lazy_refcounts=on'),
    Shape('extended', 'extended_l2=on'),
    Shape('extended-16k', 'extended_l2=on', cluster=16 * KiB),
    Shape('extended-2M', 'extended_l2=on', size=21 * MiB, cluster=2 * MiB),
    Shape('extended-zstd', 'extended_l2=on,compression_type=zstd'),
    Shape('data-file', 'data_file={data}', compress=False),
    Shape('data-file-raw', 'data_file={data},data_file_raw=on',
          compress=False),
    Shape('data-file-extended', 'data_file={data},extended_l2=on',
          compress=False),
]


class Workload:
    """Random commands for one image, and the bytes that it then holds."""

    def __init__(self, seed, shape, model=None):
        self.rng = random.Random(seed)
        self.shape = shape
        self.model = model if model is not None else bytearray(shape.size)
        # Guest clusters nobody has written: the genuine tool compresses only
        # into these.
        self.fresh = set(range(-(-len(self.model) // shape.cluster)))

    def touch(self, offset, length):
        cluster = self.shape.cluster
        self.fresh -= set(range(offset // cluster,
                                -(-(offset + length) // cluster)))

    def fill(self, offset, length, byte):
        self.model[offset:offset + length] = bytes([byte]) * length
        self.touch(offset, length)

    def a_range(self):
        """Whole clusters, sectors or odd bytes; short or over several."""
        size, cluster = len(self.model), self.shape.cluster
        unit = self.rng.choice((cluster, cluster, max(cluster // 32, 512),
                                4 * KiB, 512, 1))
        most = self.rng.choice((1, 1, 3, 9))
        offset = self.rng.randrange(size) // unit * unit
        length = self.rng.randint(1, most) * unit
        if unit == 1:
            length = self.rng.randint(1, 3 * cluster)
        return offset, min(length, size - offset)

    def write(self):
        offset, length = self.a_range()
        byte = self.rng.randrange(1, 256)
        self.fill(offset, length, byte)
        return 'write -q -P %d %d %d' % (byte, offset, length)

    def zero(self):
        offset, length = self.a_range()
        self.fill(offset, length, 0)
        flag = self.rng.choice((' -u', ''))
        return 'write -q -z%s %d %d' % (flag, offset, length)

    def compressed(self):
        cluster = self.shape.cluster
        whole = sorted(number for number in self.fresh
                       if (number + 1) * cluster <= len(self.model))
        if not self.shape.compress or not whole:
            return self.write()
        offset = self.rng.choice(whole) * cluster
        byte = self.rng.randrange(1, 256)
        self.fill(offset, cluster, byte)
        return 'write -q -c -P %d %d %d' % (byte, offset, cluster)

    def discard(self):
        """Whole clusters read as zero after it, their parts are unchanged."""
        if not self.shape.discard:
            return self.zero()
        offset, length = self.a_range()
        size, cluster = len(self.model), self.shape.cluster
        begin = -(-offset // cluster) * cluster
        end = offset + length
        if end != size:
            end = end // cluster * cluster
        if begin < end:
            self.fill(begin, end - begin, 0)
        return 'discard -q %d %d' % (offset, length)

    def commands(self, count):
        kinds = [self.write] * 4 + [self.zero] * 2 + [self.compressed] * 2 + \
            [self.discard] * 2 + [lambda: 'flush']
        return [self.rng.choice(kinds)() for _ in range(count)]

    def read_back(self, count):
        """read -P commands over ranges that hold one byte value."""
        lines = []
        while len(lines) < count:
            offset, length = self.a_range()
            byte = self.model[offset]
            same = length
            stretch = bytes(self.model[offset:offset + length])
            rest = stretch.lstrip(bytes([byte]))
            same = length - len(rest)
            lines.append('read -q -P %d %d %d' % (byte, offset, same))
        return lines


def io_script(tools, path, lines, fmt='qcow2'):
    """Run commands in one process; nothing may be printed but prompts."""
    done = run(*tools.io, '-f', fmt, '-d', 'unmap', path,
               input='\n'.join(lines) + '\nquit\n')
    text = (done.stdout + done.stderr).replace('qemu-io> ', '').strip()
    if text:
        pytest_fail('%s io %s said:\n%s' % (tools.name, path, text[:2000]))


def guest_bytes(tools, path, tmp_path, *options, fmt='qcow2'):
    """What the tool's convert makes of the image."""
    out = tmp_path / ('%s.%s.raw' % (path.name, tools.name))
    tools.run('convert', '-f', fmt, '-O', 'raw', *options, path, out)
    content = out.read_bytes()
    out.unlink()
    return content


def assert_same(found, model, what):
    """Equal bytes, or the first difference in words."""
    if found == model:
        return
    if len(found) != len(model):
        pytest_fail('%s: %d bytes instead of %d' % (what, len(found),
                                                    len(model)))
    low, high = 0, len(model)
    while high - low > 1:
        middle = (low + high) // 2
        if found[low:middle] == model[low:middle]:
            low = middle
        else:
            high = middle
    pytest_fail('%s: offset %#x holds %#x instead of %#x' % (
        what, low, found[low], model[low]))
