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


# The same by an interactive zsh, into the file $2: after each line an "=".
ZSH = r'''
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PROMPT=; fpath=($1 \$fpath)
autoload -Uz compinit; compinit -u -D; unsetopt auto_list beep
compadd() {
    if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        builtin compadd \"\$@\"
        return \$?
    fi
    typeset -a hits
    builtin compadd -A hits \"\$@\"
    [[ -n \$hits ]] && print -rl -- \$hits >> $2
    builtin compadd \"\$@\"
}
end-line() { print -r -- = >> $2; zle kill-whole-line }
zle -N end-line
bindkey '^I' complete-word '^G' end-line
print -r -- = >> $2"
wait_for() {
    repeat 600; do
        [[ $(grep -c '^=$' $2 2>/dev/null) -ge $1 ]] && return
        sleep 0.05
    done
    exit 1
}
wait_for 1 $2
n=1
while IFS= read -r line; do
    zpty -w -n shell "$line"$'\t\x07'
    wait_for $((++n)) $2
done
zpty -d shell
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
    if not shutil.which('zsh'):
        pytest.skip('zsh is not here')
    pairs = [(line, words) for line, words in wanted(data)
             if not line.endswith('--') and not line.startswith('/')]
    run('zsh', '-f', '-c', ZSH, 'zsh', os.path.dirname(script('_lamella')),
        tmp_path / 'offered', cwd=tmp_path,
        input=''.join(line + '\n' for line, _ in pairs))
    answers = (tmp_path / 'offered').read_text().split('=\n')[1:]
    for (line, words), answer in zip(pairs, answers):
        if set(answer.split()) != words:
            pytest_fail('%s\noffered: %s\nwanted:  %s' % (
                line, sorted(set(answer.split())), sorted(words)))
