# SPDX-License-Identifier: MIT
"""Disks that fail by rule: what the commands say, and what is left behind."""
import json
import signal
import subprocess

import pytest

from harness import KiB, MiB, random_bytes, run

# Those that the script below comes to.
EVENTS = '''
    l1_update l2_load l2_update l2_update_compressed l2_alloc_cow_read
    l2_alloc_write cow_read cow_write write_aio write_compressed refblock_load
    refblock_update_part refblock_alloc cluster_alloc cluster_alloc_bytes
    cluster_free flush_to_os flush_to_disk pwritev vmstate_save
    l1_grow_write_table l1_grow_activate_table'''.split()


def failing(name, form='raw', **rule):
    """A description of the image @name that fails by @rule."""
    rule.setdefault('event', 'none')
    return 'json:' + json.dumps({
        'driver': form, 'file': {
            'driver': 'blkdebug', 'inject-error': [rule],
            'image': {'driver': 'file', 'filename': name}}})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'a.raw').write_bytes(random_bytes(5, MiB))
    return tmp_path


def io(tools, folder, name, *commands, status=0):
    words = [word for command in commands for word in ('-c', command)]
    return run(*tools.io, *words, name, cwd=folder, status=status, timeout=30)


def make_qcow2(tools, folder):
    run(*tools.img, 'convert', '-f', 'raw', '-O', 'qcow2', 'a.raw', 'a.qcow2',
        cwd=folder)
    return (folder / 'a.raw').read_bytes()


def content(tools, folder, name):
    run(*tools.img, 'convert', '-O', 'raw', name, 'content', cwd=folder)
    return (folder / 'content').read_bytes()


def test_salvage_loses_one_sector(lamella, folder):
    source = failing('a.raw', iotype='read', sector=700)
    done = run(*lamella.img, 'convert', '-O', 'raw', source, 'out.raw',
               cwd=folder, status=1)
    assert "a.raw' at offset" in done.stderr and done.stderr.count('\n') == 1
    assert not (folder / 'out.raw').exists()
    done = run(*lamella.img, 'convert', '--salvage', '-O', 'raw', source,
               'out.raw', cwd=folder)
    assert str(700 * 512) in done.stderr
    expected = bytearray((folder / 'a.raw').read_bytes())
    expected[700 * 512:701 * 512] = bytes(512)
    assert (folder / 'out.raw').read_bytes() == expected


def test_the_host_does_not_copy_past_the_rules(lamella, folder):
    run(*lamella.img, 'convert', '-C', '-O', 'raw',
        failing('a.raw', iotype='read', sector=700), 'out.raw', cwd=folder,
        status=1)
    # The same goes for what shifts offsets.
    part = 'json:' + json.dumps({'driver': 'raw', 'offset': 65536, 'file': {
        'driver': 'file', 'filename': 'a.raw'}})
    run(*lamella.img, 'convert', '-C', '-O', 'raw', part, 'out.raw',
        cwd=folder)
    assert (folder / 'out.raw').read_bytes() == \
        (folder / 'a.raw').read_bytes()[65536:]


