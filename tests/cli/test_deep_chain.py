# SPDX-License-Identifier: MIT
"""Chains of a thousand layers: few descriptors, and what becomes of files that
were closed meanwhile."""
import json
import os
import random
import resource
import shutil
import subprocess

import pytest

DEPTH = 1000
SIZE = 16 << 20


def layer(path, backing, cluster, byte):
    """An overlay of 64 KiB clusters with one cluster of its own."""
    header = bytearray(5 << 16)
    name = backing.encode()
    fields = [(0, b'QFI\xfb'), (4, 3, 4), (20, 16, 4), (24, SIZE, 8),
              (36, 1, 4), (40, 3 << 16, 8), (48, 1 << 16, 8), (56, 1, 4),
              (96, 4, 4), (100, 104, 4)]
    if backing:
        fields += [(8, 136, 8), (16, len(name), 4), (136, name),
                   (104, bytes.fromhex('e2792aca 00000005') + b'qcow2\0\0\0')]
    for offset, value, *width in fields:
        data = value.to_bytes(width[0], 'big') if width else value
        header[offset:offset + len(data)] = data
    header[1 << 16:(1 << 16) + 8] = (2 << 16).to_bytes(8, 'big')
    header[2 << 16:(2 << 16) + 12] = b'\0\1' * 6
    header[3 << 16:(3 << 16) + 8] = (1 << 63 | 4 << 16).to_bytes(8, 'big')
    at = (4 << 16) + 8 * cluster
    header[at:at + 8] = (1 << 63 | 5 << 16).to_bytes(8, 'big')
    with open(path, 'wb') as out:
        out.write(header)
        out.write(bytes([byte]) * 65536)


@pytest.fixture(scope='module')
def chain(tmp_path_factory):
    folder = tmp_path_factory.mktemp('deep')
    for number in range(DEPTH):
        layer(folder / ('%d.qcow2' % number),
              '%d.qcow2' % (number - 1) if number else '', number % 256,
              1 + number % 251)
    return folder


def expected():
    content = {}
    for number in range(DEPTH):
        content[number % 256] = 1 + number % 251
    return content


def few_descriptors():
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


@pytest.fixture(name='limited')
def fixture_limited(our_lamella, chain):
    def call(*arguments, text=None, cwd=chain):
        return subprocess.run([our_lamella, *arguments], cwd=cwd, input=text,
                              preexec_fn=few_descriptors, text=True,
                              capture_output=True, check=False, timeout=100)
    return call


def top():
    return '%d.qcow2' % (DEPTH - 1)


def test_all_is_read(limited):
    script = ''.join('read -q -P %d %d 64k\n' % (byte, cluster << 16)
                     for cluster, byte in expected().items())
    done = limited('io', top(), text=script + 'quit\n')
    assert done.returncode == 0
    assert 'Pattern verification failed' not in done.stdout + done.stderr
    assert done.stderr == ''


def test_map_names_the_layers(limited):
    done = limited('map', '--output=json', top())
    assert done.returncode == 0, done.stderr
    depths = {extent['depth'] for extent in json.loads(done.stdout)
              if extent['data']}
    assert depths == set(range(256))


def test_info_and_measure(limited):
    done = limited('info', '--backing-chain', '--output=json', top())
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == DEPTH
    done = limited('measure', '-O', 'raw', top())
    assert done.returncode == 0, done.stderr


def test_convert_and_compare(limited, tmp_path):
    raw = str(tmp_path / 'out.raw')
    done = limited('convert', '-O', 'raw', top(), raw)
    assert done.returncode == 0, done.stderr
    with open(raw, 'rb') as stream:
        data = stream.read()
    for cluster, byte in expected().items():
        start = cluster << 16
        assert data[start:start + 65536] == bytes([byte]) * 65536
    done = limited('compare', '-F', 'raw', top(), raw)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('command', [
    ['chain'], ['chain', '--output=json'], ['check'], ['bench', '-c', '16'],
    ['snapshot', '-l'], ['map', '-U']], ids=' '.join)
def test_looked_at(limited, command):
    done = limited(*command, top())
    assert (done.returncode, done.stderr) == (0, '')
    if command == ['chain', '--output=json']:
        assert len(json.loads(done.stdout)) == DEPTH


def besides_changes(stderr):
    """The copies that are to be written to are younger than what lies over
    them, which is told; but not of each of hundreds."""
    lines = stderr.splitlines()
    others = [line for line in lines if ', its overlay, was made' not in line
              and 'further layers have changed' not in line]
    assert len(lines) - len(others) <= 5
    return others


