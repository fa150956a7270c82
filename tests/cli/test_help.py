# SPDX-License-Identifier: MIT
"""--help of every subcommand, and what is made of the same tables: manual
pages.  The list of subcommands is asked for, so new ones are tested, too."""
import json
import os
import re
import shutil

import pytest

from harness import build_dir, pytest_fail, run

# Wanted for the examples: what is no file of ours, or takes root.
ELSEWHERE = re.compile(r'/dev/|\.\.\.')


@pytest.fixture(scope='module')
def tables(our_lamella):
    data = json.loads(run(our_lamella, '--help=json').stdout)
    commands = {command['name']: command for command in data['commands']}
    assert len(commands) >= 19
    return dict(commands, **{'': data['program']})


def help_of(program, name):
    return run(program, *name.split(), '--help')


def names_of(option):
    return ['-' * len(dashes) + option[key]
            for key, dashes in (('letter', '-'), ('name', '--'))
            if key in option]


def test_help(tables, our_img, our_lamella):
    """Usage, options, exit status, two examples, in eighty columns."""
    for name, command in tables.items():
        for program, called in (our_img, 'qemu-img'), (our_lamella, 'lamella'):
            done = help_of(program, name)
            text = done.stdout
            assert done.stderr == '' and text.startswith('Usage:\n')
            assert max(map(len, text.splitlines())) <= 80, name
            assert 'Exit status: ' in text
            before, _, examples = text.partition('\nExamples:\n')
            start = '  %s %s' % (called, name)
            assert examples.count(start) >= 2, name
            for option in command['options']:
                if 'text' in option:
                    shown = ', '.join(names_of(option))
                    assert re.search(r'^ +%s\b' % re.escape(shown), before,
                                     re.MULTILINE), (name, shown)


def test_help_as_a_command(our_img, our_lamella):
    """As --help, and not of qemu-img, whose command it is not."""
    for args in ([], ['convert']):
        asked = [run(our_lamella, *order, status=0).stdout
                 for order in (['help', *args], [*args, '--help'])]
        assert asked[0] == asked[1]
    assert 'Command not found: nothing' in run(our_lamella, 'help', 'nothing',
                                               status=1).stderr
    assert 'Command not found: help' in run(our_img, 'help', status=1).stderr


def test_every_option_is_taken(tables, our_lamella, tmp_path):
    """What a table has is known to the code behind it: the complaint is never
    that there is no such option."""
    for name, command in tables.items():
        for option in command['options']:
            if option.get('name') in ('help', 'version'):
                continue
            for word in names_of(option):
                takes = 'value' in option and \
                    not option.get('value-optional')
                argv = [*name.split(), word] + ['1'] * takes
                done = run(our_lamella, *argv, status=None, cwd=tmp_path)
                if done.stderr.startswith('Try ') or \
                        'unrecognized' in done.stderr or \
                        'invalid option' in done.stderr:
                    pytest_fail('%s\n%s' % (' '.join(argv), done.stderr))


def options_named(text):
    """As they begin lines of the genuine help: "-f, --format FMT"."""
    found = set()
    for line in text.splitlines():
        for word in line.split():
            if not line.startswith('  ') or not word.startswith('-'):
                break
            found.add(word.rstrip(',').partition('[')[0].partition('=')[0])
    return found


def is_taken(texts, name, word):
    """Its help offers some that it refuses."""
    complaint = run(*texts.img, name, word, status=None).stderr
    return 'unrecognized' not in complaint and \
        'invalid option' not in complaint


def test_genuine_options(tables, texts, our_img):
    """All that the genuine help names is in ours."""
    missing = []
    for name in tables:
        theirs = run(*texts.img, *name.split(), '--help', status=None)
        if not name or theirs.returncode:
            continue                # what only we have
        ours = options_named(help_of(our_img, name).stdout)
        genuine = options_named(theirs.stdout)
        assert len(genuine) >= 4, theirs.stdout
        missing += ['%s %s' % (name, word) for word in sorted(genuine - ours)
                    if not any(known.startswith(word) for known in ours)
                    and is_taken(texts, name, word)]
    assert not missing


def make_stage(folder, our_lamella):
    """The files that examples speak of."""
    for line in ('create -f raw disk.raw 1M', 'create -f raw template.raw 1M',
                 'create -f qcow2 base.qcow2 4M',
                 'create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2',
                 'create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2',
                 'create -f qcow2 -b base.qcow2 -F qcow2 vm1.qcow2',
                 'create -f qcow2 backup.qcow2 4M',
                 'create -f qcow2 disk.qcow2 1M',
                 'bitmap --add vm1.qcow2 tuesday'):
        run(our_lamella, *line.split(), cwd=folder)
    (folder / 'new' / 'place').mkdir(parents=True)
    shutil.copy(folder / 'base.qcow2', folder / 'new' / 'place')


def test_examples(tables, our_lamella, tmp_path):
    """What help and manual pages show works, each in its own folder."""
    (tmp_path / 'stage').mkdir()
    make_stage(tmp_path / 'stage', our_lamella)
    lines = [(name, line) for name, command in tables.items()
             for line in command['examples'].splitlines()
             if not ELSEWHERE.search(line)]
    assert len(lines) >= 2 * len(tables) - 6
    for number, (name, line) in enumerate(lines):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / 'stage', folder)
        words = '"%s" %s %s' % (our_lamella, name, line)
        done = run('sh', '-c', words, cwd=folder, status=None)
        if done.returncode or done.stderr and name != 'commit':
            pytest_fail('%s: exit status %d\n%s' % (words, done.returncode,
                                                    done.stderr))


# ------------------------------------------------------------- manual pages

def page(name):
    return os.path.join(build_dir(), 'docs',
                        'lamella%s.1' % ('-' + name if name else ''))


def plain(text):
    """roff to the words in it."""
    text = re.sub(r'\\f[BIR]', '', text)
    return text.replace('\\-', '-').replace('\\(aq', "'").replace('\\e', '\\')


def test_manual_names_every_option(tables):
    for name, command in tables.items():
        with open(page(name), encoding='utf-8') as source:
            text = plain(source.read())
        assert text.count('\n.SH ') >= 6
        for option in command['options']:
            for word in names_of(option):
                assert re.search(r'^\.TP\n(.*, )?%s\b' % re.escape(word), text,
                                 re.MULTILINE), (name, word)
        for line in command['examples'].splitlines():
            assert line in text


def test_manual_is_clean_roff(tables):
    """No complaint."""
    if not shutil.which('mandoc'):
        pytest.skip('mandoc is not here')
    done = run('mandoc', '-T', 'lint', '-W', 'style', *map(page, tables),
               status=None)
    assert not done.stdout and not done.stderr


def test_manual_has_the_keys(tables, our_lamella):
    """-o of each format that can be created."""
    for name in 'create', 'convert':
        with open(page(name), encoding='utf-8') as source:
            text = plain(source.read())
        for key in ('cluster_size', 'refcount_bits', 'preallocation',
                    'compression_type', 'encrypt.key-secret'):
            assert '\n.TP\n%s=' % key in text
