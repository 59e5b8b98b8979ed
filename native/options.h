/* A form of praxis-init as a value: what it is called, its options, and what it does. The command line is read, and
 * explained (--help), from these tables; each option stands in one of them and nowhere else.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

struct option {
    const char *name;   /* NULL: the table ends */
    const char *values; /* what the help calls them; NULL: it has none */
    int count;          /* of values */
    /* Puts `values` where they belong; false if they are not what the option takes. */
    bool (*take)(void *where, char **values);
    size_t offset; /* of that place, in the form's own structure of options */
    const char *help;
};

struct form {
    const char *name;
    const char *usage; /* of what follows the name */
    const char *summary;
    const struct option *options;
    const char *statuses;
    int (*run)(char **arguments); /* what follows the name, NULL at its end; returns the status to exit with */
};

/* Takes the options that stand first into the structure `into`. Returns what follows them ("--" included), or NULL when
 * one was wrong, which has been said then. */
char **take_options(const struct option *options, void *into, char **arguments);

/* Explains the forms on standard output; false if that could not be written. */
bool print_help(const struct form *const forms[], size_t count);

/* What options take: true into a bool; a text that is not empty; decimal seconds as nanoseconds (`positive`: not 0);
 * the number of a process. `where` is a bool, a const char *, an int64_t, a pid_t. */
bool take_flag(void *where, char **values);
bool take_text(void *where, char **values);
bool take_seconds(void *where, char **values);
bool take_positive_seconds(void *where, char **values);
bool take_pid(void *where, char **values);

/* The number up to `most` (10 or more) that a text begins with, in digits.
 * Returns what follows it; NULL if there is none. */
const char *parse_number(const char *text, unsigned long long most, unsigned long long *number);

/* Whether the text is such a number and nothing else. */
bool is_number(const char *text, unsigned long long most, unsigned long long *number);

#endif
