/* The filter that our caller hands us, and the two that we make ourselves.
 *
 * The network filter is an allow-list of one socket family, AF_UNIX. Our filters look at the system call's number and
 * at arguments that travel in registers, never at memory, so nothing can be changed between the check and the use.
 */
#include "seccomp.h"

#include "memory.h"

#include <asm/ioctls.h>
#include <asm/sockios.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#if defined(__x86_64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "praxis-init knows the system calls of x86-64 and aarch64 only"
#endif

/* The same numbers on every architecture; spelt out because a libc's headers may be older than the kernel. */
#define CALL_IO_URING_SETUP 425
#define CALL_IO_URING_ENTER 426
#define CALL_IO_URING_REGISTER 427
#define CALL_PIDFD_OPEN 434
#define CALL_PIDFD_GETFD 438

const char *filter_take(struct filter *filter, const uint8_t *bytes, size_t length)
{
    size_t count = length / sizeof *filter->instructions;
    if (length == 0 || length % sizeof *filter->instructions != 0 || count > BPF_MAXINSNS)
        return "a filter that is not of 1 to 4096 instructions";
    struct sock_filter *instructions = keep(length);
    if (instructions == NULL)
        return "no memory is left for the filter";
    memcpy(instructions, bytes, length); /* little-endian, as every machine that we are built for */
    *filter = (struct filter){instructions, (unsigned short)count};
    return NULL;
}

static int digit(char character)
{
    if (character >= '0' && character <= '9')
        return character - '0';
    return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

const char *filter_parse(struct filter *filter, const char *digits)
{
    static uint8_t bytes[BPF_MAXINSNS * sizeof *filter->instructions];
    size_t length = 0;
    for (; *digits != '\0'; digits += 2, length++) {
        int high = digit(digits[0]), low = high < 0 ? -1 : digit(digits[1]);
        if (low < 0 || length == sizeof bytes)
            return "a filter that is not hexadecimal, or too long";
        bytes[length] = (uint8_t)(high << 4 | low);
    }
    return filter_take(filter, bytes, length);
}

const char *forbid_new_privileges(void)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? NULL : "no_new_privs";
}

static const char *install(struct sock_filter *instructions, size_t count, const char *step)
{
    const char *failed = forbid_new_privileges();
    if (failed != NULL)
        return failed;
    struct sock_fprog program = {(unsigned short)count, instructions};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0 ? NULL : step;
}

const char *install_filter(const struct filter *filter)
{
    return filter->instructions == NULL ? NULL : install(filter->instructions, filter->count, "filter");
}

#define FIELD(name) ((uint32_t)offsetof(struct seccomp_data, name))
#define LOAD(offset) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (offset))
#define RETURN(value) BPF_STMT(BPF_RET | BPF_K, (value))
/* The next instruction runs only if the loaded value is as said. */
#define IF_EQUAL(value) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, 1)
#define IF_NOT_EQUAL(value) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 1, 0)
#define IF_AT_LEAST(value) BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, (value), 0, 1)

static struct sock_filter network_filter[] = {
    /* The numbers below mean other calls on another architecture (int 0x80 on x86-64, say): first of all. */
    LOAD(FIELD(arch)),
    IF_NOT_EQUAL(OWN_ARCHITECTURE),
    RETURN(SECCOMP_RET_KILL_PROCESS),

