# SPDX-License-Identifier: MIT
"""Images on NBD servers: the genuine qemu-nbd serves, both tools ask."""
import json
import os
import re
import socket
import subprocess
import time

import pytest

from harness import GENUINE, MiB, make_mixed_file, run

SERVER = GENUINE and os.path.join(os.path.dirname(GENUINE[-1].img[0]),
                                  'qemu-nbd')


@pytest.fixture(scope='module')
def genuine():
    if not SERVER or not os.path.exists(SERVER):
        pytest.skip('qemu-nbd is not here')
    return GENUINE[-1]


@pytest.fixture(scope='module', autouse=True)
def client(lamella):
    told = run(*lamella.img, 'info', 'nbd:unix:/nonexistent', status=1).stderr
    if 'has no NBD client' in told:
        pytest.skip('built without libnbd')


class Server:
    """A qemu-nbd on a UNIX socket; gone behind "with"."""

    def __init__(self, folder, image, form='raw', *options, name='exp'):
        self.socket = str(folder / 's')
        self.uri = 'nbd+unix:///%s?socket=%s' % (name, self.socket)
        ready = folder / 'pid'          # written when it listens
        self.process = subprocess.Popen(
            [SERVER, '-t', '-e', '16', '-f', form, '-x', name, '-k',
             self.socket, '--pid-file', ready, *options, image],
            stdin=subprocess.DEVNULL)
        while not ready.exists():
            assert self.process.poll() is None
            time.sleep(.005)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Asked kindly it takes more than a second; a raw file has all there is.
        self.process.kill()
        self.process.wait()


@pytest.fixture
def disk(tmp_path):
    make_mixed_file(tmp_path / 'disk.raw', 3 * MiB, 4)
    return tmp_path / 'disk.raw'


def test_tells_the_same(genuine, lamella, disk, tmp_path):
    with Server(tmp_path, disk, 'raw', '-r') as server:
        nodes = ({'driver': 'nbd', 'export': 'exp',
                  'server': {'type': 'unix', 'path': server.socket}},
                 {'driver': 'raw', 'file': {'driver': 'nbd', 'export': 'exp',
                                            'path': server.socket}})
        names = [server.uri, 'nbd:unix:%s:exportname=exp' % server.socket,
                 server.uri.replace('exp', 'e%78p')]
        names += ['json:' + json.dumps(node) for node in nodes]
        for name in names:
            for command in (['info'], ['info', '--output=json'],
                            ['map', '--output=json'], ['map'],
                            ['measure', '-O', 'qcow2']):
                ours, theirs = (tools.run(*command, name)
                                for tools in (lamella, genuine))
                assert ours == theirs, (name, command)


def test_converts_both_ways(genuine, lamella, disk, tmp_path):
    (tmp_path / 'copy.raw').write_bytes(b'x' * 3 * MiB)
    with Server(tmp_path, tmp_path / 'copy.raw') as server:
        lamella.run('convert', '-n', '-f', 'raw', '-O', 'raw', disk,
                    server.uri)
        lamella.run('compare', '-f', 'raw', '-F', 'raw', disk, server.uri)
        genuine.run('compare', '-f', 'raw', '-F', 'raw', disk, server.uri)
        lamella.run('convert', '-f', 'raw', '-O', 'qcow2', server.uri,
                    tmp_path / 'back.qcow2')
    genuine.run('compare', '-f', 'raw', '-F', 'qcow2', disk,
                tmp_path / 'back.qcow2')
    assert (tmp_path / 'copy.raw').read_bytes() == disk.read_bytes()


def test_makes_images_there(genuine, lamella, disk, tmp_path):
    with open(tmp_path / 'host.raw', 'wb') as host:
        host.truncate(6 * MiB)
    with Server(tmp_path, tmp_path / 'host.raw') as server:
        lamella.run('convert', '-O', 'qcow2', '-f', 'raw', disk, server.uri)
        genuine.run('compare', '-F', 'raw', '-f', 'qcow2', server.uri, disk)
        lamella.run('create', '-q', '-f', 'qcow2', server.uri, '1M')
        lamella.io_run(server.uri, 'write -P 5 0 64k', 'write -z 64k 64k',
                       'read -P 5 0 64k', options=['-f', 'qcow2'])
        genuine.io_run(server.uri, 'read -P 5 0 64k', 'read -P 0 64k 64k',
                       options=['-f', 'qcow2'])
        genuine.run('check', '-f', 'qcow2', server.uri)
        told = run(*lamella.img, 'create', '-f', 'raw', server.uri, '7M',
                   status=1)
        assert 'Cannot grow NBD nodes' in told.stderr
        told = run(*lamella.img, 'resize', '-f', 'raw', server.uri, '7M',
                   status=1)
        assert 'Cannot resize NBD nodes' in told.stderr


