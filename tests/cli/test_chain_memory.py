# SPDX-License-Identifier: MIT
"""Memory of those who look at the layers of a chain one by one: it does not
grow with their number."""
import os
import random
import subprocess

import pytest

LAYERS = 32
CLUSTERS = 1500                 # of 4 KiB in each, each with a page of tables
CACHES = LAYERS * CLUSTERS * 4  # KiB, if each layer were to keep its tables
BUDGET = 96 << 10               # KiB: that of the image on top, and of the map


@pytest.fixture(name='chain', scope='module')
def fixture_chain(our_lamella, tmp_path_factory):
    folder = tmp_path_factory.mktemp('memory')
    rng = random.Random(7)
    for number in range(LAYERS):
        backing = ['-b', str(number - 1), '-F', 'qcow2'] if number else []
        subprocess.run([our_lamella, 'create', '-q', '-f', 'qcow2', '-o',
                        'cluster_size=4k', *backing, str(number), '16G'],
                       cwd=folder, check=True)
        places = rng.sample(range(1 << 22), CLUSTERS)
        subprocess.run([our_lamella, 'io', '-t', 'unsafe', str(number)],
                       input=''.join('write -q %d 4k\n' % (place << 12)
                                     for place in places),
                       cwd=folder, text=True, check=True,
                       stdout=subprocess.DEVNULL)
    return folder


@pytest.mark.parametrize('command', [['chain'], ['stream', '-q', '-b', '1']],
                         ids=' '.join)
def test_memory(our_lamella, chain, command):
    with subprocess.Popen([our_lamella, *command, str(LAYERS - 1)], cwd=chain,
                          stdout=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    assert BUDGET < CACHES
    assert usage.ru_maxrss < BUDGET
