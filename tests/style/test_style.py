# SPDX-License-Identifier: MIT
"""The rules of CONTRIBUTING.md that a program can check."""
import os
import re
import shutil
import subprocess

import pytest

from harness import ROOT, build_dir

# Includes point one way: a folder may include itself and those before it.
LAYERS = ['base', 'crypto', 'extent', 'io', 'format', 'image', 'job']

# The library never prints, exits, aborts or reads the environment, and its
# threads let no signal in; strtok and friends are not thread-safe, the copy
# functions have no bounds.
BANNED_IN_LIB = {
    'abort', 'exit', '_exit', '_Exit', 'quick_exit', 'atexit',
    'printf', 'fprintf', 'vprintf', 'vfprintf', 'puts', 'putchar', 'perror',
    'getenv', 'secure_getenv', 'setenv', 'putenv', 'system', 'popen', 'fork',
    'setlocale', 'chdir', 'umask', 'srand', 'rand', 'strerror',
    'pthread_create',
}
BANNED_ANYWHERE = {
    'gets', 'strcpy', 'strcat', 'sprintf', 'vsprintf', 'strtok', 'alloca',
    'atoi', 'atol', 'asctime', 'ctime', 'gmtime', 'localtime', 'tmpnam',
    'mktemp',
}
# (file, function): why it may.
ALLOWED_CALLS = {
    ('cli/io-command.c', 'abort'): 'qemu-io has a command that does just that',
    ('lib/base/thread.c', 'pthread_create'): 'it keeps signals out',
}

MAX_LINES = 600
# Flat tables may be long: file: reason.
LONG_FILES = {
    'tests/image/defects.py': 'a flat list of defects, one after the other',
}
# A function fits a screen.
MAX_FUNCTION = 70
LONG_FUNCTIONS = {}

SOURCE = re.compile(r'\.(c|h)$')
TEXT = re.compile(r'(\.(c|h|py|md|build|txt|map|sh|yml|json)|/run|Makefile|'
                  r'/demo|/install-deps|/fetch-qemu10)$')
# Built from pieces, so that this file passes its own test.
PLACES = re.compile('|'.join([
    r'(?<![\w.])/' + r'work\b', r'(?<![\w.])/' + r'root\b',
    '/opt/' + 'qemu', '/tmp/' + r'h\b', r'/home/' + r'\w',
    r'\bdeb\.' + r'debian\.org', r'snapshot\.' + r'debian',
]))


