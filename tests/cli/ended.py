# SPDX-License-Identifier: MIT
"""Commands ended by a signal at the n-th of the calls that change a file.

strace brings the signal before a thread's n-th call of one name, for each name
and each n.  What is to hold whenever that was is the caller's to say.
"""
import functools
import hashlib
import itertools
import os
import re
import shutil
import subprocess

import pytest

from harness import run

CALLS = ('fchmod', 'ftruncate', 'fallocate', 'pwrite64', 'pwritev', 'pwritev2',
         'copy_file_range', 'fsync', 'fdatasync', 'linkat', 'unlink', 'rename',
         'setxattr')


@functools.lru_cache(maxsize=None)
def traces():
    """There is an strace, and it may trace here."""
    return shutil.which('strace') and subprocess.run(
        ['strace', '-o', os.devnull, 'true'], capture_output=True,
        check=False).returncode == 0


def traced(argv, folder, names, *options):
    """What strace tells of @names, and of the process's end."""
    log = folder.parent / 'trace'
    run('strace', '-f', '-o', log, '-e', 'trace=' + ','.join(names), *options,
        *argv, cwd=folder, status=None)
    return log.read_text(errors='replace')


def need_strace():
    if not traces():
        pytest.skip('no strace that may trace here')


def calls_of(argv, folder):
    """(call, name of the file) in their order, of a run to the end."""
    need_strace()
    told = traced(argv, folder, CALLS, '-y')
    assert 'exited with 0' in told
    return re.findall(r'^\d+ +(\w+)\(\d+<(?:[^>]*/)?([^>/]+)>', told, re.M)


def at_each_step(number, argv, stock, folder):
    """Yields a name for each, when it has been made in a new copy of @stock and
    ended there."""
    need_strace()

    def attempt(names, *options):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(stock, folder)
        return traced(argv, folder, names, *options)
    whole = attempt(CALLS)
    used = [name for name in CALLS if ' %s(' % name in whole]
    assert used and '--- SIG' not in whole and 'exited with 0' in whole
    for name in used:
        for n in itertools.count(1):
            told = attempt([name], '-e', 'inject=%s:signal=%s:when=%d' % (
                name, number.name, n))
            if not re.search('(---|killed by) ' + number.name, told):
                break
            yield '%s %d' % (name, n)
        assert n > 1


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
