/* praxis-init: the small static program that praxis-mcp puts in front of a tool's command.
 *
 * The modules, from the bottom up. Each is a .c and a .h of the same name; it includes, and calls, only what stands
 * above it here, which tests/native/test_modules.py checks.
 *
 * diagnostics  a line on stderr, and exit statuses
 * events       the clock, and waiting
 * memory       what stays until the end
 * files        small files of the kernel
 * environment  our own environment, as the command gets it
 * execute      becoming a command
 * frames       the bytes of a frame on the channel
 * outcome      how a command ended, in each way of telling it
 * digest       SHA-256 of a secret
 * shares       what a command gets of what is its user's
 * options      a form's options: reading and explaining them
 * seccomp      filters of system calls
 * namespaces   namespaces, and what is mounted in them
 * cgroups      control groups
 * tree         a signal to every descendant, however it hid
 * confine      no network, no rights over processes outside, nor over us
 * command      the start of a command, and what became of it
 * supervise    a started command: its signals, its deadline, the end of all it started
 * capture      a command's output into files
 * trees        the directories that come with a call
 * call         the call that the frames make
 * layout       the layout of a sandbox that the frames make
 * mounting     mounts, and the places that they get, by descriptor
 * devices      a /dev of a sandbox's own
 * arrange      the file system of a sandbox
 * places       whether all that is mounted in a sandbox is still in its place
 * rights       what a process in a sandbox may do
 * standby      the descriptors of a call, to a process that was there ahead of it
 * reply        what goes back to the caller of a sandbox
 * listener     a channel that comes over TCP
 * relay        the channel and the command's streams
 * findings     what became of the directories, back
 * run          a form: a command of its own words, and a report
 * wait         a form: a command that comes over a channel, and its output back
 * join         a form: into control groups and a mount namespace, and then only the command
 * sandbox      a form: a command in namespaces and a file system of its own
 *
 * A new form is a module of its own, and a line in the table below.
 */
#include "diagnostics.h"
#include "join.h"
#include "options.h"
#include "run.h"
#include "sandbox.h"
#include "wait.h"

#include <string.h>
#include <unistd.h>

static const struct form *const forms[] = {&run_form, &wait_form, &join_form, &sandbox_form};
enum { FORMS = sizeof forms / sizeof forms[0] };

static const char version[] = "praxis-init 12\n";

int main(int argc, char **argv)
{
    if (argc < 2)
        return refuse_usage("no form given", NULL);
    for (int index = 0; index < FORMS; index++)
        if (strcmp(argv[1], forms[index]->name) == 0)
            return forms[index]->run(argv + 2);
    if (strcmp(argv[1], "--version") == 0)
        return write(STDOUT_FILENO, version, sizeof version - 1) < 0 ? EXIT_SETUP : 0;
    if (strcmp(argv[1], "--help") == 0)
        return print_help(forms, FORMS) ? 0 : EXIT_SETUP;
    return refuse_usage("unknown form", argv[1]);
}
