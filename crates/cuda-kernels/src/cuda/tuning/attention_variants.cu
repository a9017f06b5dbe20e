// Tiles of attention that were or could be chosen, to be timed on a GPU by `examples/attention_speed.rs`, which has the
// same list. Built with the feature `tuning` only.
#include "attention.cuh"

ATTENTION(bf16, 64, 64, 1, 4, 64, 1)
ATTENTION(bf16, 64, 64, 1, 4, 64, 2)
ATTENTION(bf16, 64, 64, 1, 4, 128, 1)
ATTENTION(bf16, 64, 64, 1, 8, 64, 1)
ATTENTION(bf16, 64, 64, 2, 4, 64, 1)
ATTENTION(bf16, 64, 64, 2, 4, 64, 2)
ATTENTION(bf16, 64, 64, 2, 4, 128, 1)

ATTENTION(bf16, 80, 80, 1, 2, 64, 1)
ATTENTION(bf16, 80, 80, 1, 2, 64, 2)
ATTENTION(bf16, 80, 80, 1, 4, 32, 2)
ATTENTION(bf16, 80, 80, 1, 4, 64, 1)
ATTENTION(bf16, 80, 80, 1, 4, 64, 2)
ATTENTION(bf16, 80, 80, 1, 4, 128, 1)
ATTENTION(bf16, 80, 80, 1, 8, 64, 1)
ATTENTION(bf16, 80, 80, 2, 2, 64, 1)
ATTENTION(bf16, 80, 80, 2, 4, 32, 2)
ATTENTION(bf16, 80, 80, 2, 4, 64, 1)
ATTENTION(bf16, 80, 80, 2, 4, 64, 2)

ATTENTION(bf16, 128, 128, 1, 4, 32, 2)
ATTENTION(bf16, 128, 128, 1, 4, 64, 1)
ATTENTION(bf16, 128, 128, 1, 4, 64, 2)
ATTENTION(bf16, 128, 128, 1, 8, 64, 1)
ATTENTION(bf16, 128, 128, 1, 8, 64, 2)
ATTENTION(bf16, 128, 128, 2, 4, 32, 1)
ATTENTION(bf16, 128, 128, 2, 4, 32, 2)
ATTENTION(bf16, 128, 128, 2, 4, 64, 1)
ATTENTION(bf16, 128, 128, 2, 4, 64, 2)
ATTENTION(bf16, 128, 128, 2, 8, 64, 1)
