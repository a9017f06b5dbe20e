// Instances of `attention.cuh` for f16. `attention/tile.rs` has the same list, and chooses.
#include "attention.cuh"

ATTENTION(f16, 32, 32, 1, 4, 64, 2)
ATTENTION(f16, 64, 64, 2, 4, 64, 2)
ATTENTION(f16, 64, 64, 1, 4, 64, 2)
ATTENTION(f16, 80, 80, 2, 4, 64, 2)
ATTENTION(f16, 80, 80, 1, 4, 64, 2)
ATTENTION(f16, 96, 96, 2, 4, 64, 2)
ATTENTION(f16, 96, 96, 1, 4, 64, 2)
ATTENTION(f16, 128, 128, 2, 4, 64, 2)
ATTENTION(f16, 128, 128, 1, 4, 64, 2)
ATTENTION(f16, 160, 160, 1, 4, 32, 2)
ATTENTION(f16, 256, 256, 1, 4, 32, 1)
ATTENTION(f16, 512, 256, 1, 4, 32, 1)
ATTENTION(f16, 512, 256, 1, 2, 32, 1)
