# SPDX-License-Identifier: MIT
"""What shells offer: every subcommand, every option, values by their kind."""
import json
import os
import shutil
import subprocess

import pytest

from harness import build_dir, pytest_fail, run
from test_help import names_of

# Lines on stdin; for each the candidates on one line.
BASH = r'''
source "$1"
COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
while IFS= read -r line; do
    COMP_LINE=$line COMP_POINT=${#line}
    _lamella
    echo "${COMPREPLY[*]}"
done
'''


@pytest.fixture(scope='module')
def data(our_lamella):
    return json.loads(run(our_lamella, '--help=json').stdout)


def script(name):
    return os.path.join(build_dir(), 'docs', name)


def bash(lines, cwd):
    if not shutil.which('bash'):
        pytest.skip('bash is not here')
    done = run('bash', '-c', BASH, 'bash', script('lamella'), cwd=cwd,
               input=''.join(line + '\n' for line in lines))
    assert done.stderr == ''
    answers = done.stdout.split('\n')[:-1]
    assert len(answers) == len(lines)
    return {line: set(answer.split()) for line, answer in zip(lines, answers)}


def wanted(data):
    """(command line, what is offered)"""
    yield 'lamella ', {c['name'] for c in data['commands']}
    yield 'lamella --', {'--help', '--version', '--trace'}
    for command in data['commands']:
        words = {word for option in command['options']
                 for word in names_of(option)}
        starts = ['lamella ' + command['name'],
                  '/usr/bin/qemu-img ' + command['name']]
        starts += ['qemu-io'] * (command['name'] == 'io')
        for start in starts:
            yield start + ' -', words
            yield start + ' --', {w for w in words if w.startswith('--')}
        for option in command['options']:
            for word in names_of(option):
                if option.get('value') == 'FMT':
                    yield '%s %s ' % (starts[0], word), set(data['formats'])


def test_bash_offers_every_option(data, tmp_path):
    pairs = list(wanted(data))
    answers = bash([line for line, _ in pairs], tmp_path)
    for line, words in pairs:
        if answers[line] != words:
            pytest_fail('%s\noffered: %s\nwanted:  %s' % (
                line, sorted(answers[line]), sorted(words)))


@pytest.mark.parametrize('line, words', [
    ('lamella con', 'convert'),
    ('lamella convert --target-f', '--target-format'),
    ('lamella convert -t w', 'writeback writethrough'),
    ('lamella convert --target-cache=d', 'directsync'),
    ('lamella convert -T ', 'none writeback writethrough directsync unsafe'),
    ('lamella convert --progress=', 'json'),
    ('lamella convert -p d', 'disk.raw'),
    ('lamella --help=', 'json'),
    ('lamella info --output ', 'human json'),
    ('lamella check -r l', 'leaks'),
    ('lamella info ', 'disk.raw folder'),
    ('lamella rebase -b fo', 'folder'),
    ('lamella create -f qcow2 -o clus', 'cluster_size='),
    ('lamella create -f qcow2 -o lazy_refcounts=on,comp',
     'on,compat= on,compression_type='),
    ('lamella convert -O luks -o key', 'key-secret='),
    ('lamella dd i', 'if='),
    ('lamella dd if=d', 'disk.raw'),
    ('qemu-io -f ra', 'raw'),
    ('qemu-io d', 'disk.raw'),
    ('lamella nonsense --', ''),
])
def test_bash_values(tmp_path, line, words):
    (tmp_path / 'disk.raw').touch()
    (tmp_path / 'folder').mkdir()
    assert bash([line], tmp_path)[line] == set(words.split())


def test_fish_offers_every_option(data, tmp_path):
    if not shutil.which('fish'):
        pytest.skip('fish is not here')
    env = dict(os.environ, HOME=str(tmp_path), TERM='dumb')
    pairs = [(line, words) for line, words in wanted(data)
             if line.endswith(' --') and 'qemu-img' not in line
             and line != 'lamella --']
    commands = ['source ' + script('lamella.fish')]
    for line, _ in pairs:
        commands += ["complete -C '%s'" % line, 'echo =']
    done = run('fish', '--no-config', '-c', '\n'.join(commands), env=env,
               cwd=tmp_path)
    answers = done.stdout.split('=\n')
    for (line, words), answer in zip(pairs, answers):
        offered = {part.split('\t')[0] for part in answer.splitlines()}
        assert words <= offered, line


def test_zsh_offers_every_option(data, tmp_path):
    """_arguments takes all of it, and lists the options."""
    if not shutil.which('zsh'):
        pytest.skip('zsh is not here')
    run('zsh', '-n', script('_lamella'))
    with open(script('_lamella'), encoding='utf-8') as source:
        text = source.read()
    for command in data['commands']:
        start = text.index('_lamella_%s()' % command['name'])
        body = text[start:text.index('\n}\n', start)]
        for option in command['options']:
            for word in names_of(option):
                assert any("'*%s%s[" % (word, sign) in body
                           for sign in ('', '=', '+', '=-')), word
