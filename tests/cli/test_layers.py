# SPDX-License-Identifier: MIT
"""commit and rebase beside the genuine tool: words, status, what is recorded;
stream, overlay and chain, which it has not."""
import json
import os
import re
import signal
import subprocess
import time

import pytest

from differential import mention, outcome
from ended import at_each_step
from harness import MiB, pytest_fail, run, takes_signal, wait_until

# One after the other on one set of images.
COMMIT = [
    '', 'a b', 'nofile', '-f raw r.raw', 'base.qcow2', '-b nope top.qcow2',
    '-b top.qcow2 top.qcow2', '-r abc top.qcow2', '-r 0 -q top.qcow2',
    '-t bogus top.qcow2', '-x top.qcow2', '--foo top.qcow2',
    '--image-opts -f qcow2 driver=qcow2', 'top.qcow2', '-q top.qcow2',
    '-b base.qcow2 top.qcow2', '-b ./base.qcow2 top.qcow2', '-d top.qcow2',
    '--drop top.qcow2', '--base mid.qcow2 top.qcow2', '-t none top.qcow2',
    '--image-opts driver=qcow2,file.filename=top.qcow2', '-f bogus top.qcow2',
    '-r 100M -b mid.qcow2 -t writethrough top.qcow2', 'top.qcow2 -q',
]
REBASE = [
    '', 'top.qcow2', '-b other.qcow2', '-b nofile top.qcow2',
    '-u -b nofile top.qcow2', '-u -b nofile -F qcow2 top.qcow2',
    '-u -b mid.qcow2 -F bogus top.qcow2', '-b mid.qcow2 -F bogus top.qcow2',
    '-u -b mid.qcow2 -F qcow2 top.qcow2', '-b other.qcow2 top.qcow2',
    '-b mid.qcow2 top.qcow2', '-u -b top.qcow2 top.qcow2',
    '-b other.qcow2 -F raw top.qcow2', '-b x -f raw r.raw',
    '-u -b x -f raw r.raw', '-u -b x -F raw -f raw r.raw',
    '-b base.qcow2 -F qcow2 -f raw r.raw', '-b r.raw base.qcow2',
    '-b r.raw -F raw base.qcow2', '-q -b other.qcow2 -F qcow2 top.qcow2',
    '-t bogus -b x top.qcow2', '-T bogus -b other.qcow2 top.qcow2',
    '-c -b mid.qcow2 -F qcow2 top.qcow2', '-U -b mid.qcow2 -F qcow2 top.qcow2',
    '--backing-unsafe --backing other.qcow2 --backing-format qcow2 top.qcow2',
    '-u top.qcow2', '-u -F qcow2 top.qcow2', '-F qcow2 top.qcow2',
    '-b EMPTY top.qcow2', '-u -b EMPTY mid.qcow2', '-b EMPTY -F raw top.qcow2',
    '-f bogus -b base.qcow2 -F qcow2 top.qcow2', '--foo top.qcow2',
    '-b base.qcow2 -F qcow2 nofile', '-b base.qcow2 base.qcow2 mid.qcow2',
    '--image-opts -u -b mid.qcow2 -F qcow2 '
    'driver=qcow2,file.filename=top.qcow2',
]


def make(tools, folder):
    folder.mkdir()
    create = ['create', '-q', '-f', 'qcow2']
    tools.run(*create, 'base.qcow2', '4M', cwd=folder)
    for below, name in ('base', 'mid'), ('mid', 'top'):
        tools.run(*create, '-b', below + '.qcow2', '-F', 'qcow2',
                  name + '.qcow2', cwd=folder)
    tools.run(*create, 'other.qcow2', '8M', cwd=folder)
    tools.run('create', '-q', '-f', 'raw', 'r.raw', '4M', cwd=folder)
    for number, name in enumerate(('base', 'mid', 'top', 'other')):
        tools.io_run(folder / (name + '.qcow2'),
                     'write -P %d %dk 256k' % (number + 1, number * 128))


def facts(tools, folder, name):
    done = json.loads(tools.run('info', '-f', 'qcow2', '--output=json', name,
                                cwd=folder))
    return {key: done.get(key) for key in (
        'backing-filename', 'backing-filename-format', 'virtual-size')}


@pytest.mark.parametrize('command,lines', [('commit', COMMIT),
                                           ('rebase', REBASE)],
                         ids=['commit', 'rebase'])
