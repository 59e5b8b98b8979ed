/* SHA-256 (FIPS 180-4) of a secret of fixed length, which is one block. */
#ifndef DIGEST_H
#define DIGEST_H

#include <stdint.h>

enum {
    SECRET_BYTES = 32,
    DIGEST_BYTES = 32,
};

void digest_secret(const uint8_t secret[SECRET_BYTES], uint8_t digest[DIGEST_BYTES]);

#endif
