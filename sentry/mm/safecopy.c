/* Signal handler that lets the routines of safecopy.S fail instead of the process. */
#include "sentry/mm/safecopy.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <ucontext.h>

/* Labels in safecopy.S. */
extern const char safecopy_begin[], safecopy_end[], safezero_begin[], safezero_end[];
extern const char safe32_begin[], safe32_end[];
extern const char safecopy_fixup_left[], safecopy_fixup_efault[];

static struct sigaction safecopy_old_segv, safecopy_old_bus;

static bool safecopy_within(uintptr_t rip, const char *begin, const char *end)
{
    return rip >= (uintptr_t)begin && rip < (uintptr_t)end;
}

static uintptr_t safecopy_fixup(uintptr_t rip)
{
    if (safecopy_within(rip, safecopy_begin, safecopy_end) ||
        safecopy_within(rip, safezero_begin, safezero_end))
        return (uintptr_t)safecopy_fixup_left;
    if (safecopy_within(rip, safe32_begin, safe32_end))
        return (uintptr_t)safecopy_fixup_efault;
    return 0;
}

static void safecopy_handler(int signo, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    greg_t *rip = &uc->uc_mcontext.gregs[REG_RIP];
    uintptr_t fixup = safecopy_fixup((uintptr_t)*rip);
    if (fixup != 0) {
        *rip = (greg_t)fixup;
        return;
    }
    /* A bug of ours: with the old handler in place the instruction faults again and ends us. A
     * signal that was sent rather than caused does not come back by itself. */
    (void)sigaction(signo, signo == SIGSEGV ? &safecopy_old_segv : &safecopy_old_bus, NULL);
    if (info->si_code <= 0)
        (void)raise(signo);
}

static pthread_once_t safecopy_once = PTHREAD_ONCE_INIT;
static int safecopy_err;

static void safecopy_install(void)
{
    struct sigaction sa;
    memset(&sa, 0, sizeof(sa));
    sa.sa_sigaction = safecopy_handler;
    sa.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    (void)sigemptyset(&sa.sa_mask);
    if (sigaction(SIGSEGV, &sa, &safecopy_old_segv) != 0 ||
        sigaction(SIGBUS, &sa, &safecopy_old_bus) != 0)
        safecopy_err = -errno;
}

int safecopy_init(void)
{
    (void)pthread_once(&safecopy_once, safecopy_install);
    return safecopy_err;
}
