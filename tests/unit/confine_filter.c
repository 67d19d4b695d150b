/* The sentry's filter: which requests of the virtual machine get through, and on which platform.
 * Each is made by a child of its own, on a descriptor that is none. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/compiler.h"
#include "runsc/sandbox/confine.h"

static bool is_killed(const char *platform, long nr, unsigned long first, unsigned long second)
{
    int status;
    pid_t pid = fork();

    cr_assert_geq(pid, 0);
    if (pid == 0) {
        const char *step;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            confine_seccomp(platform, false, &step) != 0)
            _exit(1);
        (void)syscall(nr, first, second, 0, 0);
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) {
        cr_assert_eq(WTERMSIG(status), SIGSYS);
        return true;
    }
    cr_assert_eq(WEXITSTATUS(status), 0);
    return false;
}

static bool request_is_killed(const char *platform, unsigned long request)
{
    return is_killed(platform, SYS_ioctl, (unsigned long)-1, request);
}

Test(confine_filter, requests_that_run_guests)
{
    static const unsigned long requests[] = {KVM_RUN,
                                             KVM_SET_USER_MEMORY_REGION,
                                             KVM_CREATE_VCPU,
                                             KVM_SET_CPUID2,
                                             KVM_GET_SREGS,
                                             KVM_SET_SREGS,
                                             KVM_SET_MSRS,
                                             KVM_SET_XCRS,
                                             KVM_GET_XSAVE,
                                             KVM_SET_XSAVE,
                                             KVM_SET_DEVICE_ATTR};

    for (size_t i = 0; i < ARRAY_SIZE(requests); i++) {
        cr_assert(!request_is_killed("kvm", requests[i]), "request %#lx", requests[i]);
        cr_assert(request_is_killed("systrap", requests[i]), "request %#lx", requests[i]);
        cr_assert(request_is_killed("ptrace", requests[i]), "request %#lx", requests[i]);
    }
}

/* Devices, interrupts, other machines, and what reads state or moves it. */
Test(confine_filter, requests_that_do_not)
{
    static const unsigned long requests[] = {KVM_CREATE_VM,
                                             KVM_CHECK_EXTENSION,
                                             KVM_CREATE_DEVICE,
                                             KVM_CREATE_IRQCHIP,
                                             KVM_CREATE_PIT2,
                                             KVM_IRQFD,
                                             KVM_IOEVENTFD,
                                             KVM_SET_GSI_ROUTING,
                                             KVM_SIGNAL_MSI,
                                             KVM_INTERRUPT,
                                             KVM_GET_REGS,
                                             KVM_SET_REGS,
                                             KVM_GET_MSRS,
                                             KVM_SET_FPU,
                                             KVM_ENABLE_CAP,
                                             KVM_SET_GUEST_DEBUG,
                                             KVM_GET_DIRTY_LOG,
                                             KVM_SET_TSS_ADDR,
                                             KVM_SET_IDENTITY_MAP_ADDR,
                                             KVM_MEMORY_ENCRYPT_OP};

    for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
        cr_assert(request_is_killed("kvm", requests[i]), "request %#lx", requests[i]);
}

/* Where no process runs guests, none is traced. */
Test(confine_filter, no_stubs_no_tracing)
{
    cr_assert(is_killed("kvm", SYS_ptrace, PTRACE_DETACH, (unsigned long)-1));
    cr_assert(!is_killed("ptrace", SYS_ptrace, PTRACE_DETACH, (unsigned long)-1));
#ifndef RINGWALL_SANITIZE /* which opens files of its own */
    cr_assert(is_killed("kvm", SYS_openat, (unsigned long)AT_FDCWD, 0));
#endif
}
