// In place of the toolkit's header of the same name: its types, our device functions.
#pragma once

// Before the toolkit defines names that the C++ library uses for attributes.
#include <memory>

#include_next <cuda_runtime.h>

#include "cuda_emulation.h"