@pytest.fixture(name='work')
def fixture_work(limited, chain, tmp_path):
    """Commands on the same chain, whose files may be written to if they are
    named in *own*; what the image reads as is looked at after each."""
    plain = tmp_path / 'plain'
    with open(plain, 'wb') as out:
        out.truncate(SIZE)
        for cluster, byte in expected().items():
            out.seek(cluster << 16)
            out.write(bytes([byte]) * 65536)
    folder = tmp_path / 'x'
    folder.mkdir()
    own = {0, 500, DEPTH - 2, DEPTH - 1}
    for number in range(DEPTH):
        name = '%d.qcow2' % number
        copy = shutil.copy if number in own else os.link
        copy(chain / name, folder / name)

    def call(image, *command):
        done = limited(*command, cwd=folder)
        assert done.returncode == 0, command
        assert not besides_changes(done.stderr), command
        done = limited('compare', '-F', 'raw', image, str(plain), cwd=folder)
        assert 'Images are identical.' in done.stdout, command
    return call


def test_layers_change(work):
    work('new', 'overlay', top(), 'new')
    work('new', 'snapshot', '-c', 's', 'new')
    work('copy', 'dd', 'bs=1M', 'if=new', 'of=copy')
    work(top(), 'commit', '-q', '-d', 'new')
    work('new', 'stream', '-b', '500.qcow2', 'new')
    work('new', 'rebase', '-b', '0.qcow2', '-F', 'qcow2', 'new')
    work('new', 'rebase', '-b', top(), '-F', 'qcow2', 'new')
    work('new', 'resize', '-q', 'new', '+1M')
    work('new', 'stream', 'new')


def test_committed_to_the_bottom(limited, work, tmp_path):
    done = limited('commit', '-q', '-b', '0.qcow2', top(), cwd=tmp_path / 'x')
    assert done.returncode == 0
    # Each layer between is named, and that is all.
    lines = besides_changes(done.stderr)
    assert len([x for x in lines if 'becomes invalid' in x]) == DEPTH - 2
    assert len(lines) == DEPTH - 2
    work('0.qcow2', 'check', '-q', '0.qcow2')


def test_two_chains_in_few_descriptors(our_lamella, chain):
    """Each keeps fewer than all there are."""
    done = subprocess.run(
        ['prlimit', '--nofile=64', our_lamella, 'compare', top(), top()],
        cwd=chain, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, 'Images are identical.\n'), \
        done.stderr


@pytest.mark.parametrize('way', [['-C'], ['--verify'], ['--resume', 'j']],
                         ids=['offload', 'verify', 'resume'])
def test_no_way_keeps_the_files_open(limited, tmp_path, way):
    raw = str(tmp_path / 'out.raw')
    way = [str(tmp_path / 'j') if word == 'j' else word for word in way]
    done = limited('convert', *way, '-O', 'raw', top(), raw)
    assert done.returncode == 0, done.stderr
    assert limited('compare', '-F', 'raw', top(), raw).returncode == 0


def test_loop(limited, tmp_path):
    layer(tmp_path / 'loop.qcow2', 'loop.qcow2', 0, 1)
    for command in 'map', 'commit':
        done = limited(command, 'loop.qcow2', cwd=tmp_path)
        assert done.returncode == 1
        assert 'infinite loop' in done.stderr


