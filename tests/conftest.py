# SPDX-License-Identifier: MIT
"""Fixtures that every pytest folder shares; helpers are in harness.py."""
import os
import shutil

import pytest

from harness import GENUINE, GENUINE_IDS, build_dir, our_tools


@pytest.fixture(scope='session')
def lamella():
    tools = our_tools(build_dir())
    if not os.path.exists(tools.img[0]):
        pytest.fail('%s is not built' % tools.img[0], pytrace=False)
    return tools


@pytest.fixture(scope='session')
def lamella_asan():
    path = os.environ.get('LAMELLA_ASAN_BUILD')
    if not path:
        pytest.skip('no ASan build (LAMELLA_ASAN_BUILD is not set)')
    return our_tools(path)


@pytest.fixture(scope='session')
def reference():
    """The newest genuine version."""
    if not GENUINE:
        pytest.skip('no genuine qemu-img here')
    return GENUINE[-1]


@pytest.fixture(scope='session')
def texts():
    """The genuine version whose texts are ours."""
    if not GENUINE or GENUINE[-1].version < (10,):
        pytest.skip('texts follow qemu-img 10, which is not here '
                    '(QEMU_IMG_2 is not set)')
    return GENUINE[-1]


@pytest.fixture(scope='session', params=GENUINE or [None],
                ids=GENUINE_IDS or ['none'])
def genuine(request):
    """Each genuine version in turn."""
    if request.param is None:
        pytest.skip('no genuine qemu-img here')
    return request.param


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    item.went_wrong = getattr(item, 'went_wrong', False) or report.failed


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item):
    """What a test has written goes at once, before the host stores it; but for
    what somebody may want to look at."""
    yield
    folder = (getattr(item, 'funcargs', None) or {}).get('tmp_path')
    if folder and not getattr(item, 'went_wrong', False):
        shutil.rmtree(folder, ignore_errors=True)
