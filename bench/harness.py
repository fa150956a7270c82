# SPDX-License-Identifier: MIT
"""What a benchmark is: workloads, the data they read, how one run is timed.

A module in bench/workloads has

    WORKLOADS = [Workload(...), ...]        its rows, in order
    DATA = {'name': function, ...}          who makes a file: function(bench)

and nothing else needs to know of it.  A file in DATA is made (in the current
folder) when a chosen row names it: in its arguments, or in `needs`.  A function
asks for what it needs itself with bench.need('name'); names are known across
modules.  A row that the ordinary ways do not fit overrides Workload's methods:
before(), command(), figures(), verify().
"""
import importlib
import json
import os
import subprocess

KiB, MiB, GiB, TiB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
SIDES = ('genuine', 'lamella')


def say(text):
    print(text, flush=True)


class Workload:
    """What both are asked: their arguments, and what comes out.

    name        as the table shows it
    arguments   of qemu-img and lamella alike, the subcommand first
    source      (file, format) that the output must equal
    output      the file that is made (removed before each run), or None
    fmt         of the output
    ours,       more arguments, behind the subcommand, for one of the two;
    theirs      theirs=None: there is nothing to compare with
    needs       files of DATA that the arguments do not name
    repeat      how often, where --repeat is too much or too little
    goal        shown beside
    """

    def __init__(self, name, arguments=(), source=None, output=None, ours=(),
                 theirs=(), fmt=None, needs=(), repeat=None, goal=''):
        self.name = name
        self.arguments = list(arguments)
        self.source = source
        self.output = output
        self.extra = {'lamella': list(ours),
                      'genuine': None if theirs is None else list(theirs)}
        self.fmt = fmt
        self.more_needs = list(needs)
        self.repeat = repeat
        self.goal = goal

    def words(self):
        """Everything that may be the name of a file to be made."""
        return {*self.arguments, *self.extra['lamella'],
                *(self.extra['genuine'] or ()), *self.more_needs,
                *((self.source[0],) if self.source else ())}

    def sides(self):
        return [side for side in SIDES if self.extra[side] is not None]

    # The next four are for rows that are not a plain command.

    def before(self, bench, side):
        """Before each run, not timed: a fresh target."""
        if self.output and os.path.exists(self.output):
            os.unlink(self.output)

    def command(self, bench, side):
        return [bench.program[side], self.arguments[0], *self.extra[side],
                *self.arguments[1:]]

    def figures(self, bench, side):
        """One run: {'wall': s, 'cpu': s, 'rss': bytes}, and 'size' of the
        output if there is one.  RuntimeError if it fails."""
        figures = bench.measure(self.command(bench, side), 'stdout.' + side)
        if self.output:
            figures['size'] = os.stat(self.output).st_size
        return figures

    def verify(self, bench):
        """Judges what lamella's last run has made; RuntimeError if it is not
        right.  Returns a word for the records."""
        if not self.output:
            return 'exit 0'
        if self.fmt == 'qcow2':
            bench.must('check', '-q', '-f', 'qcow2', self.output)
        bench.must_equal(self.source, (self.output, self.fmt))
        return 'identical'


SECRET = ['--object', 'secret,id=s,data=swordfish']


def luks_node(name):
    return ('json:{"driver": "luks", "key-secret": "s", "file": {"driver": '
            '"file", "filename": "%s"}}' % name)


