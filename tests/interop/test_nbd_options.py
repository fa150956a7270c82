# SPDX-License-Identifier: MIT
"""What the node nbd can be told: TLS, another question about its blocks, how
long a server is waited for."""
import json
import os
import shutil
import socket
import subprocess
import time

import pytest

from harness import MiB, make_mixed_file, run
# pylint: disable=unused-import
from test_nbd import Server, client, disk, genuine

TLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir,
                   'tls')
SERVERS = {
    'psk': 'tls-creds-psk,id=t,endpoint=server,dir=' + TLS,
    'x509': 'tls-creds-x509,id=t,endpoint=server,dir=' + TLS,
    'anon': 'tls-creds-anon,id=t,endpoint=server',
}
ALICE = 'tls-creds-psk,id=c,username=alice,dir=' + TLS


def same(lamella, genuine, words, status=0):
    ours, theirs = (run(*tools.img, *words, status=status)
                    for tools in (lamella, genuine))
    assert ours.stdout == theirs.stdout
    assert ours.stderr.split(': ', 1)[1:] == theirs.stderr.split(': ', 1)[1:]


@pytest.mark.parametrize('kind, objects, host', [
    ('psk', 'tls-creds-psk,id=c,dir=' + TLS, None), ('psk', ALICE, 'whoever'),
    ('anon', 'tls-creds-anon,id=c', None),
    ('x509', 'tls-creds-x509,id=c,dir=' + TLS, 'localhost'),
    ('x509', 'tls-creds-x509,id=c,dir=' + TLS, '127.0.0.1'),
    ('x509', 'tls-creds-x509,id=c,verify-peer=off,dir=' + TLS, None),
])
def test_tls(genuine, lamella, disk, tmp_path, kind, objects, host):
    """A few megabytes there and back, and what `info` and `map` tell."""
    (tmp_path / 'copy.raw').write_bytes(b'x' * 3 * MiB)
    with Server(tmp_path, tmp_path / 'copy.raw', 'raw', '--object',
                SERVERS[kind], '--tls-creds', 't') as server:
        node = 'driver=raw,file.driver=nbd,file.path=%s,file.export=exp,' \
            'file.tls-creds=c' % server.socket
        if host:
            node += ',file.tls-hostname=' + host
        options = ['--object', objects, '--image-opts']
        for command in (['info'], ['map', '--output=json']):
            same(lamella, genuine, [*command, *options, node])
        lamella.run('convert', '-n', '--object', objects,
                    '--target-image-opts', '-f', 'raw', disk, node)
        lamella.run('convert', *options, '-O', 'raw', node,
                    tmp_path / 'back.raw')
    assert (tmp_path / 'copy.raw').read_bytes() == disk.read_bytes()
    assert (tmp_path / 'back.raw').read_bytes() == disk.read_bytes()


@pytest.mark.parametrize('kind, objects, host, texts', [
    ('psk', None, None, ['TLS negotiation required before option 7 (go)']),
    ('psk', 'tls-creds-anon,id=c', None, ['TLS handshake failed']),
    ('x509', 'tls-creds-x509,id=c,dir=' + TLS, None,
     ['No hostname for certificate validation']),
    ('x509', 'tls-creds-x509,id=c,dir=' + TLS, 'other.example',
     ['Certificate does not match the hostname other.example']),
    ('psk', ALICE + ',priority=FOO', None,
     ['Unable to set TLS session priority FOO']),
    (None, ALICE, None, ['Denied by server for option 5 (starttls)',
                         'TLS not configured']),
])
def test_tls_refused(genuine, lamella, disk, tmp_path, kind, objects, host,
                     texts):
    options = ['--object', SERVERS[kind], '--tls-creds', 't'] if kind else []
    with Server(tmp_path, disk, 'raw', '-r', *options) as server:
        node = 'driver=nbd,path=%s,export=exp' % server.socket
        node += ',tls-creds=c' if objects else ''
        node += ',tls-hostname=' + host if host else ''
        words = ['info', *(['--object', objects] if objects else []),
                 '--image-opts', node]
        for tools in (genuine, lamella):
            told = run(*tools.img, *words, status=1)
            assert not told.stdout
            assert all(text in told.stderr for text in texts), told.stderr
        assert told.stderr.count('\n') == 1


def test_wrong_key(genuine, lamella, disk, tmp_path):
    (tmp_path / 'keys.psk').write_text('qemu:' + '12' * 16 + '\n')
    with Server(tmp_path, disk, 'raw', '-r', '--object', SERVERS['psk'],
                '--tls-creds', 't') as server:
        same(lamella, genuine,
             ['info', '--object', 'tls-creds-psk,id=c,dir=%s' % tmp_path,
              '--image-opts', 'driver=nbd,path=%s,export=exp,tls-creds=c'
              % server.socket], status=1)


