# SPDX-License-Identifier: MIT
"""The Debian packages: they build without a complaint of lintian's, a program
compiles against what they install, and the names of the genuine tools change
hands and go back.

Nothing is installed on this system: packages go into a folder as root.
"""
import os
import shutil
import subprocess

import pytest

from harness import ROOT, run

PROGRAM = r'''
#include <stdio.h>
#include <lamella.h>

int main(void)
{
    enum lam_cache_mode mode;

    if (lam_cache_mode_parse("none", &mode, NULL) < 0)
        return 1;
    printf("version %s\n", lam_version());
    return 0;
}
'''
# All is built once more, perhaps by a slow compiler.
pytestmark = pytest.mark.timeout(900)

PACKAGES = ('lamella', 'liblamella0', 'liblamella-dev', 'lamella-qemu-compat')


def tracked():
    done = subprocess.run(['git', '-C', ROOT, 'ls-files', '-z'],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    names = done.stdout.decode().split('\0')[:-1]
    if done.returncode or not names:
        pytest.skip('git does not know which files belong to the project')
    return [name for name in names if os.path.exists(os.path.join(ROOT, name))]


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """The folder with the packages."""
    for program in ('dpkg-buildpackage', 'dh', 'fakeroot'):
        if not shutil.which(program):
            pytest.skip('%s is not here' % program)
    folder = tmp_path_factory.mktemp('package')
    source = folder / 'lamella-0.1.0'
    for name in tracked():
        # Its own tests are not wanted.
        if not name.startswith('tests/') or name.endswith('meson.build'):
            os.makedirs(os.path.dirname(source / name), exist_ok=True)
            shutil.copy2(os.path.join(ROOT, name), source / name)
    env = dict(os.environ, DEB_BUILD_OPTIONS='nocheck noopt parallel=2')
    run('dpkg-buildpackage', '-us', '-uc', '-b', cwd=source, env=env,
        timeout=900)
    return folder


def package(built, name):
    found = list(built.glob(name + '_*.deb'))
    assert len(found) == 1
    return found[0]


def test_lintian(built):
    if not shutil.which('lintian'):
        pytest.skip('lintian is not here')
    done = run('lintian', '--allow-root', '--fail-on', 'error,warning',
               '--suppress-tags', 'bad-distribution-in-changes-file',
               *built.glob('*.changes'), status=None)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope='module')
def root(built):
    """The library's packages, unpacked."""
    folder = built / 'root'
    for name in PACKAGES[1:3]:
        run('dpkg-deb', '-x', package(built, name), folder)
    return folder


@pytest.mark.parametrize('static', [False, True])
def test_program_compiles(root, tmp_path, static):
    configs = list(root.glob('usr/lib/*/pkgconfig/lamella.pc'))
    assert len(configs) == 1
    library = configs[0].parent.parent
    env = dict(os.environ, PKG_CONFIG_PATH=str(configs[0].parent),
               PKG_CONFIG_SYSROOT_DIR=str(root))
    words = run('pkg-config', '--cflags', '--libs', 'lamella',
                *['--static'] * static, env=env).stdout.split()
    if static:
        words = [library / 'liblamella.a' if word == '-llamella' else word
                 for word in words]
    (tmp_path / 'program.c').write_text(PROGRAM)
    run('cc', '-Wall', '-Werror', 'program.c', '-o', 'program',
        '-I%s/usr/include' % root, '-L%s' % library, *words, cwd=tmp_path)
    done = run(tmp_path / 'program', env=dict(
        os.environ, LD_LIBRARY_PATH='' if static else str(library)))
    assert done.stdout.startswith('version ')
    needed = run('ldd', tmp_path / 'program').stdout
    assert ('liblamella' in needed) != static


def test_what_lies_where(built):
    where = {
        'lamella': ['./usr/bin/lamella', './usr/share/man/man1/lamella.1.gz',
                    './usr/share/zsh/vendor-completions/_lamella'],
        'liblamella-dev': ['./usr/include/lamella.h',
                           './usr/include/lamella/open.h',
                           './usr/share/doc/liblamella-dev/examples/map.c'],
        'lamella-qemu-compat': ['./usr/bin/qemu-img',
                                './usr/share/man/man1/qemu-io.1.gz'],
    }
    for name, files in where.items():
        listed = run('dpkg-deb', '-c', package(built, name)).stdout
        for file in files:
            assert ' %s\n' % file in listed or ' %s -> ' % file in listed


def make_genuine(folder):
    """A stand-in for qemu-utils."""
    (folder / 'DEBIAN').mkdir(parents=True)
    (folder / 'DEBIAN' / 'control').write_text(
        'Package: qemu-utils\nVersion: 1:10\nArchitecture: all\n'
        'Maintainer: nobody <nobody@example.invalid>\nDescription: stand-in\n')
    for name in ('bin/qemu-img', 'bin/qemu-io', 'share/man/man1/qemu-img.1.gz'):
        path = folder / 'usr' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('genuine')
    run('dpkg-deb', '--root-owner-group', '-b', folder, str(folder) + '.deb')
    return str(folder) + '.deb'


def test_names_change_hands(built, tmp_path):
    if os.geteuid():
        pytest.skip('dpkg wants root')
    system = tmp_path / 'system'
    for name in 'updates', 'info', 'triggers':
        (system / 'var/lib/dpkg' / name).mkdir(parents=True)
    (system / 'var/lib/dpkg/status').touch()

    def dpkg(*words):
        run('dpkg', '--root=%s' % system, '--force-depends',
            '--force-script-chrootless', '--log=%s/log' % tmp_path, *words)

    img, page = system / 'usr/bin/qemu-img', \
        system / 'usr/share/man/man1/qemu-img.1.gz'
    dpkg('-i', make_genuine(tmp_path / 'genuine'))
    dpkg('-i', package(built, 'lamella'))
    dpkg('-i', package(built, 'lamella-qemu-compat'))
    assert os.readlink(img) == 'lamella' and page.is_symlink()
    assert (system / 'usr/bin/qemu-img.distrib').read_text() == 'genuine'
    dpkg('-r', 'lamella-qemu-compat')
    assert img.read_text() == page.read_text() == 'genuine'
    assert not (system / 'usr/bin/qemu-img.distrib').exists()