def test_bad_layer_is_named(limited, tmp_path):
    """Far below: by its place and its name, in one line."""
    (tmp_path / 'l0.qcow2').write_bytes(bytes(1 << 16))
    for number in range(1, 8):
        layer(tmp_path / ('l%d.qcow2' % number), 'l%d.qcow2' % (number - 1),
              number, 1)
    for command in ['map'], ['commit'], ['rebase', '-b', ''], ['stream']:
        done = limited(*command, 'l7.qcow2', cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.count('\n') == 1
        assert "file number 7, 'l0.qcow2': Image is not in qcow2" in done.stderr


@pytest.fixture(name='session')
def fixture_session(our_lamella, chain):
    """A process that has the chain open and has read nothing."""
    with subprocess.Popen([our_lamella, 'io', '-r', top()], cwd=chain,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as process:
        answer(process, 'length')
        yield process
        process.stdin.write('quit\n')
        process.stdin.flush()
        process.wait()


def answer(process, command):
    process.stdin.write(command + '\n')
    process.stdin.flush()
    line = process.stdout.readline()
    while line.strip() in ('', 'qemu-io>', 'lamella io>'):
        line = process.stdout.readline()
    return line


def test_descriptors_at_first(session):
    assert len(os.listdir('/proc/%d/fd' % session.pid)) <= 64


def test_memory_at_first(session):
    with open('/proc/%d/status' % session.pid, encoding='ascii') as status:
        peak = [line for line in status if line.startswith('VmHWM')]
    assert int(peak[0].split()[1]) <= 32 << 10


def test_changed_while_closed(session, chain):
    """Cluster 100 is layer 868's, which is closed by now."""
    path = chain / '868.qcow2'
    before = os.stat(path)
    os.utime(path)
    try:
        line = answer(session, 'read %d 512' % (100 << 16))
    finally:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert 'Stale file handle' in line


def test_still_there(session):
    line = answer(session, 'read -P %d %d 512' % (1 + 868 % 251, 100 << 16))
    assert line.startswith('read 512/512 bytes') or 'read 512/512' in line


def test_deleted_while_open(session, chain):
    """A file without a name could not be opened again, so it stays open."""
    files = '/proc/%d/fd' % session.pid
    names = [os.path.basename(os.readlink(os.path.join(files, fd)))
             for fd in os.listdir(files)]
    shown = [int(name[:-6]) for name in names if name.endswith('.qcow2')
             and int(name[:-6]) >= DEPTH - 256]
    path = chain / ('%d.qcow2' % shown[0])
    content = path.read_bytes()
    path.unlink()
    try:
        for number in [*range(DEPTH - 256, DEPTH), shown[0]]:
            line = answer(session, 'read -q -P %d %d 512\nlength' %
                          (1 + number % 251, number % 256 << 16))
            assert '16 MiB' in line, number
    finally:
        path.write_bytes(content)


# ---------------------------------------------------------- tables with holes

TABLE = 8192                    # entries; a page has 512
HOLED = 6                       # layers, of two tables each


def sparse_layer(path, backing, clusters, dense):
    """An overlay of 1 GiB that has @clusters, without their data.  The pages
    of its tables that are empty are holes, unless @dense."""
    layer(path, backing, 0, 1)
    with open(path, 'r+b') as image:
        image.seek(24)
        image.write((1 << 30).to_bytes(8, 'big'))
        image.seek(36)
        image.write((2).to_bytes(4, 'big'))
        image.truncate(4 << 16)
        if dense:
            image.seek(4 << 16)
            image.write(bytes(2 << 16))
        image.truncate((6 + len(clusters)) << 16)
        for table in range(2):
            image.seek((3 << 16) + 8 * table)
            image.write((1 << 63 | (4 + table) << 16).to_bytes(8, 'big'))
        for number, cluster in enumerate(clusters):
            image.seek((4 << 16) + 8 * cluster)
            image.write((1 << 63 | (6 + number) << 16).to_bytes(8, 'big'))
        image.flush()
        os.fsync(image.fileno())    # a hole is one when its neighbours are out


def holed_chain(folder, dense):
    folder.mkdir()
    owners = {}
    for number in range(HOLED):
        rng = random.Random(number)
        clusters = {rng.randrange(2 * TABLE) for _ in range(30)}
        clusters |= {edge * 512 + near for edge in rng.sample(range(1, 32), 8)
                     for near in (-1, 0)}
        if number == 0:
            clusters |= set(range(0, TABLE, 3))     # a table without a hole
        if number == 1:
            clusters |= {0, TABLE - 1, TABLE, 2 * TABLE - 1}
        sparse_layer(folder / ('%d.qcow2' % number),
                     '%d.qcow2' % (number - 1) if number else '',
                     sorted(clusters), dense)
        owners.update(dict.fromkeys(clusters, HOLED - 1 - number))
    return owners


@pytest.mark.parametrize('dense', [False, True])
def test_tables_with_holes(our_lamella, tmp_path, dense):
    owners = holed_chain(tmp_path / 'chain', dense)
    done = subprocess.run([our_lamella, 'map', '--output=json',
                           '%d.qcow2' % (HOLED - 1)], cwd=tmp_path / 'chain',
                          capture_output=True, check=True, timeout=100)
    found = {(extent['start'] >> 16) + i: extent['depth']
             for extent in json.loads(done.stdout) if extent['data']
             or 'offset' in extent for i in range(extent['length'] >> 16)}
    assert found == owners


def test_table_behind_the_end(our_lamella, tmp_path):
    holed_chain(tmp_path / 'chain', False)
    for name, end in (('0', (5 << 16) + 4096), ('1', 5 << 16)):
        path = tmp_path / 'chain' / (name + '.qcow2')
        size = os.stat(path).st_size
        os.truncate(path, end)
        done = subprocess.run([our_lamella, 'map', '--output=json',
                               '%d.qcow2' % (HOLED - 1)],
                              cwd=tmp_path / 'chain', text=True,
                              capture_output=True, check=False, timeout=100)
        os.truncate(path, size)
        # Of the last cluster of a file, what is missing is zeroes.
        assert ('file ends at' in done.stderr) == (name == '1')
