# SPDX-License-Identifier: MIT
"""Memory of those who look at the layers of a chain one by one: it does not
grow with their number."""
import random
import subprocess
import sys

import pytest

LAYERS = 32
CLUSTERS = 1500                 # of 4 KiB in each, each with a page of tables
CACHES = LAYERS * CLUSTERS * 4  # KiB, if each layer were to keep its tables
BUDGET = 96 << 10               # KiB: that of the image on top, and of the map

# A process begins with the peak of the one that it was forked from, and that
# of many tests is large: a small one is put between.
MEASURE = '''
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
'''


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
    done = subprocess.run([sys.executable, '-c', MEASURE, our_lamella, *command,
                           str(LAYERS - 1)], cwd=chain, check=True, text=True,
                          stdout=subprocess.PIPE)
    assert BUDGET < CACHES
    assert int(done.stdout) < BUDGET
