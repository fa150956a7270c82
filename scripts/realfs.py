# SPDX-License-Identifier: MIT
"""Makes ext4 file systems in raw files from real files of this machine.

Used by the demo and the benchmarks.  Nothing is mounted and no device is
needed: e2fsprogs writes into plain files.
"""
import os
import re
import shutil
import stat
import subprocess

MiB = 1 << 20
PLACES = ['/usr/lib', '/usr/share', '/usr/bin', '/usr/sbin', '/usr/libexec',
          '/usr/include', '/usr/local', '/usr/src', '/opt', '/var/lib']


def tool(name):
    """The path of an e2fsprogs program, which may not be in a user's PATH."""
    path = shutil.which(name, path=os.environ.get('PATH', '') +
                        ':/usr/sbin:/sbin')
    if not path:
        raise SystemExit('%s is needed (package e2fsprogs)' % name)
    return path


def real_files(places=PLACES):
    """Readable regular files, once each, in a stable order: (path, size)."""
    seen = set()
    for place in places:
        for folder, subfolders, names in os.walk(place):
            subfolders.sort()
            for name in sorted(names):
                path = os.path.join(folder, name)
                try:
                    found = os.lstat(path)
                except OSError:
                    continue
                key = (found.st_dev, found.st_ino)
                # Names that debugfs's command language could not take back.
                if not stat.S_ISREG(found.st_mode) or key in seen or \
                        not re.fullmatch(r'[\w./+@=,:-]+', path) or \
                        not os.access(path, os.R_OK):
                    continue
                seen.add(key)
                yield path, found.st_size


def choose_files(budget, largest=64 * MiB):
    """Real files up to @budget bytes in all: [(path, size)]."""
    chosen, total = [], 0
    for path, size in real_files():
        if size <= largest and total + size <= budget:
            chosen.append((path, size))
            total += size
        if total > budget - MiB // 4:
            break
    return chosen


def make_ext4(path, size, files, progress=lambda done, total: None):
    """A new ext4 in the raw file @path, holding @files under their names."""
    with open(path, 'wb') as image:
        image.truncate(size)
    subprocess.run([tool('mkfs.ext4'), '-q', '-F', '-m', '0', '-E',
                    'lazy_itable_init=0,lazy_journal_init=0,nodiscard', path],
                   check=True, stdin=subprocess.DEVNULL)
    total, done, folders = sum(length for _, length in files), 0, {'/'}
    with debugfs(path) as shell:
        for name, length in files:
            for folder in reversed(missing_folders(name, folders)):
                shell.stdin.write('mkdir "%s"\n' % folder)
            shell.stdin.write('write "%s" "%s"\n' % (name, name))
            shell.stdin.flush()
            done += length
            progress(done, total)
    trim(path)
    progress(total, total)


def debugfs(path):
    return subprocess.Popen([tool('debugfs'), '-w', '-f', '-', path],
                            stdin=subprocess.PIPE, text=True,
                            stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def missing_folders(name, known):
    """Parents of @name that are not known yet, innermost first."""
    missing = []
    folder = os.path.dirname(name)
    while folder not in known:
        known.add(folder)
        missing.append(folder)
        folder = os.path.dirname(folder)
    return missing


def trim(path):
    """Free blocks of the file system become holes, as a guest's trim does."""
    # The first run mends the counts that debugfs leaves behind; e2fsck
    # discards only in a run in which nothing was wrong.
    for _ in range(2):
        status = subprocess.run(
            [tool('e2fsck'), '-fy', '-E', 'discard', path],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL).returncode
        if status not in (0, 1):
            raise SystemExit('%s: e2fsck ended with status %d' %
                             (path, status))


def change(path, remove=(), write=()):
    """Removes files and writes (source, name) ones, then trims."""
    with debugfs(path) as shell:
        for name in remove:
            shell.stdin.write('rm "%s"\n' % name)
        for source, name in write:
            shell.stdin.write('rm "%s"\nwrite "%s" "%s"\n' %
                              (name, source, name))
    trim(path)


def sparse_copy(source, target):
    subprocess.run(['cp', '--sparse=always', '--reflink=auto', source, target],
                   check=True)


def differences(old, new, unit=64 * 1024, limit=1 << 20):
    """Where two raw files of one size differ: (kind, offset, length).

    Kind is 'discard' where @new has a hole and @old has not, else 'write'.
    """
    size = os.path.getsize(new)
    found = []

    def add(kind, offset, length):
        if found and found[-1][0] == kind and \
                sum(found[-1][1:]) == offset and found[-1][2] < limit:
            found[-1] = (kind, found[-1][1], found[-1][2] + length)
        else:
            found.append((kind, offset, length))

    with open(old, 'rb') as a, open(new, 'rb') as b:
        for offset in range(0, size, unit):
            length = min(unit, size - offset)
            hole = is_hole(b, offset, length)
            if hole and is_hole(a, offset, length):
                continue
            if hole:
                add('discard', offset, length)
                continue
            a.seek(offset)
            b.seek(offset)
            if a.read(length) != b.read(length):
                add('write', offset, length)
    return found


def is_hole(stream, offset, length):
    try:
        return os.lseek(stream.fileno(), offset, os.SEEK_DATA) >= \
            offset + length
    except OSError:     # no data up to the end
        return True