def tracked():
    """Files of the project: what git knows, else the tree as it is."""
    listed = subprocess.run(['git', '-C', ROOT, 'ls-files', '-z'],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if listed.returncode == 0 and listed.stdout:
        names = listed.stdout.decode().split('\0')
    else:
        names = [os.path.relpath(os.path.join(folder, name), ROOT)
                 for folder, _, files in os.walk(ROOT) for name in files]
    skip = re.compile(r'^(build|\.git|\.ci/tmp)[^/]*/|__pycache__')
    return sorted(name for name in names if name and not skip.search(name)
                  and os.path.isfile(os.path.join(ROOT, name)))


FILES = tracked()
SOURCES = [name for name in FILES if SOURCE.search(name)]
OURS = [name for name in SOURCES
        if name.startswith(('lib/', 'cli/', 'include/'))]
PUBLIC = [name for name in SOURCES if name.startswith('include/')]


def read(name):
    with open(os.path.join(ROOT, name), encoding='utf-8') as text:
        return text.read()


def code_of(name):
    """The text with comments and the insides of strings blanked out."""
    def blank(match):
        found = match[0]
        if found.startswith('"') or found.startswith("'"):
            return found[0] + ' ' * (len(found) - 2) + found[0]
        return re.sub(r'[^\n]', ' ', found)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(\\.|[^"\\\n])*"|\'(\\.|[^\'\\\n])+\'',
                  blank, read(name), flags=re.DOTALL)


def calls(code):
    return set(re.findall(r'(?<![\w.>])([A-Za-z_]\w*)\s*\(', code))


def report(problems):
    assert not problems, '\n' + '\n'.join(problems)


def test_includes_point_one_way():
    problems = []
    for name in OURS:
        parts = name.split('/')
        for included in re.findall(r'^\s*#\s*include\s+"([^"]+)"', read(name),
                                   re.MULTILINE):
            folder = included.split('/')[0]
            if parts[0] == 'cli':
                beside = os.path.exists(os.path.join(ROOT, 'cli', included))
                if included != 'lamella.h' and not (beside and
                                                    '/' not in included):
                    problems.append('%s includes %s: the command may include '
                                    'lamella.h and cli/*.h' % (name, included))
            elif parts[0] == 'lib':
                if 'include/' + included in PUBLIC:
                    continue
                if folder not in LAYERS:
                    problems.append('%s includes %s: write the path from lib/'
                                    % (name, included))
                elif parts[1] in LAYERS and \
                        LAYERS.index(folder) > LAYERS.index(parts[1]):
                    problems.append('%s includes %s: %s is above %s' % (
                        name, included, folder, parts[1]))
                elif re.match(r'format/\w+/', included) and \
                        parts[1] != 'format':
                    problems.append('%s includes %s: formats are private'
                                    % (name, included))
    report(problems)


def test_banned_calls():
    problems = []
    for name in OURS:
        banned = set(BANNED_ANYWHERE)
        if name.startswith('lib/'):
            banned |= BANNED_IN_LIB
        for call in sorted(calls(code_of(name)) & banned):
            if (name, call) not in ALLOWED_CALLS:
                problems.append('%s calls %s()' % (name, call))
    report(problems)


def test_exceptions_are_still_needed():
    """An exemption whose reason has gone must go too."""
    problems = []
    for name, call in ALLOWED_CALLS:
        if name not in FILES or call not in calls(code_of(name)):
            problems.append('ALLOWED_CALLS: %s no longer calls %s()' %
                            (name, call))
    for name in LONG_FILES:
        if name not in FILES or read(name).count('\n') <= MAX_LINES:
            problems.append('LONG_FILES: %s is not long' % name)
    report(problems)


def test_file_length():
    report(['%s: %d lines, more than %d' % (name, lines, MAX_LINES)
            for name in OURS + [f for f in FILES if f.endswith('.py')]
            for lines in [read(name).count('\n')]
            if lines > MAX_LINES and name not in LONG_FILES])


def functions(name):
    """(name, first line, lines) of each function, by K&R braces."""
    lines = code_of(name).split('\n')
    start = None
    for number, line in enumerate(lines):
        if line.startswith('{'):
            start = number
        elif line.startswith('}') and start is not None:
            head = ' '.join(lines[max(0, start - 5):start])
            found = re.findall(r'(\w+)\s*\(', head)
            if found and not line.startswith(('};', '} ')):
                yield found[-1], start, number - start + 1
            start = None


def test_function_length():
    report(['%s:%d: %s() has %d lines, more than %d' % (
                name, start, function, length, MAX_FUNCTION)
            for name in OURS for function, start, length in functions(name)
            if length > MAX_FUNCTION
            and (name, function) not in LONG_FUNCTIONS])


def test_line_width():
    """80 columns; a line of help may be as long as what it prints is."""
    help_text = re.compile(r'\s*"([^"\\]|\\.){0,84}"[;,)]*')
    report(['%s:%d: %d columns' % (name, number, len(line))
            for name in SOURCES
            for number, line in enumerate(read(name).split('\n'), 1)
            if len(line) > 80 and not help_text.fullmatch(line)])


def test_white_space():
    problems = []
    for name in FILES:
        if not TEXT.search('/' + name):
            continue
        text = read(name)
        if text and not text.endswith('\n'):
            problems.append(name + ': no newline at the end')
        for number, line in enumerate(text.split('\n'), 1):
            if line.rstrip() != line:
                problems.append('%s:%d: blanks at the end' % (name, number))
            if '\t' in line and SOURCE.search(name):
                problems.append('%s:%d: a tab' % (name, number))
    report(problems)


def test_licence_lines():
    """The first line (the second after #!) names the licence."""
    wanted = re.compile(r'\.(c|h|py|build)$|/run$|^scripts/|^Makefile$')
    report([name for name in FILES
            if wanted.search(name) and 'SPDX-License-Identifier: MIT'
            not in '\n'.join(read(name).split('\n')[:2])])


def test_no_places():
    """Nothing names a machine, a mirror or somebody's directory."""
    problems = []
    for name in FILES:
        if not TEXT.search('/' + name):
            continue
        for number, line in enumerate(read(name).split('\n'), 1):
            found = PLACES.search(line)
            if found:
                problems.append('%s:%d: %s' % (name, number, found[0]))
    report(problems)


def test_no_dead_files():
    """Every C file is built, every header included."""
    meson = '\n'.join(read(name) for name in FILES
                      if name.endswith('meson.build'))
    every = '\n'.join(read(name) for name in SOURCES)
    problems = []
    for name in SOURCES:
        base = os.path.basename(name)
        if name.endswith('.h'):
            if not re.search(r'#\s*include\s+[<"]([\w/-]+/)?%s[>"]' %
                             re.escape(base), every):
                problems.append(name + ' is not included anywhere')
        elif name.startswith('tests/'):
            stem = re.sub(r'^(test|fuzz)-|\.c$', '', base)
            if not re.search(r"'(%s|%s)'" % (re.escape(stem),
                                             re.escape(base)), meson):
                problems.append(name + ' is in no meson.build')
        elif not re.search(r"'([\w/-]+/)?%s'" % re.escape(base), meson):
            problems.append(name + ' is in no meson.build')
    report(problems)


def test_no_unfinished_marks():
    """A TODO carries an issue number; XXX and FIXME are not left behind."""
    problems = []
    for name in OURS:
        for number, line in enumerate(read(name).split('\n'), 1):
            if re.search(r'\b(XXX|FIXME)\b', line) or \
                    re.search(r'\bTODO\b(?! *\(#\d+\))', line):
                problems.append('%s:%d: %s' % (name, number, line.strip()))
    report(problems)


def public_functions():
    return {name for header in PUBLIC for name in re.findall(
        r'\bLAM_API\s[^;]*?\b(lam_\w+)\s*\(', code_of(header))}


def test_exported_symbols():
    library = os.path.join(build_dir(), 'lib', 'liblamella.so')
    if not os.path.exists(library):
        pytest.fail(library + ' is not built', pytrace=False)
    listed = subprocess.run(['nm', '-D', '--defined-only', library],
                            stdout=subprocess.PIPE, text=True, check=True)
    exported = {line.split()[-1].split('@')[0]
                for line in listed.stdout.splitlines()}
    exported = {name for name in exported if not name.startswith('LAMELLA_')}
    declared = public_functions()
    report(['exported, not declared in a public header: ' + name
            for name in sorted(exported - declared)] +
           ['declared in a public header, not exported: ' + name
            for name in sorted(declared - exported)])


def test_public_headers_are_complete():
    """Each is part of lamella.h, and installed."""
    whole, listed = read('include/lamella.h'), read('include/meson.build')
    parts = [name[len('include/'):] for name in PUBLIC]
    report([name + ' is not included by lamella.h' for name in parts
            if name != 'lamella.h' and '#include <%s>' % name not in whole] +
           [name + ' is not installed' for name in parts
            if "'%s'" % name not in listed])


@pytest.mark.parametrize('command, suffix', [
    (['cc', '-std=c11', '-pedantic', '-xc'], '.c'),
    (['c++', '-std=c++17', '-pedantic', '-xc++'], '.cc')])
def test_headers_stand_alone(command, suffix, tmp_path):
    """Each public header compiles by itself, in C11 without GNU, and in C++,
    where the functions have the names that the library has."""
    if not shutil.which(command[0]):
        pytest.skip('%s is not here' % command[0])
    sources = []
    for name in PUBLIC:
        part = name[len('include/'):]
        source = tmp_path / (part.replace('/', '-') + suffix)
        source.write_text('#include <%s>\n#include <%s>\n' % (part, part))
        sources.append(source)
    subprocess.run([*command, '-Wall', '-Wextra', '-Wshadow', '-Werror',
                    '-fsyntax-only', '-I', os.path.join(ROOT, 'include'),
                    *sources], check=True)
    object_file = tmp_path / 'names.o'
    sources[0].write_text(
        '#include <lamella.h>\n'
        'void *const names[] = { %s };\n' % ', '.join(
            '(void *)&' + name for name in sorted(public_functions())))
    subprocess.run([command[0], '-c', '-I', os.path.join(ROOT, 'include'),
                    sources[0], '-o', object_file], check=True)
    listed = subprocess.run(['nm', '-u', object_file], check=True, text=True,
                            stdout=subprocess.PIPE).stdout.split()
    report(['%s has another name in an object' % name for name in listed
            if name != 'U' and not name.startswith('lam_')])
