/* Only the digest of a channel's secret is on our command line, which everybody can see who may read pods, or /proc. The
 * numbers are those of FIPS 180-4, 4.2.2 and 5.3.3.
 */
#include "digest.h"

#include <string.h>

static const uint32_t CONSTANTS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};
static const uint32_t BEGINNING[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static uint32_t turned(uint32_t value, int bits)
{
    return value >> bits | value << (32 - bits);
}

static uint32_t get_big(const uint8_t *where)
{
    return (uint32_t)where[0] << 24 | (uint32_t)where[1] << 16 | (uint32_t)where[2] << 8 | where[3];
}

static void put_big(uint8_t *where, uint32_t value)
{
    for (int index = 0; index < 4; index++)
        where[index] = (uint8_t)(value >> (24 - 8 * index));
}

void digest_secret(const uint8_t secret[SECRET_BYTES], uint8_t digest[DIGEST_BYTES])
{
    uint8_t block[64] = {[SECRET_BYTES] = 0x80};
    uint32_t words[64], state[8];
    memcpy(block, secret, SECRET_BYTES);
    put_big(block + 60, SECRET_BYTES * 8); /* its length in bits */
    for (int index = 0; index < 16; index++)
        words[index] = get_big(block + 4 * index);
    for (int index = 16; index < 64; index++) {
        uint32_t near = words[index - 2], far = words[index - 15];
        words[index] = words[index - 16] + words[index - 7] + (turned(far, 7) ^ turned(far, 18) ^ far >> 3) +
                       (turned(near, 17) ^ turned(near, 19) ^ near >> 10);
    }
    memcpy(state, BEGINNING, sizeof state);
    for (int index = 0; index < 64; index++) {
        uint32_t e = state[4], a = state[0];
        uint32_t chosen = (e & state[5]) ^ (~e & state[6]);
        uint32_t majority = (a & state[1]) ^ (a & state[2]) ^ (state[1] & state[2]);
        uint32_t first =
            state[7] + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + chosen + CONSTANTS[index] + words[index];
        uint32_t second = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + majority;
        memmove(state + 1, state, 7 * sizeof *state);
        state[4] += first;
        state[0] = first + second;
    }
    for (int index = 0; index < 8; index++)
        put_big(digest + 4 * index, BEGINNING[index] + state[index]);
}
