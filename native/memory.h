/* Memory that stays until the end. */
#ifndef MEMORY_H
#define MEMORY_H

#include <stddef.h>

/* As malloc(), for what is never given back. */
void *keep(size_t size);

/* A copy of the bytes, with a NUL behind them. */
char *keep_text(const void *bytes, size_t length);

#endif