def test_beside(command, lines, texts, our_img, tmp_path):
    folders = tmp_path / 'theirs', tmp_path / 'ours'
    for folder in folders:
        make(texts, folder)
    for line in lines:
        args = [command, *('' if word == 'EMPTY' else word
                           for word in line.split())]
        theirs, mine = (outcome(tool, args, folder) for tool, folder in
                        zip((texts.img[0], our_img), folders))
        if theirs != mine:
            pytest_fail(mention(args, theirs, mine))
        for name in 'mid.qcow2', 'top.qcow2':
            pair = [facts(texts, folder, name) for folder in folders]
            assert pair[0] == pair[1], line
    for name in 'base', 'mid', 'top':
        texts.run('check', '-q', folders[1] / (name + '.qcow2'))


def test_progress(our_lamella, reference, tmp_path):
    """Records as the genuine tool's, the last one complete."""
    make(reference, tmp_path / 'x')
    for args in (['commit', '-p', 'top.qcow2'],
                 ['rebase', '-p', '-b', 'other.qcow2', '-F', 'qcow2',
                  'top.qcow2'],
                 ['stream', '-p', 'top.qcow2']):
        # Text mode turns the carriage returns into ends of lines.
        lines = run(our_lamella, *args, cwd=tmp_path / 'x').stdout.splitlines()
        records = [line for line in lines if line.endswith('%)')]
        assert records[0] == '    (0.00/100%)'
        assert records[-1] == '    (100.00/100%)'
        assert all(re.fullmatch(r' {4}\(\d+\.\d\d/100%\)', record)
                   for record in records)


def test_commit_names_what_becomes_invalid(our_lamella, our_img, reference,
                                           tmp_path):
    folder = tmp_path / 'x'
    make(reference, folder)
    reference.run('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F',
                  'qcow2', 'sister.qcow2', cwd=folder)
    done = run(our_lamella, 'commit', '-b', 'base.qcow2', 'top.qcow2',
               cwd=folder)
    assert "'mid.qcow2' becomes invalid" in done.stderr
    assert "'sister.qcow2' has 'base.qcow2' as its backing file, too" in \
        done.stderr
    done = run(our_img, 'commit', '-b', 'base.qcow2', 'top.qcow2', cwd=folder)
    assert done.stderr == ''


def snapshot_of(folder):
    """What is in the files, and when they were written to: chain tells of
    changes by that."""
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in folder.iterdir()}


@pytest.mark.parametrize('args,message', [
    (['commit', '-b', 'nope.qcow2', 'top.qcow2'], 'Did not find'),
    (['commit', 'base.qcow2'], 'does not have a backing file'),
    (['rebase', '-b', 'top.qcow2', '-F', 'qcow2', 'top.qcow2'], 'infinite'),
    (['rebase', '-b', 'top.qcow2', '-F', 'qcow2', 'mid.qcow2'], 'infinite'),
    (['rebase', '-b', 'gone.qcow2', '-F', 'qcow2', 'top.qcow2'],
     'No such file'),
    (['rebase', '-b', 'other.qcow2', 'top.qcow2'], 'format must be specified'),
    (['stream', '-b', 'other.qcow2', 'top.qcow2'], 'Did not find'),
    (['overlay', 'top.qcow2', 'mid.qcow2'], 'File exists'),
    (['overlay', '--force', 'top.qcow2', 'mid.qcow2'], 'in the chain'),
    (['overlay', 'gone.qcow2', 'new.qcow2'], 'No such file'),
    (['overlay', '-o', 'size=1M', 'top.qcow2', 'new.qcow2'], "'size'"),
    (['chain', 'gone.qcow2'], 'No such file'),
])
def test_refused_leaves_no_trace(args, message, our_lamella, reference,
                                 tmp_path):
    folder = tmp_path / 'x'
    make(reference, folder)
    before = snapshot_of(folder)
    done = run(our_lamella, *args, cwd=folder, status=1)
    assert message in done.stderr and done.stderr.count('\n') == 1
    assert snapshot_of(folder) == before


