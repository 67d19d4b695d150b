/* A hostile config.json: parsed and checked, or refused with a text that fits a line. */
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runsc/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What every later step relies on when a configuration was accepted. */
static void check_spec(const struct oci_spec *s)
{
    if (s->process.args.count == 0 || s->process.args.v[s->process.args.count] != NULL ||
        s->process.cwd[0] != '/' || s->root_path == NULL || s->oci_version == NULL)
        abort();
    for (size_t i = 0; i < s->mount_count; i++)
        if (s->mounts[i].destination[0] != '/')
            abort();
    for (size_t i = 0; i < s->process.rlimit_count; i++)
        if (s->process.rlimits[i].resource < 0 || s->process.rlimits[i].resource >= 16)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct oci_spec *spec;
    struct err e;

    memset(&e, 0, sizeof(e));
    if (spec_parse((const char *)data, size, "config.json", &spec, &e) == 0) {
        check_spec(spec);
        spec_free(spec);
    } else if (e.text[0] == '\0' || strchr(e.text, '\n') != NULL) {
        abort();
    }
    return 0;
}
