/* Reading by hand what strtod() and strtol() would read too generously: nan, inf, signs, spaces, hexadecimal. */
#include "options.h"

#include "diagnostics.h"
#include "events.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static const struct option *find(const struct option *options, const char *name)
{
    for (; options->name != NULL; options++)
        if (strcmp(options->name, name) == 0)
            return options;
    return NULL;
}

char **take_options(const struct option *options, void *into, char **arguments)
{
    while (*arguments != NULL && (*arguments)[0] == '-' && strcmp(*arguments, "--") != 0) {
        const char *name = *arguments++;
        const struct option *option = find(options, name);
        if (option == NULL) {
            refuse_usage("unknown option", name);
            return NULL;
        }
        char **values = arguments;
        for (int left = option->count; left > 0 && *arguments != NULL; left--)
            arguments++;
        if (arguments - values != option->count || !option->take((char *)into + option->offset, values)) {
            refuse_usage("a bad or missing value for", name);
            return NULL;
        }
    }
    return arguments;
}

bool take_flag(void *where, char **values)
{
    (void)values;
    *(bool *)where = true;
    return true;
}

bool take_text(void *where, char **values)
{
    *(const char **)where = values[0];
    return values[0][0] != '\0';
}

bool take_seconds(void *where, char **values)
{
    const int64_t most = LONGEST_DURATION / NANOSECONDS_PER_SECOND;
    int64_t whole = 0, fraction = 0, unit = NANOSECONDS_PER_SECOND;
    const char *text = values[0];
    bool digits = false;
    for (; *text >= '0' && *text <= '9'; text++) {
        digits = true;
        whole = whole * 10 + (*text - '0');
        if (whole > most)
            whole = most;
    }
    if (*text == '.') {
        for (text++; *text >= '0' && *text <= '9'; text++) {
            digits = true;
            unit /= 10;
            fraction += unit * (*text - '0');
        }
    }
    *(int64_t *)where = whole * NANOSECONDS_PER_SECOND + fraction;
    return digits && *text == '\0';
}

bool take_positive_seconds(void *where, char **values)
{
    return take_seconds(where, values) && *(int64_t *)where > 0;
}

bool take_pid(void *where, char **values)
{
    unsigned long long number;
    if (!is_number(values[0], INT_MAX, &number) || number == 0)
        return false;
    *(pid_t *)where = (pid_t)number;
    return true;
}

const char *parse_number(const char *text, unsigned long long most, unsigned long long *number)
{
    const char *next = text;
    *number = 0;
    for (; *next >= '0' && *next <= '9'; next++) {
        unsigned digit = (unsigned)(*next - '0');
        if (*number > (most - digit) / 10)
            return NULL;
        *number = *number * 10 + digit;
    }
    return next == text ? NULL : next;
}

bool is_number(const char *text, unsigned long long most, unsigned long long *number)
{
    const char *rest = parse_number(text, most, number);
    return rest != NULL && *rest == '\0';
}

static bool print(const char *text)
{
    size_t length = strlen(text);
    return write(STDOUT_FILENO, text, length) == (ssize_t)length;
}

/* "  NAME VALUES   HELP"; further lines of the help bring their own indentation. */
static bool print_option(const struct option *option)
{
    char head[64];
    snprintf(head, sizeof head, "  %s%s%s", option->name, option->values == NULL ? "" : " ",
             option->values == NULL ? "" : option->values);
    char line[1024];
    snprintf(line, sizeof line, "%-24s %s\n", head, option->help);
    return print(line);
}

bool print_help(const struct form *const forms[], size_t count)
{
    bool good = true;
    for (size_t index = 0; index < count; index++)
        good = good && print(index == 0 ? "usage: " : "       ") && print("praxis-init ") &&
               print(forms[index]->name) && print(" ") && print(forms[index]->usage) && print("\n");
    good = good && print("       praxis-init --version | --help\n");
    for (size_t index = 0; index < count; index++) {
        good = good && print("\n") && print(forms[index]->name) && print(": ") && print(forms[index]->summary) &&
               print("\n\n");
        for (const struct option *option = forms[index]->options; option->name != NULL; option++)
            good = good && print_option(option);
        good = good && print("\nExit status: ") && print(forms[index]->statuses) && print("\n");
    }
    return good;
}
