/* The parts of a call taken in: words and variables into bounded memory, files straight to where they belong. */
#include "call.h"

#include "events.h"
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* More than the kernel takes for one command (6 MiB of words and variables with the usual stack limit). */
static const size_t MOST_BYTES = 8 * 1024 * 1024;
/* Each new one is compared with all that are there. */
static const size_t MOST_VARIABLES = 8192;

static const char no_memory[] = "no memory is left for the call";

void call_init(struct call *call)
{
    *call = (struct call){.timeout = NO_DEADLINE, .file = -1};
}

/* The text of a payload, or NULL and why it is refused. */
static char *text_of(struct call *call, const uint8_t *bytes, size_t length, const char **refusal)
{
    if (memchr(bytes, '\0', length) != NULL) {
        *refusal = "a text with a NUL byte";
        return NULL;
    }
    call->size += length + 1 + sizeof(char *);
    if (call->size > MOST_BYTES) {
        *refusal = "a call of more than 8 MiB";
        return NULL;
    }
    char *text = keep_text(bytes, length);
    if (text == NULL)
        *refusal = no_memory;
    return text;
}

static const char *append(struct list *list, char *item)
{
    if (list->count + 1 >= list->capacity) {
        size_t capacity = list->capacity == 0 ? 64 : list->capacity * 2;
        char **larger = keep(capacity * sizeof *larger);
        if (larger == NULL)
            return no_memory;
        if (list->count != 0)
            memcpy(larger, list->items, list->count * sizeof *larger);
        list->items = larger;
        list->capacity = capacity;
    }
    list->items[list->count++] = item;
    list->items[list->count] = NULL;
    return NULL;
}

static const char *set_variable(struct call *call, char *variable)
{
    const char *equals = strchr(variable, '=');
    if (equals == NULL || equals == variable)
        return "a variable without a name";
    size_t name = (size_t)(equals - variable) + 1;
    for (size_t index = 0; index < call->variables.count; index++)
        if (strncmp(call->variables.items[index], variable, name) == 0) {
            call->variables.items[index] = variable;
            return NULL;
        }
    return call->variables.count < MOST_VARIABLES ? append(&call->variables, variable) : "more than 8192 variables";
}

static const char *begin(struct call *call, const struct frame *frame)
{
    if (frame->length != 20)
        return "a CALL that is not 20 bytes long";
    uint64_t timeout = get_u64(frame->payload + 4), kill_after = get_u64(frame->payload + 12);
    call->flags = get_u32(frame->payload);
    if ((call->flags & ~(uint32_t)CALL_FLAGS) != 0)
        return "a CALL with flags that are unknown here";
    if (timeout > LONGEST_DURATION || kill_after > LONGEST_DURATION)
        return "a CALL with a time of more than 31 years";
    call->began = true;
    call->timeout = timeout == 0 ? NO_DEADLINE : (int64_t)timeout;
    call->kill_after = (int64_t)kill_after;
    for (char **own = environ; own != NULL && *own != NULL; own++) {
        const char *refusal = append(&call->variables, *own);
        if (refusal != NULL)
            return refusal;
    }
    return NULL;
}

static const char *set_filter(struct call *call, const struct frame *frame)
{
    if (call->filter.instructions != NULL)
        return "a second FILTER";
    return filter_take(&call->filter, frame->payload, frame->length);
}

static void fail_at(struct call *call, const char *step)
{
    if (!call->failed)
        call->failure = outcome_of_failed_setup(step, errno);
    call->failed = true;
}

static void end_file(struct call *call)
{
    if (call->file >= 0 && !(call->is_of_tree ? trees_end_file(&call->trees, call->file) : close(call->file) == 0))
        fail_at(call, call->is_of_tree ? "tree" : "file");
    call->file = -1;
    call->is_of_tree = false;
}

static const char *take_tree(struct call *call, const struct frame *frame)
{
    end_file(call);
    bool failed = call->failed;
    const char *refusal = trees_take(&call->trees, frame, &call->file, &failed);
    call->is_of_tree = frame->type == FRAME_TREE_FILE;
    if (!failed)
        return refusal;
    fail_at(call, "tree");
    if (call->file >= 0)
        close(call->file);
    call->file = -1;
    return refusal;
}

