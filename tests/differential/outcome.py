# SPDX-License-Identifier: MIT
"""One command by the genuine tools and by ours: what they print, how they end,
and what the files are afterwards; made comparable."""
import hashlib
import json
import os
import re

from harness import contains, run

PROGRAMS = ('qemu-img', 'qemu-io')

# What two runs of one program differ in, too.
VARIES = [
    (r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', 'DATE'),
    (r'"date-(n?sec)": \d+', r'"date-\1": 0'),
    (r'[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', 'UUID'),
    (r'("(?:parent-)?cid"): (?!4294967295)\d+', r'\1: 0'),
    (r'( (?:parent )?cid): (?!4294967295)\d+', r'\1: 0'),
    (r'disk size: .*', 'disk size: N'),
    (r'"actual-size": \d+', '"actual-size": 0'),
    (r'(?m)^(.*), \d+ ops; .*', r'\1, TIME'),
    (r'Run completed in .*', 'Run completed in TIME'),
    (r'(?m)^( +(key offset|iters|stripes|master key iters): )\d+', r'\1N'),
    (r'"(iters|master-key-iters)": \d+', r'"\1": 0'),
    (r'#block\d+', "#block"),
    (r'\d+:\d\d:\d\d\.\d\d,[\d.]+,[\d.]+', 'TIMES'),
    # How often is told how far it is, but for the beginning and the end.
    (r'(?s) *\(0\.00/100%\).*\(100\.00/100%\)', 'PROGRESS'),
    (r'( *\(0\.00/100%\)\n)(?: *\([\d.]+/100%\)\n)+', r'\1'),
]

# Where clusters lie after something has been changed is each one's own affair.
LAYOUT = [
    (r'(file length: |[Ii]mage.end.offset"?: ).*', r'\1N'),
    (r'[\d.]+% fragmented', 'N% fragmented'),
    (r'"fragmented-clusters": \d+,?', ''),
    (r'"offset": \d+', '"offset": N'),
    (r'("info": \{\s+"children": \[\s+\],\s+"virtual-size": )\d+', r'\1N'),
]


def normalise(text, program, changed=False):
    text = text.replace(program, os.path.basename(program))
    for pattern, instead in VARIES + (LAYOUT if changed else []):
        text = re.sub(pattern, instead, text)
    return text


class Outcome:
    def __init__(self, program, args, cwd, changed, limit=60):
        env = dict(os.environ, TZ='UTC', LC_ALL='C.UTF-8')
        done = run(program, *args, status=None, cwd=cwd, env=env,
                   timeout=limit)
        self.status = done.returncode
        self.out = normalise(done.stdout, program, changed)
        self.err = normalise(done.stderr, program, changed)

    def __str__(self):
        return 'exit status %d\n--- stdout\n%s\n--- stderr\n%s' % (
            self.status, self.out, self.err)

    def same(self, other):
        if (self.status, self.err) != (other.status, other.err):
            return False
        return self.out == other.out or same_json(self.out, other.out)


def same_json(ours, theirs):
    """By value, and ours may have more keys."""
    try:
        return contains(json.loads(ours), json.loads(theirs))
    except ValueError:
        return False


def perform(folder, words, cwd, changed, limit=60):
    """@folder holds the programs; qemu-img unless the line names qemu-io."""
    name = words[0] if words and words[0] in PROGRAMS else None
    return Outcome(os.path.join(folder, name or 'qemu-img'),
                   words[1:] if name else words, cwd, changed, limit)


def files_of(folder):
    return {os.path.relpath(os.path.join(path, name), folder)
            for path, _, names in os.walk(folder) for name in names}


def same_bytes(a, b):
    """Compared in blocks: images may be long, with holes."""
    if os.path.getsize(a) != os.path.getsize(b):
        return False
    if os.path.getsize(a) > 1 << 30:
        return None
    with open(a, 'rb') as x, open(b, 'rb') as y:
        while True:
            left = x.read(1 << 20)
            if left != y.read(1 << 20):
                return False
            if not left:
                return True


FACTS = ('virtual-size', 'format', 'backing-filename', 'cluster-size',
         'backing-filename-format', 'encrypted', 'snapshots')


def describe(genuine, name, cwd):
    """What the genuine tool says an image is, and a digest of the disk."""
    done = run(genuine, 'info', '-U', '--output=json', name, status=None,
               cwd=cwd)
    if done.returncode:
        return done.stderr
    info = json.loads(normalise(done.stdout, genuine))
    facts = {key: info.get(key) for key in FACTS}
    data = dict(info.get('format-specific', {}).get('data', {}))
    data.pop('encrypt', None)
    facts['data'] = data
    for snapshot in facts['snapshots'] or []:
        snapshot.pop('date-nsec', None)
    if info['virtual-size'] <= 1 << 26 and not info.get('encrypted'):
        raw = os.path.join(cwd, '..', 'digest.raw')
        done = run(genuine, 'convert', '-U', '-f', info['format'], '-O', 'raw',
                   name, raw, status=None, cwd=cwd)
        facts['disk'] = done.stderr
        if done.returncode == 0:
            with open(raw, 'rb') as data:
                facts['disk'] = hashlib.sha256(data.read()).hexdigest()
            os.unlink(raw)
    return facts


def compare_files(genuine, stage, rooms, layout, seen=None):
    """None, or what differs.  @seen remembers what has been found equal."""
    theirs, ours = (files_of(room) for room in rooms)
    if theirs != ours:
        return 'files: only theirs %s, only ours %s' % (
            sorted(theirs - ours), sorted(ours - theirs))
    for name in sorted(theirs):
        paths = [os.path.join(room, name) for room in rooms]
        state = [(info.st_ino, info.st_size, info.st_mtime_ns)
                 for info in map(os.stat, paths)]
        if seen is not None and seen.get(name) == state:
            continue
        if same_bytes(*paths):
            if seen is not None:
                seen[name] = state
            continue
        if layout and not os.path.exists(os.path.join(stage, name)):
            return '%s: other bytes' % name
        a, b = (describe(genuine, name, room) for room in rooms)
        if a != b:
            return '%s:\n  theirs %s\n  ours   %s' % (name, a, b)
        if seen is not None:
            seen[name] = state
    return None
