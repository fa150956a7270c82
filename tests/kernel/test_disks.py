# SPDX-License-Identifier: MIT
"""convert onto disks of a real kernel: the way from the command through ioctl,
block layer and SCSI command to the disk's map of provisioned blocks."""
import pytest

import guest
from harness import KiB, allocated, pytest_fail


@pytest.mark.timeout(700)
@pytest.mark.parametrize('row', [row['name'] for row in guest.ROWS])
def test_disk(machine, row):
    result = machine.rows.get(row)
    if result is None:
        pytest_fail('the machine (status %s) did not come to this row:\n%s' %
                    (machine.status, machine.text))
    if not result['ok']:
        pytest_fail('%s\n%s' % (result['detail'], machine.text))


@pytest.mark.parametrize('name', ['blk', 'scsi'])
def test_file_behind_a_virtual_disk(machine, name):
    """A guest's discard makes holes in the file on this side."""
    row = {'blk': 'virtio-blk', 'scsi': 'virtio-scsi'}[name]
    if row not in machine.rows:
        pytest.skip('the row %s was not run' % row)
    data = machine.rows[row]['facts']['data']
    assert data <= allocated(machine.folder / name) <= data + 256 * KiB