    LOAD(FIELD(nr)),
#if defined(__x86_64__)
    /* x32 reports the same architecture with bit 30 set. -1 is not x32: it is how a tracer skips a call. */
    IF_EQUAL(UINT32_MAX),
    RETURN(SECCOMP_RET_ALLOW),
    IF_AT_LEAST(UINT32_C(0x40000000)),
    RETURN(SECCOMP_RET_KILL_PROCESS),
#endif
    /* io_uring opens and connects sockets without these calls. ENOSYS: programs then do without it. */
    IF_EQUAL(CALL_IO_URING_SETUP),
    RETURN(SECCOMP_RET_ERRNO | ENOSYS),
    IF_EQUAL(CALL_IO_URING_ENTER),
    RETURN(SECCOMP_RET_ERRNO | ENOSYS),
    IF_EQUAL(CALL_IO_URING_REGISTER),
    RETURN(SECCOMP_RET_ERRNO | ENOSYS),
    /* Takes a socket out of another process, which may be outside this filter. */
    IF_EQUAL(CALL_PIDFD_GETFD),
    RETURN(SECCOMP_RET_ERRNO | EPERM),

    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 2, 0),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socketpair, 1, 0),
    RETURN(SECCOMP_RET_ALLOW),

    /* The family is an int: the kernel ignores the upper half of the register, and so must we. Little-endian. */
    LOAD(FIELD(args[0])),
    IF_EQUAL(AF_UNIX),
    RETURN(SECCOMP_RET_ALLOW),
    /* What a kernel built without the family says, so that libraries fall back (glibc does without AF_NETLINK)
     * where EPERM would make them give up. */
    RETURN(SECCOMP_RET_ERRNO | EAFNOSUPPORT),
};

const char *refuse_sockets(void)
{
    return install(network_filter, sizeof network_filter / sizeof network_filter[0], "seccomp");
}

/* What ends a process by its number, or, of a group, by that: none of it may name us. */
const char *refuse_signals_to(pid_t init)
{
    const uint32_t us = (uint32_t)init, our_group = (uint32_t)-init, everybody = UINT32_MAX;
    const uint32_t refusal = SECCOMP_RET_ERRNO | EPERM;
#define IF_CALL(number, length) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, (length))
#define REFUSE_IF(value) IF_EQUAL(value), RETURN(refusal)
#define FIRST LOAD(FIELD(args[0]))
#define SECOND LOAD(FIELD(args[1]))
#define THIRD LOAD(FIELD(args[2]))
#define ALLOW RETURN(SECCOMP_RET_ALLOW)
    struct sock_filter instructions[] = {
        LOAD(FIELD(arch)),
        IF_NOT_EQUAL(OWN_ARCHITECTURE), /* 32-bit calls have other numbers */
        RETURN(SECCOMP_RET_ERRNO | ENOSYS),
        LOAD(FIELD(nr)),
        IF_CALL(SYS_kill, 8), FIRST, REFUSE_IF(us), REFUSE_IF(our_group), REFUSE_IF(everybody), ALLOW,
        IF_CALL(SYS_tkill, 4), FIRST, REFUSE_IF(us), ALLOW,
        IF_CALL(SYS_rt_sigqueueinfo, 4), FIRST, REFUSE_IF(us), ALLOW,
        IF_CALL(CALL_PIDFD_OPEN, 4), FIRST, REFUSE_IF(us), ALLOW,
        IF_CALL(SYS_ptrace, 4), SECOND, REFUSE_IF(us), ALLOW, /* root may trace whatever it likes */
        IF_CALL(SYS_tgkill, 7), FIRST, REFUSE_IF(us), SECOND, REFUSE_IF(us), ALLOW,
        IF_CALL(SYS_rt_tgsigqueueinfo, 7), FIRST, REFUSE_IF(us), SECOND, REFUSE_IF(us), ALLOW,
        /* Takes an open /proc/PID as well, of which nothing is seen here. Programs then use kill. */
        IF_CALL(SYS_pidfd_send_signal, 1), RETURN(SECCOMP_RET_ERRNO | ENOSYS),
        /* Whom a descriptor's owner's signal goes to, and with F_SETSIG that is any signal. */
        IF_CALL(SYS_ioctl, 6), SECOND, REFUSE_IF(FIOSETOWN), REFUSE_IF(SIOCSPGRP), ALLOW,
        IF_CALL(SYS_fcntl, 11), SECOND, REFUSE_IF(F_SETOWN_EX), IF_EQUAL(F_SETOWN), BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0),
        ALLOW, THIRD, REFUSE_IF(us), REFUSE_IF(our_group), ALLOW,
    };
    return install(instructions, sizeof instructions / sizeof instructions[0], "seccomp");
}
