# SPDX-License-Identifier: MIT
"""--object: keys that the kernel keeps, helpers for reservations, threads."""
import ctypes
import os
import socket
import threading

import pytest

from harness import need_libcrypto, run

# x86 and arm number them differently.
CALLS = {'x86_64': (248, 250), 'aarch64': (217, 219)}.get(os.uname().machine)
SESSION_KEYRING = -3
JOIN_SESSION_KEYRING = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def add_key(content):
    """The serial of a key in a session keyring of our own."""
    if not CALLS:
        pytest.skip('the numbers of the calls are not known here')
    add, control = CALLS
    LIBC.syscall.restype = ctypes.c_long
    if LIBC.syscall(control, JOIN_SESSION_KEYRING, None, 0, 0, 0) < 0:
        pytest.skip('the kernel keeps no keys here')
    serial = LIBC.syscall(add, b'user', b'lamella-test', content,
                          ctypes.c_size_t(len(content)), SESSION_KEYRING)
    if serial < 0:
        pytest.skip('the kernel keeps no key: %s'
                    % os.strerror(ctypes.get_errno()))
    return serial


@pytest.fixture
def locked(lamella, tmp_path):
    need_libcrypto()
    image = tmp_path / 'x.luks'
    lamella.run('create', '-q', '-f', 'luks', '--object',
                'secret,id=s,data=swordfish', '-o',
                'key-secret=s,iter-time=10', image, '1M')
    return 'driver=luks,key-secret=k,file.filename=%s' % image


@pytest.mark.parametrize('content, options, status', [
    (b'swordfish', '', 0), (b'c3dvcmRmaXNo', ',format=base64', 0),
    (b'swordfisch', '', 1)])
def test_kernel_key(lamella, locked, content, options, status):
    told = run(*lamella.img, 'map', '--output=json', '--object',
               'secret_keyring,id=k,serial=%d%s' % (add_key(content), options),
               '--image-opts', locked, status=status)
    assert ('Invalid password' in told.stderr) == (status == 1)


def test_no_kernel_key(lamella, locked):
    told = run(*lamella.img, 'map', '--object',
               'secret_keyring,id=k,serial=2147483632', '--image-opts', locked,
               status=1)
    assert 'Unable to read serial key 7ffffff0: ' in told.stderr


def test_kernel_key_decrypts(lamella, locked):
    """A key of 32 bytes there, and what is encrypted with it here."""
    serial = add_key(b'a' * 32)
    lamella.run('map', '--output=json', '--object',
                'secret_keyring,id=m,serial=%d' % serial, '--object',
                'secret,id=k,keyid=m,format=base64,'
                'data=SVxjEXHXgo5OAaTxcOf+gQ==,iv=YmJiYmJiYmJiYmJiYmJiYg==',
                '--image-opts', locked)


@pytest.mark.parametrize('answer, message', [
    (bytes(4), None), (b'\0\0\0\1', None), (b'\0\0', 'Unexpected end-of-file'),
    (b'', 'Unexpected end-of-file')])
def test_reservations(lamella, tmp_path, answer, message):
    heard = []

    def serve():
        peer, _ = server.accept()
        peer.sendall(answer)
        if len(answer) == 4:
            heard.append(peer.recv(4))
        peer.close()

    (tmp_path / 'raw.img').write_bytes(bytes(65536))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / 's'))
        server.listen()
        server.settimeout(60)
        thread = threading.Thread(target=serve)
        thread.start()
        told = run(*lamella.img, 'map', '--object',
                   'pr-manager-helper,id=p,path=%s' % (tmp_path / 's'),
                   '--image-opts', 'driver=raw,file.driver=file,'
                   'file.filename=%s,file.pr-manager=p'
                   % (tmp_path / 'raw.img'), status=1 if message else 0)
        thread.join()
    assert (message or '') in told.stderr
    assert heard == ([] if message else [bytes(4)])


@pytest.mark.parametrize('text, message', [
    ('cpu-affinity.0=%d', None), ('cpu-affinity.0=%d,cpu-affinity.1=60000',
                                  None),
    ('node-affinity.0=0', None), ('cpu-affinity.0=60000',
                                  'Setting CPU affinity failed'),
    ('node-affinity.0=60000', 'The nodes select no CPUs')])
def test_threads(lamella, tmp_path, text, message):
    (tmp_path / 'raw.img').write_bytes(bytes(65536))
    if '%' in text:
        text %= min(os.sched_getaffinity(0))
    told = run(*lamella.img, 'map', '-f', 'raw', '--object',
               'thread-context,id=t,' + text, tmp_path / 'raw.img',
               status=1 if message else 0)
    assert (message or '') in told.stderr


def test_tells_which_list_revokes_nothing(lamella, tmp_path):
    """A list of what was revoked that cannot be read is not passed over."""
    tls = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir,
                       'tls')
    for name in 'ca-cert.pem', 'client-cert.pem', 'client-key.pem':
        with open(os.path.join(tls, name), 'rb') as source:
            (tmp_path / name).write_bytes(source.read())
    (tmp_path / 'ca-crl.pem').write_text('junk')
    told = run(*lamella.img, 'map', '--object', 'tls-creds-x509,id=t,dir=%s'
               % tmp_path, '-f', 'raw', tmp_path / 'ca-crl.pem', status=1)
    assert 'ca-crl.pem' in told.stderr or 'built without' in told.stderr


def test_depth(lamella):
    """What is nested deep takes no memory for all the paths to it."""
    key = 'data' + '.a' * 40000
    told = run(*lamella.img, 'info', '--object', 'secret,id=s,%s=x' % key, 'x',
               status=1)
    assert told.stderr == ("lamella: Parameter '%s...' has 40001 parts "
                           '(limit: 32)\n' % key[:40])