def test_another_authority(genuine, lamella, disk, tmp_path):
    """A server's certificate that nobody we know has signed."""
    folder = tmp_path / 'own'
    folder.mkdir()
    shutil.copy(os.path.join(TLS, 'other-ca-cert.pem'), folder / 'ca-cert.pem')
    with Server(tmp_path, disk, 'raw', '-r', '--object',
                SERVERS['x509'] + ',verify-peer=off', '--tls-creds', 't') \
            as server:
        same(lamella, genuine,
             ['info', '--object', 'tls-creds-x509,id=c,dir=%s' % folder,
              '--image-opts', 'driver=nbd,path=%s,export=exp,tls-creds=c,'
              'tls-hostname=localhost' % server.socket], status=1)


@pytest.mark.parametrize('ca, own, text', [
    ('ca', 'expired', 'has expired'), ('ca', 'future', 'is not yet active'),
    ('ca', 'usage', 'usage does not permit digital signature'),
    ('ca', 'purpose', 'purpose does not allow use with a TLS client'),
    ('ca', 'ca', 'basic constraints show a CA'),
    ('client', 'client', 'basic constraints do not show a CA'),
    ('other-ca', 'client', 'failed validation'),
])
def test_own_certificates(genuine, lamella, disk, tmp_path, ca, own, text):
    """What no server would take is told before there is one."""
    for name, to in (('client-key', 'client-key'), (ca + '-cert', 'ca-cert'),
                     (own + '-cert', 'client-cert')):
        shutil.copy(os.path.join(TLS, name + '.pem'),
                    tmp_path / (to + '.pem'))
    creds = 'tls-creds-x509,id=c,dir=%s' % tmp_path
    same(lamella, genuine, ['info', '--object', creds, disk], status=1)
    assert text in run(*lamella.img, 'info', '--object', creds, disk,
                       status=1).stderr
    if own not in ('ca', 'client'):
        same(lamella, genuine, ['info', '-f', 'raw', '--object',
                                creds + ',sanity-check=off', disk])


@pytest.mark.parametrize('user', ['alic', 'alice2', ''])
def test_who_has_no_key(genuine, lamella, disk, user):
    same(lamella, genuine, ['info', '--object', 'tls-creds-psk,id=c,dir=%s,'
                            'username=%s' % (TLS, user), disk], status=1)


@pytest.mark.parametrize('byte, length', [
    ('b', 262144), ('b', 262145), ('\0', 300000)])
def test_long_line_of_keys(lamella, disk, tmp_path, byte, length):
    """What has no line end is not read without end."""
    fits = length <= 262144
    line, key = byte * length, 'alice:' + '12' * 16 + '\n'
    (tmp_path / 'keys.psk').write_text(line + '\n' + key)
    words = ['info', '--object', 'tls-creds-psk,id=c,username=alice,dir=%s'
             % tmp_path, disk]
    told = run(*lamella.img, *words, status=0 if fits else 1).stderr
    assert fits or 'PSK file %s has a line of more than 262144 bytes' % (
        tmp_path / 'keys.psk') in told and told.count('\n') == 1
    (tmp_path / 'keys.psk').write_text(key + line)      # is not looked at
    run(*lamella.img, *words)


