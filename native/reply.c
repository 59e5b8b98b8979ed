/* Why a sandbox cannot be made is rarely in an errno alone: the same EPERM means a switch of the kernel, AppArmor, or the
 * container around us, and each is allowed elsewhere.
 */
#include "reply.h"

#include "diagnostics.h"
#include "files.h"
#include "frames.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LONGEST = 8 * 1024 };

static void send(int to, enum frame_type type, const void *payload, size_t length)
{
    uint8_t frame[FRAME_HEADER + LONGEST];
    if (to < 0)
        return;
    put_header(frame, type, (uint32_t)length);
    memcpy(frame + FRAME_HEADER, payload, length);
    if (write(to, frame, FRAME_HEADER + length) != (ssize_t)(FRAME_HEADER + length))
        complain("cannot write the reply", NULL, errno);
}

void reply_end(int to, const struct outcome *outcome)
{
    uint8_t end[8 + STEP_LENGTH];
    size_t step = strlen(outcome->step);
    put_u32(end, (uint32_t)outcome->kind);
    put_u32(end + 4, (uint32_t)outcome->number);
    memcpy(end + 8, outcome->step, step);
    send(to, FRAME_END, end, 8 + step);
}

void reply_refusal(int to, const char *reason)
{
    send(to, FRAME_REFUSED, reason, strlen(reason));
}

static bool has_value(const char *file, char value)
{
    char text[32];
    return read_text(AT_FDCWD, file, text, sizeof text) > 0 && text[0] == value && (text[1] == '\n' || text[1] == 0);
}

static bool is(const char *step, const char *other)
{
    return strcmp(step, other) == 0;
}

/* Why there are no user namespaces, or none that are worth anything. */
static const char *help_with_namespaces(int error)
{
    if (error == ENOSPC || error == EUSERS || has_value("/proc/sys/user/max_user_namespaces", '0'))
        return "The kernel allows no more namespaces: raise user.max_user_namespaces (sysctl).";
    if (has_value("/proc/sys/kernel/unprivileged_userns_clone", '0'))
        return "The kernel allows user namespaces to root only: set kernel.unprivileged_userns_clone=1 (sysctl).";
    if (has_value("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", '1'))
        return "AppArmor lets no unprivileged program use user namespaces: give praxis-init a profile with `userns,`, "
               "or set kernel.apparmor_restrict_unprivileged_userns=0 (sysctl).";
    if (error == ENOSYS || error == EINVAL)
        return "The kernel is too old (Linux 5.12 is needed) or was built without user namespaces.";
    return "In a container its runtime must allow user namespaces and mounts (its seccomp profile and AppArmor "
           "profile); else use another engine.";
}

static const char *help_with(const char *step, int error)
{
    bool refused = error == EPERM || error == EACCES;
    if (is(step, "user-namespace") || is(step, "namespaces") || is(step, "private-mounts") || is(step, "user") ||
        (refused && (is(step, "network") || is(step, "host-name") || is(step, "capabilities"))))
        return help_with_namespaces(error);
    if (error == ENOSYS)
        return "The kernel is too old: Linux 5.12 is needed.";
    if (is(step, "proc") && refused)
        return "A container whose own /proc is partly covered may mount none: its runtime must show all of it "
               "(Docker: --security-opt systempaths=unconfined).";
    if (is(step, "mounts"))
        return "It was moved or replaced after it had been opened: another program, or a tool with a writable mount "
               "there, does that. Try again.";
    if (is(step, "root") && (error == EINVAL || error == ENODEV || refused))
        return "The kernel may let no user namespace mount an overlay (Linux 5.11 is needed, and a file system that "
               "can be a layer of one).";
    if (is(step, "place"))
        return error == ELOOP ? "A link is in the way, which is not followed."
                              : "Nothing can be mounted there: create the place, or choose another one.";
    if (is(step, "directory"))
        return "The working directory must exist in the sandbox, and its user must be allowed to enter it.";
    if (is(step, "groups"))
        return "The control group must be there and open to this user.";
    return "";
}

void reply_failure(int to, const struct outcome *outcome, const char *where)
{
    char text[LONGEST];
    const char *help = help_with(outcome->step, outcome->number);
    int length = snprintf(text, sizeof text, "%s%s%s: %s.%s%s", outcome->step, where == NULL ? "" : " at ",
                          where == NULL ? "" : where, strerror(outcome->number), help[0] == '\0' ? "" : " ", help);
    send(to, FRAME_DETAIL, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
    if (to < 0)
        complain(text, NULL, 0);
    reply_end(to, outcome);
}
