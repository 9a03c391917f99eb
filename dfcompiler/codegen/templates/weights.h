// The weights: mapped from their file, checked, and taken to where the device reads them.
#pragma once

#include "device.h"

struct Weights {
  char *base;
  int64_t bytes;
  std::atomic<int> users;
};

static const char *beside_library(char *path, size_t size) {
  Dl_info info;
  if (!dladdr((void *)&beside_library, &info) || !info.dli_fname) return nullptr;
  const char *slash = std::strrchr(info.dli_fname, '/');
  const int folder = slash ? int(slash - info.dli_fname) : 1;
  const int length =
      std::snprintf(path, size, "%.*s/weights.bin", folder, slash ? info.dli_fname : ".");
  return length > 0 && size_t(length) < size ? path : nullptr;
}

static char *map_weights(const char *given) {
  char beside[4096];
  const char *path = given ? given : beside_library(beside, sizeof beside);
  if (!path) {
    fail(MODEL(BAD_WEIGHTS), "the library's folder is not known; pass the path of weights.bin");
    return nullptr;
  }
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    fail(MODEL(BAD_WEIGHTS), "weights file %s cannot be opened: %s", path, std::strerror(errno));
    return nullptr;
  }
  struct stat facts;
  char *base = nullptr;
  if (fstat(file, &facts) || facts.st_size != kWeightBytes) {
    fail(MODEL(BAD_WEIGHTS), "weights file %s has %lld bytes; expected %lld", path,
         (long long)facts.st_size, (long long)kWeightBytes);
  } else {
    void *mapped = mmap(nullptr, size_t(kWeightBytes), PROT_READ, MAP_SHARED, file, 0);
    if (mapped == MAP_FAILED) {
      fail(MODEL(BAD_WEIGHTS), "weights file %s cannot be mapped: %s", path, std::strerror(errno));
    } else if (std::memcmp(mapped, kWeightHeader, sizeof kWeightHeader - 1)) {
      fail(MODEL(BAD_WEIGHTS), "weights file %s belongs to another model or version", path);
      munmap(mapped, size_t(kWeightBytes));
    } else {
#ifdef MADV_HUGEPAGE
      madvise(mapped, size_t(kWeightBytes), MADV_HUGEPAGE);  // read in large pages if it can be
#endif
      base = (char *)mapped;
    }
  }
  close(file);
  return base;
}

static Weights *open_weights(const char *path) {
  char *mapped = map_weights(path);
  char *base = mapped ? take_weights(mapped, kWeightBytes) : nullptr;
  if (!base) return nullptr;
  Weights *weights = new (std::nothrow) Weights{base, kWeightBytes, {0}};
  if (!weights) {
    drop_weights(base, kWeightBytes);
    fail(MODEL(NO_MEMORY), "out of memory");
  }
  return weights;
}

static void release(Weights *weights) {
  if (--weights->users) return;
  drop_weights(weights->base, weights->bytes);
  delete weights;
}
