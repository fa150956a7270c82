# SPDX-License-Identifier: MIT
"""check of encrypted images, which needs no passphrase: damage to the header of
LUKS is found, and nothing that may hold keys is freed for it."""
import struct

import pytest

from harness import need_libcrypto, run
from images import get, put

NAME = 'a.qcow2'
SECRET = ['--object', 'secret,id=s,data=abc']
NODE = 'driver=qcow2,encrypt.key-secret=s,file.filename=' + NAME
EXTENSION, SLOTS = 112, 208     # in the file, in the header of LUKS

# Where in the header of LUKS, form, value, what is said of it.
DAMAGES = {
    'magic': (0, '>I', 0, 'Volume is not in LUKS format'),
    'payload': (104, '>I', 0, 'LUKS payload at sector 0 is overlapping'),
    'slot-state': (SLOTS, '>I', 0x1234, 'Keyslot 0 state'),
    'slot-iterations': (SLOTS + 4, '>I', 0, 'Keyslot 0 iteration count is zero'),
    'slot-place': (SLOTS + 40, '>I', 0xffffff, 'Keyslot 0 ends at sector'),
    'slot-stripes': (SLOTS + 44, '>I', 1, 'Keyslot 0 is corrupted'),
    'last-slot': (SLOTS + 7 * 48, '>I', 1, 'Keyslot 7 state'),
}
LENGTHS = {0: 'too short', 591: 'too short', 592: 'LUKS payload at sector'}


@pytest.fixture(scope='module')
def sound(lamella, tmp_path_factory):
    need_libcrypto()
    image = tmp_path_factory.mktemp('luks') / NAME
    lamella.run('create', '-q', *SECRET, '-f', 'qcow2', '-o',
                'cluster_size=4k,encrypt.format=luks,encrypt.key-secret=s,'
                'encrypt.iter-time=1', image, '1M')
    assert struct.unpack('>II', image.read_bytes()[EXTENSION:EXTENSION + 8]) \
        == (0x0537be77, 16)
    return image.read_bytes()


def judge(lamella, reference, sound, folder, damage):
    """@damage is at, form, value, text: it is found, whatever the repair; and
    once it is taken back, the image is what it was."""
    at, form, value, text = damage
    image = folder / NAME
    image.write_bytes(sound)
    right = get(image, at, form)
    put(image, at, form, value)
    damaged = image.read_bytes()
    for repair in [], ['-r', 'leaks'], ['-r', 'all']:
        done = run(*lamella.img, 'check', *repair, NAME, cwd=folder, status=2)
        assert 'ERROR Encryption header at' in done.stderr
        assert text in done.stderr
        assert image.read_bytes() == damaged
    put(image, at, form, right)
    reference.run('check', '-q', *SECRET, '--image-opts', NODE, cwd=folder)


@pytest.mark.parametrize('name', DAMAGES)
def test_header(lamella, reference, sound, tmp_path, name):
    at, *damage = DAMAGES[name]
    start = struct.unpack('>Q', sound[EXTENSION + 8:EXTENSION + 16])[0]
    judge(lamella, reference, sound, tmp_path, (start + at, *damage))


@pytest.mark.parametrize('length', LENGTHS)
def test_length(lamella, reference, sound, tmp_path, length):
    """All that follows it looks like leaks, and has the keys."""
    judge(lamella, reference, sound, tmp_path,
          (EXTENSION + 16, '>Q', length, LENGTHS[length]))