@pytest.mark.parametrize('args', [
    ['commit', 'mid.qcow2'], ['rebase', '-b', '', 'mid.qcow2'],
    ['stream', 'mid.qcow2'], ['overlay', 'mid.qcow2', 'new.qcow2'],
    ['commit', 'upper.qcow2'],
])
def test_in_use(args, our_lamella, reference, tmp_path):
    """Somebody has the image, or the base, open for writing."""
    folder = tmp_path / 'x'
    make(reference, folder)
    reference.run('create', '-q', '-f', 'qcow2', '-u', '-b', 'mid.qcow2', '-F',
                  'qcow2', 'upper.qcow2', '4M', cwd=folder)
    user = subprocess.Popen([*reference.io, 'mid.qcow2'], cwd=folder,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        # It asks for a command when it has all its locks.
        assert user.stdout.read(7) == b'qemu-io'
        before = snapshot_of(folder)
        done = run(our_lamella, *args, cwd=folder, status=1)
        assert 'Is another process using the image' in done.stderr
        assert snapshot_of(folder) == before
    finally:
        user.communicate(b'quit\n')


def test_overlay(our_lamella, reference, tmp_path):
    make(reference, tmp_path / 'x')
    (tmp_path / 'y').mkdir()
    run(our_lamella, 'overlay', '--read-only', '-o', 'cluster_size=4k',
        'x/top.qcow2', 'y/new.qcow2', cwd=tmp_path)
    info = json.loads(reference.run('info', '--output=json',
                                    tmp_path / 'y' / 'new.qcow2'))
    assert info['backing-filename'] == '../x/top.qcow2'
    assert info['backing-filename-format'] == 'qcow2'
    assert (info['virtual-size'], info['cluster-size']) == (4 * MiB, 4096)
    assert os.stat(tmp_path / 'x' / 'top.qcow2').st_mode & 0o222 == 0
    reference.run('compare', '-q', tmp_path / 'x' / 'top.qcow2',
                  tmp_path / 'y' / 'new.qcow2')


def mode_of(path):
    return os.stat(path).st_mode & 0o777


def test_overlay_refused_leaves_the_mode(our_lamella, reference, tmp_path):
    """--read-only comes before the overlay, and is taken back with it."""
    folder = tmp_path / 'x'
    make(reference, folder)
    mode = mode_of(folder / 'top.qcow2')
    for name in 'mid.qcow2', 'gone/new.qcow2':
        run(our_lamella, 'overlay', '--read-only', 'top.qcow2', name,
            cwd=folder, status=1)
        assert mode_of(folder / 'top.qcow2') == mode
    run(our_lamella, 'overlay', '--read-only', '--image-opts',
        'driver=qcow2,file.filename=top.qcow2', 'new.qcow2', cwd=folder)
    assert mode_of(folder / 'top.qcow2') & 0o222 == 0


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM],
                         ids=lambda number: number.name)
def test_overlay_read_only_ended_at_each_step(number, our_lamella, reference,
                                              tmp_path):
    """No overlay is there while its base may be written to; and the command
    asked for again makes it."""
    folder = tmp_path / 'x'
    make(reference, tmp_path / 'stock')
    argv = [our_lamella, 'overlay', '-q', '--read-only', 'top.qcow2',
            'new.qcow2']
    for step in at_each_step(number, argv, tmp_path / 'stock', folder):
        if not (folder / 'new.qcow2').exists():
            run(*argv, cwd=folder)
        assert mode_of(folder / 'top.qcow2') == 0o444, step
        assert {path.name for path in folder.iterdir()} == {
            'base.qcow2', 'mid.qcow2', 'top.qcow2', 'new.qcow2', 'other.qcow2',
            'r.raw'}, step
        reference.run('compare', '-q', 'top.qcow2', 'new.qcow2', cwd=folder)


def test_overlay_takes_the_format_twice(our_lamella, reference, tmp_path):
    """As -f, and as create calls it."""
    make(reference, tmp_path / 'x')
    for number, words in enumerate((['-F', 'raw'], ['-f', 'raw', '-F', 'raw'],
                                    ['--backing-format=raw'])):
        name = 'new%d.qcow2' % number
        run(our_lamella, 'overlay', *words, 'r.raw', name, cwd=tmp_path / 'x')
        assert facts(reference, tmp_path / 'x', name)[
            'backing-filename-format'] == 'raw'
    for words, said in (
            (['-f', 'raw', '-F', 'qcow2', 'r.raw'],
             "'r.raw' cannot be both 'raw' (-f) and 'qcow2' (-F)"),
            (['-F', 'raw', '--image-opts', 'driver=raw,file.filename=r.raw'],
             '--image-opts and --format are mutually exclusive'),
            (['-F', 'qcow2', 'r.raw'], 'not in qcow2 format')):
        done = run(our_lamella, 'overlay', *words, 'new.qcow2',
                   cwd=tmp_path / 'x', status=1)
        assert said in done.stderr and done.stderr.count('\n') == 1
    assert not (tmp_path / 'x' / 'new.qcow2').exists()


