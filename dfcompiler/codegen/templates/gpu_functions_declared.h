
/* What only a model on a GPU has. Tensors may lie on the host or on the GPU; weights are uploaded
 * once for all clones. */

/* The status behind the calling thread's last failure, also of functions that return pointers. */
int @NAME@_last_status(void);

/* Keeps calls as CUDA graphs from their second time on, for equal sizes and pointers; 0 ends it. */
int @NAME@_set_graphs(@NAME@_model *model, int32_t wanted);

/* Later runs go to this CUDA stream; NULL: one of the instance's own. Not cudaStreamPerThread, which
 * is another stream in each thread. A run on a given stream whose tensors all lie on the GPU is not
 * waited for: its failures are those of @NAME@_synchronize. */
int @NAME@_set_stream(@NAME@_model *model, void *stream);

/* The CUDA stream that runs go to. */
void *@NAME@_stream(@NAME@_model *model);

/* Waits for the runs of this instance; a failure is theirs. */
int @NAME@_synchronize(@NAME@_model *model);

/* Memory of the GPU that the model runs on; NULL on failure. */
void *@NAME@_device_allocate(int64_t bytes);
void @NAME@_device_free(void *memory);

/* Copies between any two places of host and GPU; returns when it is done. */
int @NAME@_device_copy(void *to, const void *from, int64_t bytes);
