/* SPDX-License-Identifier: MIT */
/*
 * object-threads.c - --object thread-context: the processors of threads that
 * take memory for machines.
 *
 * There are no such threads here, so that it is enough to find out whether
 * there could be.
 */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "object.h"

enum { MAX_PROCESSORS = UINT16_MAX + 1 };

static struct json_object *list_of(struct json_object *tree, const char *name)
{
    struct json_object *list = NULL;

    json_object_object_get_ex(tree, name, &list);
    return list;
}

/* Adds the processors of "0-3,8" to @set. */
static bool add_ranges(cpu_set_t *set, const char *text)
{
    bool any = false;

    while (*text >= '0' && *text <= '9') {
        char *end;
        unsigned long first = strtoul(text, &end, 10), last = first;
        if (*end == '-')
            last = strtoul(end + 1, &end, 10);
        for (; first <= last && first < MAX_PROCESSORS; first++, any = true)
            CPU_SET_S(first, CPU_ALLOC_SIZE(MAX_PROCESSORS), set);
        text = end + (*end == ',');
    }
    return any;
}

/* Where the kernel shows no nodes, all is node 0. */
static bool add_node(cpu_set_t *set, uint64_t node)
{
    char path[80], line[4096] = "";

    snprintf(path, sizeof path, "/sys/devices/system/node/node%llu/cpulist",
             (unsigned long long)node);
    FILE *file = fopen(path, "re");
    if (!file && node == 0)
        return sched_getaffinity(0, CPU_ALLOC_SIZE(MAX_PROCESSORS), set) == 0;
    if (!file)
        return false;
    bool any = fgets(line, sizeof line, file) && add_ranges(set, line);
    fclose(file);
    return any;
}

/* Runs there for a moment. */
static int try_processors(const cpu_set_t *set, struct lam_error *err)
{
    size_t size = CPU_ALLOC_SIZE(MAX_PROCESSORS);
    cpu_set_t *before = CPU_ALLOC(MAX_PROCESSORS);
    int rc = 0;

    if (!before)
        return option_fail(err, ENOMEM, "no memory for an object");
    if (sched_getaffinity(0, size, before) < 0 ||
        sched_setaffinity(0, size, set) < 0 ||
        sched_setaffinity(0, size, before) < 0)
        rc = option_fail(err, errno, "Setting CPU affinity failed: %s",
                         strerror(errno));
    CPU_FREE(before);
    return rc;
}

static int try_list(struct json_object *processors, struct json_object *nodes,
                    struct lam_error *err)
{
    struct json_object *list = processors ? processors : nodes;
    size_t count = json_object_array_length(list);
    cpu_set_t *set = CPU_ALLOC(MAX_PROCESSORS);
    bool any = false;

    if (!set)
        return option_fail(err, ENOMEM, "no memory for an object");
    CPU_ZERO_S(CPU_ALLOC_SIZE(MAX_PROCESSORS), set);
    for (size_t i = 0; i < count; i++) {
        uint64_t number =
            json_object_get_uint64(json_object_array_get_idx(list, i));
        if (processors)
            CPU_SET_S(number, CPU_ALLOC_SIZE(MAX_PROCESSORS), set);
        any |= processors || add_node(set, number);
    }
    int rc = any ? try_processors(set, err)
                 : option_fail(err, EINVAL, "The nodes select no CPUs");
    CPU_FREE(set);
    return rc;
}

int object_make_threads(const struct cli *cli, struct json_object *tree,
                        struct lam_error *err)
{
    struct json_object *processors = list_of(tree, "cpu-affinity");
    struct json_object *nodes = list_of(tree, "node-affinity");

    if (processors && nodes)
        return option_fail(err, EINVAL,
                           "Mixing CPU and node affinity not supported");
    if (processors && !json_object_array_length(processors))
        return option_fail(err, EINVAL, "CPU list is empty");
    if (nodes && !json_object_array_length(nodes))
        return option_fail(err, EINVAL, "Node list is empty");
    int rc = object_make_name(cli, tree, err);
    return rc < 0 || (!processors && !nodes) ? rc
                                             : try_list(processors, nodes, err);
}