def test_overlay_gets_its_name_last(our_lamella, reference, tmp_path):
    """Whenever it is killed, an overlay is whole or not there."""
    folder = tmp_path / 'x'
    make(reference, folder)
    before = set(folder.iterdir())
    new = folder / 'new.qcow2'
    for attempt in range(16):
        with subprocess.Popen([our_lamella, 'overlay', '-q', 'top.qcow2',
                               new.name], cwd=folder) as process:
            time.sleep(attempt / 500)
            process.kill()
        if new.exists():
            assert facts(reference, folder, new.name) == {
                'backing-filename': 'top.qcow2', 'virtual-size': 4 * MiB,
                'backing-filename-format': 'qcow2'}
            reference.run('check', '-q', new)
            new.unlink()
        assert set(folder.iterdir()) == before


@pytest.fixture(name='immutable')
def fixture_immutable(tmp_path):
    """Makes files so that nobody can change them, if root may do that here."""
    made = []

    def make_immutable(path):
        done = subprocess.run(['chattr', '+i', path], capture_output=True,
                              check=False)
        if done.returncode:
            pytest.skip('no immutable files here')
        made.append(path)
    yield make_immutable
    for path in made:
        subprocess.run(['chattr', '-i', path], check=True)


def test_immutable(immutable, our_lamella, reference, tmp_path):
    """Nothing is written, in one line; what only reads goes on."""
    folder = tmp_path / 'x'
    make(reference, folder)
    immutable(folder / 'mid.qcow2')
    before = snapshot_of(folder)
    for args in (['commit', 'top.qcow2'],
                 ['commit', '-b', 'mid.qcow2', 'top.qcow2'],
                 ['rebase', '-b', '', 'mid.qcow2'], ['stream', 'mid.qcow2']):
        done = run(our_lamella, *args, cwd=folder, status=1)
        assert done.stderr.count('\n') == 1
        assert 'Operation not permitted' in done.stderr
        assert 'mid.qcow2' in done.stderr
        assert snapshot_of(folder) == before
    run(our_lamella, 'overlay', '--read-only', 'mid.qcow2', 'new.qcow2',
        cwd=folder)
    run(our_lamella, 'stream', 'top.qcow2', cwd=folder)


@pytest.mark.parametrize('args,below', [
    (['overlay', 'top.qcow2', 'new.qcow2'], ['mid', 'base']),
    (['commit', 'top.qcow2'], ['mid']),
    (['commit', '-b', 'base.qcow2', 'top.qcow2'], ['mid', 'base']),
    (['rebase', '-b', 'other.qcow2', '-F', 'qcow2', 'top.qcow2'],
     ['mid', 'base']),
    (['stream', 'top.qcow2'], ['mid', 'base'])])
def test_warned_of_changes(args, below, our_lamella, reference, tmp_path):
    """Layers that were written to since their overlays were made: each is
    named, before anything is copied."""
    for changed in [], ['base', 'mid']:
        folder = tmp_path / ('y' if changed else 'x')
        make_changed(reference, folder, changed)
        done = run(our_lamella, *args, cwd=folder)
        assert [line.split(', its overlay, was made')[0]
                for line in done.stderr.splitlines()
                if 'was made' in line] == [
            "lamella: warning: '%s.qcow2' was written to after '%s.qcow2'"
            % (name, 'mid' if name == 'base' else 'top')
            for name in below if changed]


def make_changed(tools, folder, names):
    make(tools, folder)
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    time.sleep(0.02)            # clocks of file systems are coarse
    for name in names:
        os.utime(folder / (name + '.qcow2'))