@pytest.mark.parametrize('name', ['lamella', 'qemu-img'])
def test_interrupted_comparison_says_so(lamella, our_img, folder, name):
    (folder / 'b.raw').write_bytes((folder / 'a.raw').read_bytes())
    slow = 'driver=raw,file.driver=throttle,file.throttle-group=t,' \
        'file.file.filename=a.raw'
    job = subprocess.Popen(
        [*(lamella.img if name == 'lamella' else [our_img]), 'compare', '-p',
         '--object', 'throttle-group,id=t,x-bps-total=65536', '--image-opts',
         slow, 'driver=raw,file.filename=b.raw'], cwd=folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    job.stdout.read(1)                  # it has begun
    job.send_signal(signal.SIGINT)
    stderr = job.communicate(timeout=60)[1].decode()
    if name == 'qemu-img':
        assert (job.returncode, stderr) == (-signal.SIGINT, '')
        return
    assert job.returncode == 128 + signal.SIGINT
    assert stderr == 'lamella: interrupted by SIGINT: the images were not ' \
        'compared to the end\n'


def test_target_that_fails(lamella, folder):
    run(*lamella.img, 'create', '-f', 'qcow2', 'out.qcow2', '1M', cwd=folder)
    target = failing('out.qcow2', 'qcow2', event='write_aio', errno=28)
    done = run(*lamella.img, 'convert', '-n', '-O', 'qcow2', 'a.raw', target,
               cwd=folder, status=1)
    assert 'No space left on device' in done.stderr
    run(*lamella.img, 'check', 'out.qcow2', cwd=folder)


def test_comparison_names_what_failed(lamella, folder):
    make_qcow2(lamella, folder)
    done = run(*lamella.img, 'compare', 'a.raw',
               failing('a.qcow2', 'qcow2', event='read_aio'), cwd=folder,
               status=4)
    assert 'offset 0' in done.stderr and 'Input/output error' in done.stderr


def test_rules_that_are_wrong(lamella, folder):
    done = io(lamella, folder, failing('a.raw', event='nonsense'), 'length',
              status=1)
    assert 'invalid parameter value: nonsense' in done.stderr
    done = io(lamella, folder, failing('a.raw', sector='x'), 'length',
              status=1)
    assert "'sector' expects a number" in done.stderr


@pytest.mark.parametrize('event', EVENTS)
def test_one_failure_anywhere_corrupts_nothing(lamella, folder, event):
    """Whatever fails, at worst clusters leak and old data stay."""
    before = make_qcow2(lamella, folder)
    run(*lamella.img, 'snapshot', '-c', 's', 'a.qcow2', cwd=folder)
    name = failing('a.qcow2', 'qcow2', event=event, once=True)
    run(*lamella.io, '-c', 'write -P 1 0 4k', '-c', 'write -c -P 2 128k 64k',
        '-c', 'discard 256k 64k', '-c', 'write -z 320k 10k', '-c', 'flush',
        '-c', 'write -b -P 3 0 4k', '-c', 'write -P 4 64k 64k', name,
        cwd=folder, status=None, timeout=30)
    done = run(*lamella.img, 'check', 'a.qcow2', cwd=folder, status=None)
    assert done.returncode in (0, 3), done.stdout
    after = content(lamella, folder, 'a.qcow2')
    assert after[384 * KiB:] == before[384 * KiB:]
    assert after[:4 * KiB] in (before[:4 * KiB], b'\1' * 4 * KiB)
    assert after[4 * KiB:64 * KiB] == before[4 * KiB:64 * KiB]


def test_requests_wait_for_one_that_waits(lamella, folder):
    """A write to the cluster of one that stopped comes after it."""
    run(*lamella.img, 'create', '-f', 'qcow2', 'a.qcow2', '1M', cwd=folder)
    done = io(lamella, folder, 'blkdebug::a.qcow2', 'break write_aio A',
              'aio_write -P 1 0 8k', 'wait_break A', 'aio_write -P 2 4k 8k',
              'write -q -P 3 512k 4k', 'length', 'resume A', 'aio_flush')
    lines = [line for line in done.stdout.splitlines() if 'ops;' not in line]
    assert sorted(lines[3:]) == ['wrote 8192/8192 bytes at offset 0',
                                 'wrote 8192/8192 bytes at offset 4096']
    assert lines[:3] == [
        "blkdebug: Suspended request 'A'", '1 MiB',
        "blkdebug: Resuming request 'A'"]
    after = content(lamella, folder, 'a.qcow2')
    assert after[:12 * KiB] == b'\1' * 4 * KiB + b'\2' * 8 * KiB


def test_crash_between_data_and_entry(lamella, folder):
    before = make_qcow2(lamella, folder)
    run(*lamella.img, 'snapshot', '-c', 's', 'a.qcow2', cwd=folder)
    run(*lamella.io, '-c', 'break write_aio A', '-c', 'aio_write -P 1 0 64k',
        '-c', 'wait_break A', '-c', 'abort', 'blkdebug::a.qcow2', cwd=folder,
        status=None, timeout=30)
    done = run(*lamella.img, 'check', 'a.qcow2', cwd=folder, status=None)
    assert done.returncode in (0, 3), done.stdout
    assert content(lamella, folder, 'a.qcow2') == before


def test_end_of_a_session_lets_requests_go(lamella, folder):
    done = io(lamella, folder, 'blkdebug::a.raw', 'break write_aio A',
              'aio_write -P 1 0 4k', 'wait_break A')
    assert 'wrote 4096/4096 bytes at offset 0' in done.stdout
    done = io(lamella, folder, 'blkdebug::a.raw', 'wait_break A', status=1)
    assert 'no request is under way' in done.stderr


def test_state_of_a_machine_goes_with_a_snapshot(lamella, folder):
    before = make_qcow2(lamella, folder)
    io(lamella, folder, 'a.qcow2', 'write -b -P 5 0 100k')
    run(*lamella.img, 'snapshot', '-c', 's', 'a.qcow2', cwd=folder)
    io(lamella, folder, 'a.qcow2', 'write -b -P 6 512 512',
       'read -b -P 5 0 512', 'read -b -P 6 512 512', 'read -b -P 5 1k 99k',
       'read -b -P 0 100k 4k')
    run(*lamella.img, 'snapshot', '-a', 's', 'a.qcow2', cwd=folder)
    io(lamella, folder, 'a.qcow2', 'read -b -P 5 0 100k')
    run(*lamella.img, 'check', 'a.qcow2', cwd=folder)
    assert content(lamella, folder, 'a.qcow2') == before
