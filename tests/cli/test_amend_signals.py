# SPDX-License-Identifier: MIT
"""amend ended by a signal, in the middle of its work.

No clock decides where that is: the pipe that takes the records of progress has
room for so many, so that the process waits within the next one.  Whatever it
was, the image checks clean but for leaks and reads the same, and when the same
is asked for again it is done.
"""
import fcntl
import json
import os
import signal
import struct
import subprocess
import termios

import pytest

from harness import run, wait_until

PIPE = 4096
SHORTEST = 16                       # bytes of a record

AMENDMENTS = {
    'wider': 'refcount_bits=64',
    'narrower': 'refcount_bits=1,lazy_refcounts=on',
    'down': 'compat=0.10',
}


@pytest.fixture(scope='module')
def stock(lamella, tmp_path_factory):
    """Data, zero clusters, and tables enough for many records."""
    image = tmp_path_factory.mktemp('amend') / 'stock.qcow2'
    lamella.run('create', '-q', '-f', 'qcow2', '-o',
                'cluster_size=4k,preallocation=metadata', image, '16M')
    lamella.io_run(image, 'write -P 7 0 300k', 'write -z 1M 2M',
                   'write -P 9 9M 64k', 'write -z 12M 1M')
    return image


def amendment(lamella, image, options):
    return [*lamella.img, 'amend', '-p', '-f', 'qcow2', '-o', options, image]


@pytest.fixture(scope='module')
def records(lamella, stock, tmp_path_factory):
    """What an amendment prints when nobody disturbs it, line by line."""
    printed = {}
    for name, options in AMENDMENTS.items():
        image = tmp_path_factory.mktemp(name) / 'a.qcow2'
        image.write_bytes(stock.read_bytes())
        printed[name] = run(*amendment(lamella, image, options)).stdout
    return printed


def waiting_bytes(descriptor):
    number = fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4))
    return struct.unpack('i', number)[0]


def begin(argv, text, records):
    """Running, and stuck behind so many records of @text."""
    ends = [at + 1 for at, char in enumerate(text) if char == '\n']
    room = ends[records - 1] + SHORTEST - 1
    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, PIPE)
    os.write(writer, bytes(PIPE - room))
    job = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=writer,
                           stderr=subprocess.PIPE)
    os.close(writer)
    wait_until(job, lambda: waiting_bytes(reader) > PIPE - SHORTEST)
    return job, reader


def contents(lamella, image):
    out = image.parent / 'out.raw'
    lamella.run('convert', '-f', 'qcow2', '-O', 'raw', image, out)
    return out.read_bytes()


@pytest.fixture(scope='module')
def expected(lamella, stock):
    return contents(lamella, stock)


def judge(lamella, name, image, expected):
    assert run(*lamella.img, 'check', image, status=None).returncode in (0, 3)
    assert contents(lamella, image) == expected
    run(*amendment(lamella, image, AMENDMENTS[name]))
    run(*lamella.img, 'check', '-r', 'leaks', image)
    info = json.loads(lamella.run('info', '--output=json', image))
    data = info['format-specific']['data']
    assert {'wider': data['refcount-bits'] == 64,
            'narrower': data['refcount-bits'] == 1 and
            data.get('lazy-refcounts'),
            'down': data['compat'] == '0.10'}[name]
    assert contents(lamella, image) == expected


@pytest.mark.parametrize('number, place', [
    (signal.SIGINT, 'middle'), (signal.SIGTERM, 'first'),
    (signal.SIGKILL, 'first'), (signal.SIGKILL, 'middle'),
    (signal.SIGKILL, 'last')])
@pytest.mark.parametrize('name', AMENDMENTS)
def test_ended_in_the_middle(lamella, stock, expected, records, tmp_path, name,
                             place, number):
    image = tmp_path / 'a.qcow2'
    image.write_bytes(stock.read_bytes())
    count = records[name].count('\n') - 1
    assert count > 1
    stop = {'first': 1, 'middle': count // 2, 'last': count}[place]
    job, reader = begin(amendment(lamella, image, AMENDMENTS[name]),
                        records[name], stop)
    job.send_signal(number)
    said = job.communicate(timeout=60)[1].decode()
    os.close(reader)
    if number == signal.SIGKILL:
        assert (job.returncode, said) == (-number, '')
    else:
        assert job.returncode == 128 + number
        assert said == "lamella: interrupted by %s: '%s' is sound, and may " \
            'be amended in part; ask for it again\n' % (number.name, image)
    judge(lamella, name, image, expected)


def test_as_qemu_img_it_says_nothing(lamella, our_img, stock, expected, records,
                                     tmp_path):
    image = tmp_path / 'a.qcow2'
    image.write_bytes(stock.read_bytes())
    argv = amendment(lamella, image, AMENDMENTS['wider'])
    job, reader = begin([our_img, *argv[1:]], records['wider'], 3)
    job.send_signal(signal.SIGTERM)
    assert job.communicate(timeout=60)[1] == b''
    os.close(reader)
    assert job.returncode == -signal.SIGTERM
    judge(lamella, 'wider', image, expected)