class Bench:
    """The two programs, and the data made so far."""

    def __init__(self, options, data):
        self.options = options
        self.size = options.size            # MiB of real files
        self.lamella = os.path.join(options.build, 'lamella')
        self.genuine = options.qemu_img
        self.qemu_io = os.path.join(os.path.dirname(self.genuine), 'qemu-io')
        self.program = {'lamella': self.lamella, 'genuine': self.genuine}
        self.data = data                    # name -> function
        self.files = {}                     # name -> files it consists of
        self.making = []                    # a stack of sets

    # ------------------------------------------------------------------ data

    def need(self, name):
        """Makes the data called @name, unless it is there."""
        if name not in self.files:
            there = set(os.listdir('.'))
            self.making.append(set())
            self.data[name](self)
            self.files[name] = self.making.pop() | \
                (set(os.listdir('.')) - there)
        if self.making:
            self.making[-1] |= self.files[name]
        return name

    def needs_of(self, workload):
        return sorted(workload.words() & set(self.data))

    def forget(self, keep):
        """Removes the data of which nothing is among the names @keep."""
        kept = set().union(*(self.files[name] for name in keep
                             if name in self.files))
        for name in [name for name in self.files if name not in keep]:
            if not self.files[name] <= kept:
                for path in self.files.pop(name) - kept:
                    if os.path.exists(path):
                        os.unlink(path)

    def must(self, *arguments):
        """The genuine qemu-img; RuntimeError if it fails."""
        done = subprocess.run([self.genuine, *arguments], text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError('qemu-img %s: exit status %d: %s' % (
                arguments[0], done.returncode, done.stdout.strip()[-200:]))

    def must_equal(self, *pair):
        """Two (file, format) have the same content, says the genuine one."""
        options, names = [], []
        for option, (name, fmt) in zip(('-f', '-F'), pair):
            luks = fmt == 'luks'
            options += [] if luks else [option, fmt]
            names.append(luks_node(name) if luks else name)
        self.must('compare', '-q', *SECRET, *options, *names)

    def io(self, name, script, fmt='qcow2'):
        """A script for the genuine qemu-io."""
        subprocess.run([self.qemu_io, '-f', fmt, '-t', 'unsafe', name],
                       input=script + 'quit\n', text=True, check=True,
                       stdout=subprocess.DEVNULL)

    # --------------------------------------------------------------- running

    def measure(self, command, stdout='stdout'):
        """One timed run of a command: wall, cpu, rss."""
        os.sync()
        with open(stdout, 'wb') as out:
            done = subprocess.run(
                [os.path.join(self.options.build, 'bench', 'bench-measure'),
                 'result.json', *command], stdout=out,
                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode:
            raise RuntimeError('%s: exit status %d: %s' % (
                os.path.basename(command[0]), done.returncode,
                done.stderr.decode(errors='replace').strip()[-300:]))
        with open('result.json', encoding='ascii') as result:
            return json.load(result)

    def warm(self, workload):
        """Its input into the page cache, so that nobody pays for the first
        run."""
        for name in set().union(*(self.files[name]
                                  for name in self.needs_of(workload))):
            with open(name, 'rb', buffering=0) as stream:
                read_data(stream.fileno())

    def compare(self, workload):
        """The row of the table: both in turn, the least wall time of each."""
        runs = {side: [] for side in workload.sides()}
        for name in self.needs_of(workload):
            self.need(name)
        self.warm(workload)
        for _ in range(workload.repeat or self.options.repeat):
            for side, figures in runs.items():
                workload.before(self, side)
                figures.append(workload.figures(self, side))
        row = {'name': workload.name, 'goal': workload.goal}
        for side, figures in runs.items():
            row['qemu-img' if side == 'genuine' else side] = least(figures)
        row['verified'] = workload.verify(self)
        row['runs'] = len(runs['lamella'])
        if 'genuine' in runs:
            add_ratios(row)
        return row


def add_ratios(row):
    row['ratio'] = {key: row['qemu-img'][key] / max(row['lamella'][key], 1e-6)
                    for key in ('wall', 'cpu', 'rss')}
    if 'size' in row['lamella']:
        row['size'] = row['lamella']['size'] / max(row['qemu-img']['size'], 1)


def least(runs):
    return min(runs, key=lambda figures: figures['wall'])


def read_data(descriptor):
    """Reads a file but for its holes."""
    offset, buffer = 0, bytearray(MiB)
    while True:
        try:
            offset = os.lseek(descriptor, offset, os.SEEK_DATA)
            end = os.lseek(descriptor, offset, os.SEEK_HOLE)
        except OSError:
            return
        while offset < end:
            done = os.preadv(descriptor, [buffer], offset)
            if done == 0:
                return
            offset += done


def load(folder):
    """The modules in a folder, which is in the path, by name."""
    return [importlib.import_module(name[:-3])
            for name in sorted(os.listdir(folder)) if name.endswith('.py')]
