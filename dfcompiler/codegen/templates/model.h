/* The compiled model @NAME@: plain C, usable from C99 and C++.
 *
@SIGNATURE@
 *
 * Functions that return int return @NAME@_OK or another @NAME@_status; @NAME@_last_error() is the
 * sentence behind the calling thread's last failure. Tensors are row-major. One instance serves one
 * thread at a time; @NAME@_clone gives another thread its own over the same weights.
 */
#ifndef DFC_@NAME@_H
#define DFC_@NAME@_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define @NAME@_MAX_RANK @MAX_RANK@
#define @NAME@_INPUTS @INPUTS@
#define @NAME@_OUTPUTS @OUTPUTS@
#define @NAME@_SYMBOLS @SYMBOLS@

enum @NAME@_status {
  @NAME@_OK = 0,
  @NAME@_BAD_ARGUMENT = 1,  /* a null pointer, a wrong count, overlapping or too little memory */
  @NAME@_BAD_DTYPE = 2,
  @NAME@_BAD_SHAPE = 3,     /* a wrong rank, extents that contradict the model or each other */
  @NAME@_BAD_SYMBOL = 4,    /* a size that nothing fixes, or that is over its maximum */
  @NAME@_BAD_VALUE = 5,     /* an index in an input is out of range */
  @NAME@_NO_MEMORY = 6,
  @NAME@_BAD_WEIGHTS = 7,   /* the weights file is missing, truncated or of another model */
  @NAME@_BUSY = 8,          /* another thread is running this instance */
  @NAME@_INTERNAL = 9,
  @NAME@_DEVICE = 10        /* no GPU or driver for this model, or the GPU failed */
};

enum @NAME@_dtype {
  @NAME@_F64 = 0, @NAME@_F32 = 1, @NAME@_F16 = 2, @NAME@_BF16 = 3,
  @NAME@_I64 = 4, @NAME@_I32 = 5, @NAME@_I16 = 6, @NAME@_I8 = 7,
  @NAME@_U64 = 8, @NAME@_U32 = 9, @NAME@_U16 = 10, @NAME@_U8 = 11, @NAME@_BOOL = 12
};

@INDEX_ENUMS@
typedef struct @NAME@_tensor {
  void *data;
  int64_t bytes;  /* size of the memory behind data */
  int32_t dtype;  /* a @NAME@_dtype */
  int32_t rank;
  int64_t shape[@NAME@_MAX_RANK];
} @NAME@_tensor;

typedef struct @NAME@_model @NAME@_model;

/* @WEIGHTS@; NULL stands for weights.bin beside this library. Returns NULL on failure. */
@NAME@_model *@NAME@_create(const char *weights_path);

/* Another instance over the same weights; its persistent state starts afresh. */
@NAME@_model *@NAME@_clone(@NAME@_model *model);

/* Checks the inputs and writes dtype, rank, shape and bytes of every output for them; data of
 * the outputs is not looked at. symbols: NULL, or @NAME@_SYMBOLS values, 0 where an input fixes it. */
int @NAME@_output_shapes(@NAME@_model *model, const @NAME@_tensor *inputs, int32_t n_inputs,
                         const int64_t *symbols, @NAME@_tensor *outputs, int32_t n_outputs);

/* Runs the model. Outputs need data and bytes; their dtype, rank and shape are written. A symbol
 * that neither an input nor `symbols` fixes is read from the extents of outputs with a rank > 0. */
int @NAME@_run(@NAME@_model *model, const @NAME@_tensor *inputs, int32_t n_inputs,
               const int64_t *symbols, @NAME@_tensor *outputs, int32_t n_outputs);

/* Sets the persistent state to its initial value. */
int @NAME@_reset(@NAME@_model *model);

/* Threads of later runs; 0 leaves the choice to OpenMP. */
int @NAME@_set_threads(@NAME@_model *model, int32_t threads);

/* Bytes of working memory that this instance holds now. */
int64_t @NAME@_arena_bytes(const @NAME@_model *model);

const char *@NAME@_last_error(void);

void @NAME@_destroy(@NAME@_model *model);
@DEVICE_FUNCTIONS@
#ifdef __cplusplus
}
#endif
#endif
