/* SPDX-License-Identifier: MIT */
/*
 * driver.c - runs a fuzz target where there is no libFuzzer.
 *
 *     fuzz-TARGET [-max_total_time=SECONDS] [-runs=N] [-seed=N] FOLDER|FILE...
 *
 * Every input once as it is, then changed ones until the time is up or so many
 * have run, without guidance by coverage: a few bytes, or a whole big-endian
 * number of the kind that breaks parsers.  A changed input is left in the file
 * "fuzz-input" while it runs, so that the one that crashed is there.  The
 * options are a subset of libFuzzer's.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    uint8_t *bytes;
    size_t size;
};

static struct input *inputs;
static size_t nb_inputs;
static uint64_t state = 1;

static uint64_t next_random(void)
{
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static void load_file(const char *path)
{
    FILE *in = fopen(path, "rb");
    if (!in || fseek(in, 0, SEEK_END) != 0)
        die(path);
    long size = ftell(in);
    rewind(in);
    inputs = realloc(inputs, (nb_inputs + 1) * sizeof *inputs);
    uint8_t *bytes = malloc((size_t)size + 1);
    if (size < 0 || !inputs || !bytes ||
        fread(bytes, 1, (size_t)size, in) != (size_t)size)
        die(path);
    inputs[nb_inputs++] = (struct input){ bytes, (size_t)size };
    fclose(in);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void load(const char *path)
{
    struct stat found;
    if (stat(path, &found) != 0)
        die(path);
    if (!S_ISDIR(found.st_mode)) {
        load_file(path);
        return;
    }
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, by_name);
    if (count < 0)
        die(path);
    for (int i = 0; i < count; i++) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            load_file(name);
        free(entries[i]);
    }
    free(entries);
}

/* A number that parsers stumble over, or one near to one that is there. */
static uint64_t awkward_number(uint64_t present)
{
    static const uint64_t limits[] = {
        0, 1, 0x1ff, 0x200, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff,
        UINT64_C(0x100000000), UINT64_C(0x00fffffffffffe00),
        UINT64_C(0x7fffffffffffffff), UINT64_C(0x8000000000000000),
        UINT64_C(0xffffffffffffffff), UINT64_C(0x4000000000000000),
    };
    switch (next_random() % 5) {
    case 0:
        return limits[next_random() % (sizeof limits / sizeof *limits)];
    case 1:
        return present + 1 - next_random() % 3;
    case 2:
        return present ^ UINT64_C(1) << next_random() % 64;
    case 3:
        return UINT64_C(1) << next_random() % 64;
    default:
        return next_random() % 64 << 9;
    }
}

static void put_number(uint8_t *bytes, size_t width)
{
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++)
        value = value << 8 | bytes[i];
    value = awkward_number(value);
    for (size_t i = width; i-- > 0; value >>= 8)
        bytes[i] = (uint8_t)value;
}

/* Half of the changes hit the first 160 bytes, where the header is. */
static void mutate(uint8_t *bytes, size_t size)
{
    if (size < 16)
        return;
    for (size_t n = 1 + next_random() % 4; n > 0; n--) {
        size_t reach = next_random() % 2 && size > 160 ? 160 : size;
        size_t width = next_random() % 2 ? 8 : 4;
        size_t at = next_random() % (reach - width + 1);
        if (next_random() % 4 == 0)
            bytes[at] = (uint8_t)next_random();
        else
            put_number(bytes + at / width * width, width);
    }
}

static void keep(const uint8_t *bytes, size_t size)
{
    FILE *out = fopen("fuzz-input", "wb");
    if (!out || fwrite(bytes, 1, size, out) != size || fclose(out) != 0)
        die("fuzz-input");
}

static void run_changed(const struct input *input)
{
    size_t size = input->size;
    if (size > 0 && next_random() % 8 == 0)
        size = next_random() % size;
    /* A block of exactly this size, so that a read beyond it is seen. */
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes)
        die("malloc");
    memcpy(bytes, input->bytes, size);
    mutate(bytes, size);
    keep(bytes, size);
    LLVMFuzzerTestOneInput(bytes, size);
    free(bytes);
}

struct limits {
    long seconds;               /* 0: none */
    unsigned long runs;         /* 0: none */
};

static void run_all(const struct limits *limits)
{
    time_t end = time(NULL) + limits->seconds;
    unsigned long runs;

    for (size_t i = 0; i < nb_inputs; i++) {
        keep(inputs[i].bytes, inputs[i].size);
        LLVMFuzzerTestOneInput(inputs[i].bytes, inputs[i].size);
    }
    for (runs = nb_inputs; nb_inputs; runs++) {
        if (limits->runs ? runs >= limits->runs : time(NULL) >= end)
            break;
        run_changed(&inputs[next_random() % nb_inputs]);
    }
    remove("fuzz-input");
    printf("%lu runs\n", runs);
}

int main(int argc, char **argv)
{
    struct limits limits = { 0, 0 };

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "-max_total_time=", 16) == 0)
            limits.seconds = strtol(argv[i] + 16, NULL, 10);
        else if (strncmp(argv[i], "-runs=", 6) == 0)
            limits.runs = strtoul(argv[i] + 6, NULL, 10);
        else if (strncmp(argv[i], "-seed=", 6) == 0)
            state = strtoull(argv[i] + 6, NULL, 10);
        else if (argv[i][0] != '-')
            load(argv[i]);
    }
    run_all(&limits);
    for (size_t i = 0; i < nb_inputs; i++)
        free(inputs[i].bytes);
    free(inputs);
    return 0;
}
