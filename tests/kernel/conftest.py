# SPDX-License-Identifier: MIT
"""One virtual machine for all tests of this folder; guest.py runs in it."""
import json
import os
import re
import subprocess

import pytest

import guest
import vm
from harness import ROOT, build_dir


def kernel():
    """The test kernel's folder, fetched on first use; or LAMELLA_KERNEL, made
    by scripts/fetch-kernel from another package."""
    if os.environ.get('LAMELLA_KERNEL'):
        return os.environ['LAMELLA_KERNEL']
    folder = os.path.join(build_dir(), 'kernel')
    done = subprocess.run([os.path.join(ROOT, 'scripts', 'fetch-kernel'),
                           folder], stdin=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True)
    if done.returncode:
        pytest.skip(done.stderr.strip() or 'no test kernel')
    return folder


def library():
    for folder in 'lib', '.':
        path = os.path.join(build_dir(), folder, 'liblamella.so')
        if os.path.exists(path):
            return path
    return pytest.fail('liblamella.so is not built', pytrace=False)


def disks(folder):
    """Files behind virtual disks, full of old data."""
    arguments = []
    for name, device in (('blk', 'virtio-blk-pci,drive=blk'),
                         ('scsi', 'scsi-hd,drive=scsi')):
        path = folder / name
        path.write_bytes(b'before' * (guest.SIZE // 6 + 1))
        os.truncate(path, guest.SIZE)
        if name == 'scsi':
            arguments += ['-device', 'virtio-scsi-pci']
        arguments += ['-drive', 'if=none,id=%s,format=raw,discard=unmap,'
                      'cache=unsafe,file=%s' % (name, path), '-device',
                      device]
    return arguments


class Machine:
    def __init__(self, rows, status, lines, folder):
        self.rows, self.status, self.folder = rows, status, folder
        self.text = '\n'.join(line for line in lines
                              if not line.startswith('@@ROW'))[-3000:]


@pytest.fixture(scope='session')
def machine(lamella, tmp_path_factory, request):
    """What each row came to."""
    reason = vm.reason_for_none()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp('disks')
    wanted = sorted({item.callspec.params['row'] for item in
                     request.session.items if hasattr(item, 'callspec') and
                     'row' in item.callspec.params})
    if len(wanted) == len(guest.ROWS):
        wanted = []
    status, lines = vm.run(
        kernel(), guest.MODULES,
        ['/usr/bin/python3', '-B', os.path.join(ROOT, 'tests', 'kernel',
                                                'guest.py'),
         os.path.abspath(lamella.img[0]), os.path.abspath(library()), *wanted],
        disks(folder), limit=600)
    rows = {}
    for line in lines:
        found = re.match(r'@@ROW (.*)$', line)
        if found:
            row = json.loads(found[1])
            rows[row['row']] = row
    return Machine(rows, status, lines, folder)
