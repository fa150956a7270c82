# SPDX-License-Identifier: MIT
"""Commands ended by a signal at the n-th call that changes a file.

strace brings the signal before the n-th such call of any thread.  What is to
hold whenever that was is the caller's to say.
"""
import functools
import hashlib
import os
import shutil
import subprocess

import pytest

from harness import run

CALLS = 'fchmod,ftruncate,fallocate,pwrite64,pwritev,pwritev2,' \
    'copy_file_range,fsync,fdatasync,linkat,unlink,rename,setxattr'


@functools.lru_cache(maxsize=None)
def traces():
    """There is an strace, and it may trace here."""
    return shutil.which('strace') and subprocess.run(
        ['strace', '-o', os.devnull, 'true'], capture_output=True,
        check=False).returncode == 0


def ended_at(number, step, argv, folder):
    """False: there are not so many calls, and it has come to its end."""
    log = folder.parent / 'trace'
    run('strace', '-f', '-o', log, '-e', 'trace=' + CALLS, '-e',
        'inject=%s:signal=%s:when=%d' % (CALLS, number.name, step), *argv,
        cwd=folder, status=None)
    return '--- %s ' % number.name in log.read_text() or \
        'killed by %s' % number.name in log.read_text()


def at_each_step(number, argv, stock, folder):
    """Yields after each, in a new copy of @stock; True is for the last one,
    which no signal has ended."""
    if not traces():
        pytest.skip('no strace that may trace here')
    came, step = True, 0
    while came:
        step += 1
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(stock, folder)
        came = ended_at(number, step, argv, folder)
        yield step
    assert step > 2


def digest(lamella, folder, *args):
    """Of what convert reads when it is called with @args; or why it reads
    nothing."""
    out = folder.parent / 'digest.raw'
    done = run(*lamella.img, 'convert', *args, '-O', 'raw', out, cwd=folder,
               status=None)
    if done.returncode:
        return done.stderr
    number = hashlib.sha256(out.read_bytes()).hexdigest()
    out.unlink()
    return number