def test_qemu_img_says_nothing_of_changes(our_img, reference, tmp_path):
    make_changed(reference, tmp_path / 'x', ['base', 'mid'])
    for args in (['rebase', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2'],
                 ['commit', 'top.qcow2']):
        assert run(our_img, *args, cwd=tmp_path / 'x').stderr == ''


def test_chain(our_lamella, reference, tmp_path):
    folder = tmp_path / 'x'
    make(reference, folder)
    os.utime(folder / 'base.qcow2')
    listed = json.loads(run(our_lamella, 'chain', '--output', 'json',
                            'top.qcow2', cwd=folder).stdout)
    assert [layer['filename'] for layer in listed] == [
        'top.qcow2', 'mid.qcow2', 'base.qcow2']
    assert [layer['own-data'] for layer in listed] == [256 * 1024] * 3
    assert [layer['shown-data'] for layer in listed] == [
        256 * 1024, 128 * 1024, 128 * 1024]
    assert [layer['shared-data'] for layer in listed] == [
        256 * 1024, 128 * 1024, 0]
    assert any('after this overlay was made' in warning
               for warning in listed[1]['warnings'])
    text = run(our_lamella, 'chain', 'top.qcow2', cwd=folder).stdout
    assert len([line for line in text.splitlines() if 'qcow2  ' in line]) == 3


def test_chain_warnings(our_lamella, reference, tmp_path):
    base, top = tmp_path / 'base.qcow2', tmp_path / 'top.qcow2'
    reference.run('create', '-q', '-f', 'qcow2', base, '2M')
    reference.run('create', '-q', '-f', 'qcow2', '-u', '-b', base, '-F',
                  'qcow2', top, '4M')
    listed = json.loads(run(our_lamella, 'chain', '--output=json', top).stdout)
    text = '\n'.join(listed[0]['warnings'])
    assert 'absolute path' in text and 'shorter' in text


def takes_attributes(path):
    try:
        os.setxattr(path, 'user.test', b'1')
    except OSError:
        return False
    return True


def change(path, how):
    """Behind the overlay's back; but for 'touch', as long ago as it was."""
    then = path.stat().st_mtime
    if how == 'grow':
        os.truncate(path, path.stat().st_size + 65536)
    elif how == 'replace':
        path.with_suffix('.old').write_bytes(path.read_bytes())
        os.rename(path.with_suffix('.old'), path)
    os.utime(path, None if how == 'touch' else (then - 5, then - 5)
             if how == 'replace' else (then, then))


@pytest.mark.parametrize('maker,how', [
    ('overlay', 'touch'), ('overlay', 'grow'), ('overlay', 'replace'),
    ('create', 'grow'), ('create', 'replace'),
    ('genuine', 'touch'), ('genuine', 'replace')])
def test_chain_tells_of_changes(maker, how, our_lamella, reference, tmp_path):
    base, top = tmp_path / 'base.qcow2', tmp_path / 'top.qcow2'
    reference.run('create', '-q', '-f', 'qcow2', base, '2M')
    if not takes_attributes(base):
        pytest.skip('no extended attributes here')
    time.sleep(0.02)            # clocks of file systems are coarse
    if maker == 'overlay':
        run(our_lamella, 'overlay', '-q', base, top)
    else:
        tool = our_lamella if maker == 'create' else reference.img[0]
        run(tool, 'create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F',
            'qcow2', top)
    assert 'warning' not in run(our_lamella, 'chain', top).stdout
    time.sleep(0.02)
    change(base, how)
    text = run(our_lamella, 'chain', top).stdout
    message = 'is not the file that was there' if how == 'replace' else \
        'was written to after'
    assert message in text and text.count('warning') == 1


@pytest.mark.parametrize('flags', [[], ['-u']])
def test_rebase_onto_other_size(flags, our_lamella, our_img, reference,
                                tmp_path):
    for name, size in ('small', '1M'), ('large', '8M'), ('same', '4M'):
        reference.run('create', '-q', '-f', 'qcow2', tmp_path / name, size)
    reference.run('create', '-q', '-f', 'qcow2', '-b', 'same', '-F', 'qcow2',
                  tmp_path / 'top')
    for name, words in ('small', "'small' is shorter than 'top'"), \
            ('large', "'large' is longer than 'top'"), ('same', ''):
        args = 'rebase', *flags, '-b', name, '-F', 'qcow2', 'top'
        said = run(our_lamella, *args, cwd=tmp_path).stderr
        assert words in said and said.count('\n') == bool(words)
        assert run(our_img, *args, cwd=tmp_path).stderr == ''


@pytest.mark.parametrize('command', [
    ['commit', '-q'], ['commit', '-q', '-d'],
    ['rebase', '-q', '-b', 'other.qcow2', '-F', 'qcow2']])
def test_chain_knows_own_changes(command, our_lamella, reference, tmp_path):
    """What was written below an overlay is told, unless it was its commit."""
    def written_to_later(name):
        later = time.time() + 100
        os.utime(tmp_path / name, (later, later))

    def warns():
        listed = run(our_lamella, 'chain', '--output=json', 'top.qcow2',
                     cwd=tmp_path).stdout
        return 'written to after' in str(json.loads(listed)[0]['warnings'])
    for name in 'base.qcow2', 'other.qcow2':
        reference.run('create', '-q', '-f', 'qcow2', tmp_path / name, '2M')
    reference.run('create', '-q', '-f', 'qcow2', '-b', 'base.qcow2', '-F',
                  'qcow2', 'top.qcow2', cwd=tmp_path)
    if not takes_attributes(tmp_path / 'top.qcow2'):
        pytest.skip('no extended attributes here')
    run(our_lamella, 'io', '-c', 'write 0 64k', 'top.qcow2', cwd=tmp_path)
    for name in 'base.qcow2', 'other.qcow2':
        written_to_later(name)
    assert warns()
    run(our_lamella, *command, 'top.qcow2', cwd=tmp_path)
    assert not warns()
    run(our_lamella, 'io', '-c', 'write 0 64k', 'top.qcow2', cwd=tmp_path)
    assert not warns()
    for name in 'base.qcow2', 'other.qcow2':
        written_to_later(name)
    assert warns()


@pytest.mark.parametrize('command', ['commit', 'stream'])
def test_interrupted_and_run_again(command, our_lamella, reference, tmp_path):
    """Stopped by a signal, all reads as before; the next run finishes."""
    base, top = tmp_path / 'base.qcow2', tmp_path / 'top.qcow2'
    reference.run('create', '-q', '-f', 'qcow2', base, '32M')
    reference.io_run(base, 'write -P 1 0 32M')
    reference.run('create', '-q', '-f', 'qcow2', '-b', base.name, '-F',
                  'qcow2', top)
    reference.io_run(top, 'write -P 2 8M 16M')
    expected = tmp_path / 'expected.raw'
    reference.run('convert', '-O', 'raw', top, expected)
    before = base.stat().st_mtime_ns, top.stat().st_mtime_ns
    job = subprocess.Popen([our_lamella, command, '-r', '1M', '-q', str(top)],
                           stderr=subprocess.PIPE)
    wait_until(job, lambda: takes_signal(job, signal.SIGTERM) and before !=
               (base.stat().st_mtime_ns, top.stat().st_mtime_ns))
    job.send_signal(signal.SIGTERM)
    job.communicate()
    assert job.returncode == 128 + signal.SIGTERM
    reference.run('compare', '-q', '-f', 'qcow2', '-F', 'raw', top, expected)
    for image in base, top:
        reference.run('check', '-q', image)
    run(our_lamella, command, '-q', top)
    reference.run('compare', '-q', '-f', 'qcow2', '-F', 'raw', top, expected)
    reference.run('check', '-q', top)


@pytest.mark.parametrize('create', [
    ['-f', 'qcow2', '-o', 'compat=0.10'], ['-f', 'qcow2'],
    ['-f', 'qcow2', '-o', 'extended_l2=on'], ['-f', 'qed']],
    ids=['v2', 'v3', 'extended', 'qed'])
def test_first_backing_file(create, our_lamella, reference, tmp_path):
    """What read as zero without one goes on reading as zero."""
    def run(*args):
        return subprocess.run([our_lamella, *args], cwd=tmp_path, check=True,
                              capture_output=True, text=True, timeout=60)
    run('create', '-f', 'qcow2', 'below', '4M')
    run('io', '-c', 'write -P 5 0 3M', 'below')
    run('create', *create, 'image', '4M')
    run('io', '-f', create[1], '-c', 'write -P 9 64k 64k', '-c',
        'write -P 8 1M 64k', '-c', 'write -z -u 1M 64k', 'image')
    run('convert', '-f', create[1], '-O', 'raw', 'image', 'before')
    run('rebase', '-f', create[1], '-b', 'below', '-F', 'qcow2', 'image')
    reference.run('compare', '-f', create[1], '-F', 'raw', tmp_path / 'image',
                  tmp_path / 'before')
    run('rebase', '-f', create[1], '-b', '', 'image')
    reference.run('compare', '-f', create[1], '-F', 'raw', tmp_path / 'image',
                  tmp_path / 'before')
