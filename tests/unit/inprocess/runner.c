/* main of unit tests without criterion, see criterion/criterion.h. */
#include "tests/unit/inprocess/criterion/criterion.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

struct suite_hooks {
    const char *suite;
    void (*init)(void);
    void (*fini)(void);
};

static struct inprocess_test *tests;
static struct suite_hooks suites[64];
static size_t suite_count;

void inprocess_register(struct inprocess_test *t)
{
    t->next = tests;
    tests = t;
}

void inprocess_suite(const char *suite, void (*init)(void), void (*fini)(void))
{
    if (suite_count == sizeof(suites) / sizeof(suites[0]))
        abort();
    suites[suite_count++] = (struct suite_hooks){suite, init, fini};
}

void inprocess_fail(const char *file, int line, const char *expr, const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "%s:%d: failed: %s ", file, line, expr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    _exit(99);
}

static const struct suite_hooks *hooks_of(const struct inprocess_test *t)
{
    for (size_t i = 0; i < suite_count; i++) {
        if (strcmp(suites[i].suite, t->suite) == 0)
            return &suites[i];
    }
    return NULL;
}

static void run_in_child(const struct inprocess_test *t)
{
    const struct suite_hooks *hooks = hooks_of(t);
    void (*init)(void) = t->options.init != NULL ? t->options.init : hooks ? hooks->init : NULL;
    void (*fini)(void) = t->options.fini != NULL ? t->options.fini : hooks ? hooks->fini : NULL;

    alarm(t->options.timeout > 0 ? (unsigned)t->options.timeout + 1 : 100);
    if (init != NULL)
        init();
    t->fn();
    if (fini != NULL)
        fini();
    /* exit, not _exit: the sanitizer reports there. */
    exit(0);
}

static bool passes(const struct inprocess_test *t)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        run_in_child(t);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return false;
    if (t->options.signal != 0)
        return WIFSIGNALED(status) && WTERMSIG(status) == t->options.signal;
    return WIFEXITED(status) && WEXITSTATUS(status) == t->options.exit_code;
}

int main(void)
{
    int run = 0, failed = 0;

    for (const struct inprocess_test *t = tests; t != NULL; t = t->next) {
        if (t->options.disabled)
            continue;
        run++;
        if (!passes(t)) {
            failed++;
            printf("FAIL %s::%s\n", t->suite, t->name);
        }
    }
    printf("Tested: %d | Passing: %d | Failing: %d\n", run, run - failed, failed);
    return failed != 0;
}
