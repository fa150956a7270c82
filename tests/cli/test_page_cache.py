# SPDX-License-Identifier: MIT
"""What a conversion leaves in the host's page cache: with O_DIRECT on either
side nothing of what others had there is pushed out."""
import os

import pytest

from harness import MiB, random_bytes, run

SIZE = 8 * MiB


def drop(path):
    with open(path, 'rb') as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached(path):
    done = run('fincore', '--bytes', '--noheadings', '--output', 'RES', path)
    return int(done.stdout)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / 'a.raw'
    path.write_bytes(random_bytes(5, SIZE))
    drop(path)
    if cached(path):
        pytest.skip('this file system keeps its files in memory')
    return path


@pytest.mark.parametrize('form', ['raw', 'qcow2'])
@pytest.mark.parametrize('requests', [[], ['-m', '16', '-W']])
def test_direct(lamella, source, form, requests):
    out = source.parent / 'out'
    lamella.run('convert', *requests, '-T', 'none', '-t', 'none', '-f', 'raw',
                '-O', form, source, out)
    assert cached(source) + cached(out) < (2 * SIZE) // 20
    lamella.run('compare', '-f', 'raw', '-F', form, source, out)


def test_direct_source_only(lamella, source):
    """`-T none` alone: the source stays out, whatever becomes of the target."""
    lamella.run('convert', '-T', 'none', '-f', 'raw', '-O', 'raw', source,
                source.parent / 'out')
    assert cached(source) < SIZE // 20