@pytest.mark.parametrize('hello', [
    b'', b'NBDMAGIC', b'HTTP/1.1 400 Bad Request\r\n\r\n',
    b'NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\0\3',
    b'NBDMAGICIHAVEOPT\0\0', b'NBDMAGICIHAVEOPT\0\3',
    b'NBDMAGICIHAVEOPT\0\3' + bytes(20),
    b'NBDMAGICIHAVEOPT\0\3\0\3\xe8\x89\x04\x55\x65\xa9' +
    b'\0\0\0\5\x80\0\0\2\0\0\0\4no\n!',
    b'NBDMAGICIHAVEOPT\0\3\0\3\xe8\x89\x04\x55\x65\xa9' +
    b'\0\0\0\5\x80\0\0\2\xff\xff\xff\xff',
    b'NBDMAGICIHAVEOPT\0\3\0\3\xe8\x89\x04\x55\x65\xa9' +
    b'\0\0\0\5\0\0\0\1\0\0\0\0' + b'no TLS record here' * 9,
])
def test_hostile_before_tls(lamella, tmp_path, hello):
    """Whatever a server says before TLS is an error in one line."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / 's'))
        server.listen()
        asked = subprocess.Popen(
            [*lamella.img, 'info', '--object', ALICE, '--image-opts',
             'driver=nbd,path=%s,tls-creds=c' % (tmp_path / 's')],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        peer, _ = server.accept()
        peer.sendall(hello)
        peer.shutdown(socket.SHUT_WR)
        out, told = asked.communicate(timeout=60)
        peer.close()
    assert asked.returncode == 1 and out == ''
    assert told.count('\n') == 1 and 'Could not open' in told


@pytest.fixture
def marked(genuine, tmp_path):
    """An image with a bitmap, and zeroes in the middle."""
    path = tmp_path / 'bm.qcow2'
    genuine.run('create', '-q', '-f', 'qcow2', path, '1M')
    genuine.run('bitmap', '--add', path, 'b0')
    genuine.io_run(path, 'write -P 5 128k 128k', 'write -z 512k 64k')
    return path


@pytest.mark.parametrize('context', [
    'qemu:dirty-bitmap:b0', 'qemu:allocation-depth', 'base:allocation'])
def test_other_question(genuine, lamella, marked, tmp_path, context):
    with Server(tmp_path, marked, 'qcow2', '-r', '-B', 'b0', '-A') as server:
        node = 'driver=nbd,path=%s,export=exp,x-dirty-bitmap=%s' % (
            server.socket, context)
        for command in (['map'], ['map', '--output=json'], ['info']):
            same(lamella, genuine, [*command, '--image-opts', node])
        tree = {'driver': 'raw', 'file': {
            'driver': 'nbd', 'path': server.socket, 'export': 'exp',
            'x-dirty-bitmap': context}}
        same(lamella, genuine, ['map', '--output=json',
                                'json:' + json.dumps(tree)])
        # What is marked is no less there.
        lamella.run('convert', '--image-opts', '-O', 'raw', node,
                    tmp_path / 'copy')
        lamella.run('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b',
                    'json:' + json.dumps(tree), tmp_path / 'top.qcow2')
        lamella.io_run(tmp_path / 'top.qcow2', 'read -P 5 128k 128k',
                       'read -P 0 512k 64k')
    genuine.run('compare', '-f', 'raw', '-F', 'qcow2', tmp_path / 'copy',
                marked)


def test_unknown_question(genuine, lamella, marked, tmp_path):
    with Server(tmp_path, marked, 'qcow2', '-r') as server:
        for context in ('qemu:dirty-bitmap:nope', 'foo'):
            same(lamella, genuine, [
                'map', '--image-opts', 'driver=nbd,path=%s,export=exp,'
                'x-dirty-bitmap=%s' % (server.socket, context)], status=1)


def test_waits_for_a_server(lamella, disk, tmp_path, genuine):
    """One that comes later is found; none is an error in time."""
    path = tmp_path / 's'
    node = 'driver=nbd,path=%s,export=exp,open-timeout=' % path
    told = run(*lamella.img, 'info', '--image-opts', node + '0', status=1)
    assert 'No such file' in told.stderr
    # The first time somebody is there who does not want to talk.
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        asked = subprocess.Popen(
            [*lamella.img, 'info', '--image-opts', node + '60'],
            stdout=subprocess.PIPE, text=True)
        deaf.accept()[0].close()
    path.unlink()
    with Server(tmp_path, disk, 'raw', '-r'):
        out, _ = asked.communicate(timeout=120)
    assert asked.returncode == 0 and 'virtual size: 3 MiB' in out


@pytest.mark.parametrize('delay', [0, 60])
def test_gets_a_connection_back(genuine, lamella, tmp_path, delay):
    """The server goes between two requests, and comes again."""
    make_mixed_file(tmp_path / 'disk.raw', MiB, 4)
    node = 'driver=raw,file.driver=nbd,file.export=exp,file.path=%s,' \
        'file.reconnect-delay=%d' % (tmp_path / 's', delay)
    with Server(tmp_path, tmp_path / 'disk.raw'):
        shell = subprocess.Popen(
            [*lamella.io, '--image-opts', node], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            bufsize=1)
        shell.stdin.write('write -P 7 64k 64k\nflush\n')
        shell.stdin.flush()
        while (tmp_path / 'disk.raw').read_bytes()[65536:131072] != \
                b'\7' * 65536:
            assert shell.poll() is None
            time.sleep(.01)
    os.unlink(tmp_path / 's')
    os.unlink(tmp_path / 'pid')
    with Server(tmp_path, tmp_path / 'disk.raw'):
        out, _ = shell.communicate('write -P 8 128k 64k\nread -P 7 64k 64k\n'
                                   'q\n', timeout=120)
    data = (tmp_path / 'disk.raw').read_bytes()[131072:196608]
    assert (data == b'\x08' * 65536) == (delay > 0), out
    assert ('failed' in out) == (delay == 0), out
