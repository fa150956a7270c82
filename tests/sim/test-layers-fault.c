/* SPDX-License-Identifier: MIT */
/*
 * test-layers-fault.c - an operation of the disk fails in a commit, a rebase or
 * a stream.
 *
 * All files of the chain are on disks of which the n-th operation fails.  The
 * job ends well, or with an error that says something; the image goes on
 * showing what it did, and so does, opened anew, the chain that the top's
 * header names.  Check finds leaks at worst, and the job, run once more, ends
 * as it would have.
 */
#include "bad-disk.h"
#include "layers-job.h"

struct fault {
    struct layers_job j;
    struct trouble trouble;
    struct lam_io *fresh[MAX_OBJECTS];
    uint64_t n, runs, failed;
};

#define FAULT_CHECK(ok, f, fmt, ...)                                         \
    SIM_CHECK(ok, (f)->j.c.seed, "job %d, %s at operation %llu: " fmt,       \
              (int)(f)->j.job, (f)->trouble.mode->name,                      \
              (unsigned long long)(f)->n, __VA_ARGS__)

/* Nothing changes what the top shows. */
static void verify_open(struct fault *f, struct lam_image *image)
{
    const struct layer_disk *top = &f->j.c.disks[f->j.layers - 1];
    struct trouble saved = trouble_spare(&f->trouble);
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t *bytes = malloc(top->size);

    assert_non_null(bytes);
    assert_int_equal(lam_image_size(image), top->size);
    int rc = lam_image_read(image, bytes, top->size, 0, &err);
    FAULT_CHECK(rc == 0, f, "read: %s", err.message);
    for (uint64_t i = 0; i < top->size; i++)
        FAULT_CHECK(bytes[i] == top->bytes[i], f, "%#x instead of %#x at %#llx",
                    bytes[i], top->bytes[i], (unsigned long long)i);
    free(bytes);
    f->trouble = saved;
}

/* True if the job has succeeded. */
static bool suffer(struct fault *f)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *bad[MAX_OBJECTS];

    f->trouble = (struct trouble){ .mode = f->trouble.mode,
                                   .fail_at = UINT64_MAX };
    for (unsigned i = 0; i < f->j.objects; i++)
        bad[i] = bad_disk_new(f->j.c.disks[i].io, &f->trouble);
    struct lam_image *image = layers_open(&f->j.c, f->j.layers, true, bad);
    f->trouble.count = 0;
    f->trouble.fail_at = f->n;
    int rc = job_run(&f->j, image, bad[f->j.layers], &err);
    FAULT_CHECK(rc == 0 || trouble_has_come(&f->trouble), f, "fails, but no "
                "operation did: %s", err.message);
    FAULT_CHECK(rc == 0 || (err.code == -rc && err.message[0]), f, "%d without "
                "a message", rc);
    verify_open(f, image);
    int closed = lam_image_close(image, &err);
    FAULT_CHECK(closed == 0 || trouble_has_come(&f->trouble), f, "close: %s",
                err.message);
    f->failed += rc < 0;
    for (unsigned i = 0; i < f->j.objects; i++)
        lam_io_close(bad[i]);
    return rc == 0 && closed == 0;
}

/* How many operations there were. */
static uint64_t run(struct fault *f, uint64_t n)
{
    struct layer_chain now;
    char when[96];

    f->n = n;
    f->runs++;
    for (unsigned i = 0; i < f->j.objects; i++)
        f->j.c.disks[i].io = sim_copy(f->fresh[i]);
    bool ended = suffer(f);
    snprintf(when, sizeof when, "job %d, %s at operation %llu",
             (int)f->j.job, f->trouble.mode->name, (unsigned long long)n);
    job_chain_of(&f->j, &now);
    layers_verify(&now, now.count, when);
    layers_check(&now, false, when);
    if (ended)
        job_verify_base(&f->j, when);
    job_run_again(&f->j, when);
    job_verify_base(&f->j, when);
    for (unsigned i = 0; i < f->j.objects; i++)
        lam_io_close(f->j.c.disks[i].io);
    return f->trouble.count;
}

static void run_seed(uint64_t seed, uint64_t step)
{
    struct fault f = { .j.c = { .seed = seed, .random = seed } };

    job_make_chain(&f.j);
    for (unsigned i = 0; i < f.j.objects; i++)
        f.fresh[i] = f.j.c.disks[i].io;
    for (size_t m = 0; m < BAD_MODES; m++) {
        f.trouble.mode = &bad_modes[m];
        uint64_t n = (seed * 5 + m * 3) % step;

        while (run(&f, n) > n)
            n += step;
    }
    assert_true(f.failed > 0);
    if (getenv("LAM_SEED"))
        print_message("job %d: %llu runs, %llu failed\n", (int)f.j.job,
                      (unsigned long long)f.runs,
                      (unsigned long long)f.failed);
    for (unsigned i = 0; i < f.j.objects; i++)
        f.j.c.disks[i].io = f.fresh[i];
    f.j.c.count = f.j.objects;
    layers_free(&f.j.c);
}

/* LAM_STEP=1 tries each operation of each seed. */
static void test_layers_fault(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(3 * JOBS, &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed, sim_setting("LAM_STEP", 19));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_layers_fault) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