def test_lies_below(genuine, lamella, disk, tmp_path):
    top = tmp_path / 'top.qcow2'
    with Server(tmp_path, disk, 'raw', '-r') as server:
        lamella.run('create', '-q', '-f', 'qcow2', '-b', server.uri, '-F',
                    'raw', top)
        lamella.io_run(top, 'write -P 9 1000 3000')
        for tools in genuine, lamella:
            tools.io_run(top, 'read -P 9 1000 3000')
            tools.run('convert', '-O', 'raw', top, tmp_path / tools.name)
        assert (tmp_path / genuine.name).read_bytes() == \
            (tmp_path / lamella.name).read_bytes()
        # A header must not make us speak to a server.
        told = run(*lamella.img, 'map', '--untrusted', top, status=1)
        assert 'policy' in told.stderr
        told = run(*lamella.img, 'map', '--untrusted', server.uri, status=1)
        assert 'policy' in told.stderr


@pytest.mark.parametrize('name', ['exp', 'folder/exp'])
def test_has_no_directory(genuine, lamella, disk, tmp_path, name):
    """What a relative name would count from."""
    genuine.run('create', '-q', '-f', 'qcow2', '-b', 'disk.raw', '-F', 'raw',
                tmp_path / 'top.qcow2', cwd=tmp_path)
    genuine.run('create', '-q', '-f', 'qcow2', '-b', disk, '-F', 'raw',
                tmp_path / 'far.qcow2')

    def both(*args, status=0):
        ours, theirs = (run(*tools.img, *args, status=status, cwd=tmp_path)
                        for tools in (lamella, genuine))
        assert ours.stdout == theirs.stdout
        assert ours.stderr.split('\n')[0].partition(': ')[2] == \
            theirs.stderr.split('\n')[0].partition(': ')[2]
        return ours.stdout + ours.stderr

    with Server(tmp_path, tmp_path / 'top.qcow2', 'raw', '-r',
                name=name) as server:
        assert 'cannot determine actual path' in both('info', server.uri)
        assert 'full' not in both('info', '--output=json', server.uri)
        both('info', '--backing-chain', server.uri, status=1)
        assert 'base directory' in both('map', server.uri, status=1)
        both('create', '-q', '-f', 'qcow2', '-b', server.uri, '-F', 'qcow2',
             'n', status=1)
        both('compare', '--image-opts', 'driver=qcow2,file.driver=nbd,'
             'file.server.type=unix,file.server.path=%s,file.export=%s,'
             'backing.driver=raw,backing.file.filename=disk.raw' %
             (server.socket, name), 'driver=raw,file.filename=disk.raw')
    (tmp_path / 'far').mkdir()
    with Server(tmp_path / 'far', tmp_path / 'far.qcow2', 'raw', '-r',
                name=name) as server:
        both('info', '--output=json', '--backing-chain', server.uri)


def test_requests(genuine, lamella, disk, tmp_path):
    """Zeroes, discards, aligned and not, from several threads."""
    commands = ['write -P 1 0 1M', 'write -z 64k 64k', 'write -zu 256k 64k',
                'discard 512k 64k', 'write -P 3 700000 12345', 'flush',
                'read -P 1 0 64k', 'read -P 0 64k 64k', 'read -P 0 256k 64k',
                'read -P 3 700000 12345']
    commands += ['aio_write -P %d %dk 64k' % (n, 1024 + 64 * n)
                 for n in range(1, 32)] + ['aio_flush']
    commands += ['read -P %d %dk 64k' % (n, 1024 + 64 * n)
                 for n in range(1, 32)]
    with Server(tmp_path, disk) as server:
        told = lamella.io_run(server.uri, *commands, options=['-f', 'raw'])
        assert 'verification failed' not in told
        genuine.run('compare', '-f', 'raw', '-F', 'raw', server.uri, server.uri)


def test_refusals(genuine, lamella, disk, tmp_path):
    with Server(tmp_path, disk, 'raw', '-r') as server:
        missing = 'nbd:unix:%s:exportname=nope' % server.socket
        for name, command in ((server.uri, ['resize', '-f', 'raw']),
                              (server.uri, ['create', '-f', 'raw'])):
            ours, theirs = (run(*tools.img, *command, name, '1M', status=1)
                            for tools in (lamella, genuine))
            assert ours.stderr.split(': ', 1)[1] == \
                theirs.stderr.split(': ', 1)[1]
        told = run(*lamella.img, 'info', missing, status=1).stderr
        assert 'Requested export not available' in told


@pytest.mark.parametrize('hello', [b'', b'NBDMAGIC', b'HTTP/1.1 400\r\n\r\n',
                                   b'NBDMAGICIHAVEOPT\0\3'])
def test_is_no_server(lamella, tmp_path, hello):
    """Whatever says something else is an error in one line."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / 's'))
        server.listen()
        asked = subprocess.Popen(
            [*lamella.img, 'info', 'nbd:unix:%s' % (tmp_path / 's')],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        client, _ = server.accept()
        client.sendall(hello)
        client.close()
        out, told = asked.communicate(timeout=60)
    assert asked.returncode == 1 and out == ''
    assert re.fullmatch(r".*Could not open 'nbd:.*\n", told)
