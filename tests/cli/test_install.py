# SPDX-License-Identifier: MIT
"""What `make install` leaves: a program finds the library by pkg-config, with
the shared object and with the archive, and no name but the public ones gets in
its way."""
import os
import shutil
import subprocess

import pytest

from harness import ROOT, build_dir, run

# Names that the library uses among its own files, and public functions.
PROGRAM = r'''
#include <stdio.h>
#include <lamella.h>

int qcow2_map(void) { return 1; }
int extents_add(void) { return 1; }
int lam_fail(void) { return 1; }
int lam_io_open(void) { return 1; }

int main(int argc, char **argv)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_open_options how = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;
    char buf[512] = "there and back";

    o.format = "qcow2";
    o.size = 1 << 20;
    how.flags = LAM_OPEN_WRITE;
    if (argc != 2 ||
        lam_image_create(argv[1], &o, &err) < 0 ||
        lam_image_open(argv[1], &how, &image, &err) < 0 ||
        lam_image_write(image, buf, sizeof buf, 4096, 0, &err) < 0 ||
        lam_image_read(image, buf, sizeof buf, 4096, &err) < 0 ||
        lam_image_close(image, &err) < 0) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    printf("%s, %s\n", buf, lam_version());
    return 0;
}
'''


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A folder as DESTDIR, from the build that is tested."""
    for program in ('meson', 'pkg-config', 'cc'):
        if not shutil.which(program):
            pytest.skip('%s is not here' % program)
    root = tmp_path_factory.mktemp('installed')
    run('meson', 'install', '-C', build_dir(), '--no-rebuild', '--quiet',
        env=dict(os.environ, DESTDIR=str(root)))
    return root


def find(root, name):
    found = [os.path.join(folder, name) for folder, _, files in os.walk(root)
             if name in files and 'bash-completion' not in folder]
    assert len(found) <= 1
    return found[0] if found else None


def flags(root, *options):
    pc = find(root, 'lamella.pc')
    assert pc
    env = dict(os.environ, PKG_CONFIG_PATH=os.path.dirname(pc),
               PKG_CONFIG_SYSROOT_DIR=str(root))
    text = run('pkg-config', '--cflags', '--libs', *options, 'lamella',
               env=env).stdout
    # What other packages have lies where it lies.
    return [word if os.path.exists(word[2:]) or word[:2] not in ('-I', '-L') or
            str(root) not in word else
            word.replace(str(root), '') for word in text.split()]


def compile_and_run(root, folder, words, **env):
    (folder / 'program.c').write_text(PROGRAM)
    run('cc', '-Wall', '-Werror', 'program.c', '-o', 'program', *words,
        cwd=folder)
    done = run(folder / 'program', 'new.qcow2', cwd=folder,
               env=dict(os.environ, **env))
    assert done.stdout.startswith('there and back, ')


def test_what_is_there(installed, lamella):
    assert find(installed, 'lamella.h') and find(installed, 'lamella')
    parts = os.path.join(os.path.dirname(find(installed, 'lamella.h')),
                         'lamella')
    assert sorted(os.listdir(parts)) == \
        sorted(os.listdir(os.path.join(ROOT, 'include', 'lamella')))
    done = run(find(installed, 'lamella'), '--version',
               env=dict(os.environ, LD_LIBRARY_PATH=''))
    assert done.stdout == lamella.run('--version')


@pytest.mark.parametrize('given, configured', [
    ([], False), (['PREFIX=/usr'], False), (['PREFIX=/opt/x'], True)])
def test_prefix(tmp_path, given, configured):
    """One that is given later counts, and what is so already stays untouched:
    it may be root who installs."""
    if not shutil.which('make'):
        pytest.skip('make is not here')
    build, meson = tmp_path / 'build', tmp_path / 'meson'
    (build / 'meson-private').mkdir(parents=True)
    (build / 'build.ninja').touch()
    (build / 'meson-private' / 'lamella.pc').write_text('prefix=/usr\n')
    meson.write_text('#!/bin/sh\necho "$*" >> %s\n' % (tmp_path / 'words'))
    meson.chmod(0o755)
    env = dict(os.environ, PATH='%s:%s' % (tmp_path, os.environ['PATH']))
    env.pop('PREFIX', None)
    run('make', '-C', ROOT, 'install', 'BUILD=%s' % build, *given, env=env)
    words = (tmp_path / 'words').read_text().splitlines()
    assert [line.split()[0] for line in words] == \
        ['configure'] * configured + ['compile', 'install']
    assert not configured or words[0].endswith(' --prefix=/opt/x')


def test_documents(installed):
    """A page for each subcommand, and something for each shell."""
    pages = [name for _, _, files in os.walk(installed / '.') for name in files
             if name.endswith('.1')]
    assert 'lamella.1' in pages and 'lamella-convert.1' in pages
    for name in '_lamella', 'lamella.fish':
        assert find(installed, name)


def test_shared(installed, tmp_path):
    words = flags(installed)
    folder = os.path.dirname(find(installed, 'lamella.pc'))
    compile_and_run(installed, tmp_path, words,
                    LD_LIBRARY_PATH=os.path.dirname(folder))


def test_archive(installed, tmp_path):
    archive = find(installed, 'liblamella.a')
    if not archive:
        pytest.skip('a build with sanitizers has no archive')
    words = [archive if word == '-llamella' else word
             for word in flags(installed, '--static')]
    assert archive in words
    compile_and_run(installed, tmp_path, words)
    needed = subprocess.run(['ldd', tmp_path / 'program'], text=True,
                            stdout=subprocess.PIPE).stdout
    assert 'liblamella' not in needed


def names(*argv):
    """Global names, without the version node that a map adds."""
    return {line.split()[-1].split('@')[0] for line in
            run('nm', '--defined-only', *argv).stdout.splitlines()
            if len(line.split()) == 3 and not line.endswith(' A LAMELLA_0.1')
            and line.split()[1] != 'A'}


def test_only_public_names(installed):
    """The archive has those of the shared object, and those begin with lam_."""
    archive = find(installed, 'liblamella.a')
    if not archive:
        pytest.skip('a build with sanitizers has no archive')
    ours = names('-g', archive)
    assert ours and all(name.startswith('lam_') for name in ours)
    shared = os.path.realpath(find(installed, 'liblamella.so.0'))
    assert ours == names('-D', shared)
