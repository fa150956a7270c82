# SPDX-License-Identifier: MIT
"""L1 tables of snapshots that lie over each other.

What they name counts once for each, and a small file of many costs no more
than it has data.
"""
import json
import resource
import struct
import subprocess

from harness import MiB, run

CLUSTER = 512


def add_snapshots(image, tables):
    """Snapshots with these (offset, entries) for L1 tables."""
    with open(image, 'r+b') as stream:
        table = -(-stream.seek(0, 2) // CLUSTER) * CLUSTER
        stream.seek(table)
        for number, (offset, entries) in enumerate(tables, 1):
            names = b'%dn%d' % (number, number)
            length = len(b'%d' % number)
            item = struct.pack('>QIHHIIQIIQQ', offset, entries, length,
                               len(names) - length, 0, 0, 0, 0, 16, 0,
                               8 * MiB) + names
            stream.write(item + bytes(-len(item) % 8))
        stream.truncate(-(-stream.tell() // CLUSTER) * CLUSTER)
        stream.seek(60)
        stream.write(struct.pack('>IQ', len(tables), table))


def l1_of(image):
    with open(image, 'rb') as stream:
        stream.seek(40)
        return struct.unpack('>Q', stream.read(8))[0]


def counts(tools, image):
    report = json.loads(run(*tools.img, 'check', '-f', 'qcow2',
                            '--output=json', image, status=None).stdout)
    return {key: report.get(key, 0) for key in
            ('corruptions', 'leaks', 'check-errors', 'image-end-offset')}


def test_counts(lamella, genuine, tmp_path):
    """Three whole ones, parts at both ends, and one inside another."""
    image = tmp_path / 'a.qcow2'
    genuine.run('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', image,
                '8M')
    genuine.io_run(image, *('write -q %dK 4K' % at
                            for at in range(0, 8192, 96)))
    l1, entries = l1_of(image), 8 * MiB // (CLUSTER * CLUSTER // 8)
    add_snapshots(image, [(l1, entries)] * 3 + [
        (l1, 10), (l1, 0), (l1 + CLUSTER, entries - 64), (l1 + CLUSTER, 3)])
    assert counts(lamella, image) == counts(genuine, image)


def test_control_characters(lamella, tmp_path):
    """Neither an id nor a name reaches the terminal as it is; the columns stay
    where they are for any other."""
    image = tmp_path / 'a.qcow2'
    lamella.run('create', '-q', '-f', 'qcow2', image, '8M')
    lamella.run('snapshot', '-c', 'name', image)
    plain = lamella.run('snapshot', '-l', image)
    data = image.read_bytes()
    at = data.index(b'1name')
    image.write_bytes(data[:at] + b'\x1bna\nm' + data[at + 5:])
    for command in (['snapshot', '-l'], ['info']):
        said = lamella.run(*command, image)
        assert '\x1b' not in said and '\\x1b' in said and '\\x0a' in said
    assert '\n1       name ' in plain


def test_many_large_ones(lamella, tmp_path):
    """15,000 of 32 MiB each, at 512 places: 480 GiB to read one by one."""
    image = tmp_path / 'a.qcow2'
    lamella.run('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', image,
                '8M')
    with open(image, 'r+b') as stream:
        start = stream.seek(0, 2)
        stream.truncate(start + 33 * MiB)
    add_snapshots(image, [(start + i % 512 * CLUSTER, 4 * MiB - i)
                          for i in range(15000)])

    def limit():
        resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
    done = subprocess.run([*map(str, lamella.img), 'check', '-q', '-f',
                           'qcow2', image], preexec_fn=limit, timeout=60,
                          stderr=subprocess.DEVNULL)
    assert done.returncode == 2