/* The folders above the file; those that cannot be made are reported by the open that follows. */
static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
}

static const char *begin_file(struct call *call, const struct frame *frame)
{
    char path[PATH_MAX];
    if (frame->length < 5 || frame->length - 4 >= sizeof path)
        return "a FILE without a path, or with one of more than 4095 bytes";
    uint32_t mode = get_u32(frame->payload);
    size_t length = frame->length - 4;
    if ((mode & ~UINT32_C(07777)) != 0 || memchr(frame->payload + 4, '\0', length) != NULL)
        return "a FILE with a mode above 07777, or with a NUL byte in its path";
    memcpy(path, frame->payload + 4, length);
    path[length] = '\0';
    if (call->failed)
        return NULL;
    make_folders(path);
    /* Not blocking: what is there already may be a pipe that nobody reads. */
    call->file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    struct stat found;
    if (call->file < 0 || fstat(call->file, &found) != 0) {
        fail_at(call, "file");
    } else if (!S_ISREG(found.st_mode)) {
        errno = EEXIST;
        fail_at(call, "file");
    } else if (fchmod(call->file, (mode_t)mode) != 0) { /* what open() is given is cut by the umask */
        fail_at(call, "file");
    }
    return NULL;
}

static const char *add_to_file(struct call *call, const struct frame *frame)
{
    const char *refusal = call->is_of_tree ? trees_count(&call->trees, frame->length) : NULL;
    for (uint32_t done = 0; refusal == NULL && done < frame->length && !call->failed;) {
        ssize_t count = write(call->file, frame->payload + done, frame->length - done);
        if (count < 0 && errno != EINTR)
            fail_at(call, call->is_of_tree ? "tree" : "file");
        else if (count > 0)
            done += (uint32_t)count;
    }
    return refusal;
}

static const char *skip_in_file(struct call *call, const struct frame *frame)
{
    if (frame->length != 8)
        return "a FILE_HOLE that is not 8 bytes long";
    if (!call->is_of_tree)
        return "a FILE_HOLE without a TREE_FILE";
    const char *refusal = trees_count(&call->trees, get_u64(frame->payload));
    if (refusal == NULL && !call->failed && !trees_skip(&call->trees, call->file, get_u64(frame->payload)))
        fail_at(call, "tree");
    return refusal;
}

static const char *complete(struct call *call)
{
    end_file(call);
    call->complete = true;
    if (call->words.count == 0)
        return "a call without a command";
    /* Of an emptied environment the list has no end of its own yet. */
    return call->variables.items == NULL ? append(&call->variables, NULL) : NULL;
}

const char *call_take(struct call *call, const struct frame *frame)
{
    if (call->began != (frame->type != FRAME_CALL))
        return call->began ? "a second CALL" : "a call that does not begin with CALL";
    const char *refusal = NULL;
    char *text;
    switch (frame->type) {
    case FRAME_CALL:
        return begin(call, frame);
    case FRAME_ARGUMENT:
        text = text_of(call, frame->payload, frame->length, &refusal);
        return text == NULL ? refusal : append(&call->words, text);
    case FRAME_VARIABLE:
        text = text_of(call, frame->payload, frame->length, &refusal);
        return text == NULL ? refusal : set_variable(call, text);
    case FRAME_FILTER:
        return set_filter(call, frame);
    case FRAME_FILE:
        end_file(call);
        return begin_file(call, frame);
    case FRAME_FILE_DATA:
        return call->file >= 0 || call->failed ? add_to_file(call, frame) : "FILE_DATA without a FILE";
    case FRAME_FILE_HOLE:
        return skip_in_file(call, frame);
    case FRAME_TREE:
    case FRAME_TREE_DIRECTORY:
    case FRAME_TREE_FILE:
    case FRAME_TREE_LINK:
        return take_tree(call, frame);
    case FRAME_START:
        return frame->length == 0 ? complete(call) : "a START with a payload";
    case FRAME_STDIN:
    case FRAME_STDIN_END:
        return "standard input before START";
    default:
        return unknown_frame;
    }
}
