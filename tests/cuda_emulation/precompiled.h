// What every unit includes, compiled once.
#pragma once

#include <cuda_runtime.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <limits>
#include <map>
#include <mutex>
#include <vector>
