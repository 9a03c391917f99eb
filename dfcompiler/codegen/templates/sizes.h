// The sizes of a call: symbols from the extents of inputs, every shape checked against them.
#pragma once

#include "instance.h"

static int check_tensor(const Tensor &tensor, const TensorInfo &info) {
  if (tensor.dtype != info.dtype) {
    const bool known = tensor.dtype >= 0 && tensor.dtype <= 12;
    return fail(MODEL(BAD_DTYPE), "%s has dtype %s; expected %s", info.name,
                known ? dtypes[tensor.dtype].name : "unknown", dtypes[info.dtype].name);
  }
  if (tensor.rank != info.rank)
    return fail(MODEL(BAD_SHAPE), "%s has rank %d; expected %d", info.name, int(tensor.rank),
                int(info.rank));
  return MODEL(OK);
}

static int bind_symbol(int64_t *symbols, const char *where, int symbol, int64_t value) {
  const SymbolInfo &info = symbol_table[symbol];
  if (value < 1 || value > kMostExtent)
    return fail(MODEL(BAD_SYMBOL), "%s has %s = %lld; expected 1 to %lld", where, info.name,
                (long long)value, (long long)(info.maximum ? info.maximum : kMostExtent));
  if (info.maximum && value > info.maximum)
    return fail(MODEL(BAD_SYMBOL), "%s has %s = %lld; the model takes %lld at most", where,
                info.name, (long long)value, (long long)info.maximum);
  if (symbols[symbol] && symbols[symbol] != value)
    return fail(MODEL(BAD_SHAPE), "%s has %s = %lld; elsewhere it is %lld", where, info.name,
                (long long)value, (long long)symbols[symbol]);
  symbols[symbol] = value;
  return MODEL(OK);
}

static int bind_extents(int64_t *symbols, const Tensor &tensor, const TensorInfo &info) {
  for (int axis = 0; axis < info.rank; ++axis) {
    const int symbol = dim_table[info.first_dim + axis].symbol;
    if (symbol < 0) continue;
    if (int status = bind_symbol(symbols, info.name, symbol, tensor.shape[axis])) return status;
  }
  return MODEL(OK);
}

static int resolve_symbols(const Tensor *inputs, const int64_t *given, const Tensor *outputs,
                           int64_t *symbols) {
  for (int i = 0; i < kInputs; ++i) {
    if (int status = check_tensor(inputs[i], input_table[i])) return status;
    if (int status = bind_extents(symbols, inputs[i], input_table[i])) return status;
  }
  for (int i = 0; given && i < kSymbols; ++i) {
    if (!given[i]) continue;
    if (int status = bind_symbol(symbols, "the call", i, given[i])) return status;
  }
  for (int i = 0; outputs && i < kOutputs; ++i) {
    if (!outputs[i].rank || outputs[i].rank != output_table[i].rank) continue;
    for (int axis = 0; axis < outputs[i].rank; ++axis) {
      const int symbol = dim_table[output_table[i].first_dim + axis].symbol;
      if (symbol < 0 || symbols[symbol]) continue;
      const char *where = output_table[i].name;
      if (int status = bind_symbol(symbols, where, symbol, outputs[i].shape[axis])) return status;
    }
  }
  for (int i = 0; i < kSymbols; ++i)
    if (!symbols[i])
      return fail(MODEL(BAD_SYMBOL), "no input fixes the size %s; pass its value with the call",
                  symbol_table[i].name);
  return MODEL(OK);
}

static int evaluate_sizes(Model *model, const int64_t *symbols) {
  if (model->resolved && !std::memcmp(symbols, model->symbols, sizeof(int64_t) * kSymbols))
    return MODEL(OK);
  model->resolved = false;
  wide values[kValues + 1], total = 0;
  evaluate(symbols, values);
  for (int i = 0; i < kValues; ++i) {
    if (values[i] < 0 || values[i] > kMostBytes)
      return fail(MODEL(BAD_SHAPE), "these sizes make %s %s", value_texts[i],
                  values[i] < 0 ? "negative" : "larger than any memory");
    model->values[i] = int64_t(values[i]);
  }
  for (int i = 0; i < kSlots; ++i) {
    model->slots[i] = int64_t(total);
    total += (values[slot_values[i]] + kAlignment - 1) / kAlignment * kAlignment;
    if (total > kMostBytes)
      return fail(MODEL(NO_MEMORY), "the working memory for these sizes is larger than any memory");
  }
  model->needed_bytes = int64_t(total);
  std::memcpy(model->symbols, symbols, sizeof(int64_t) * kSymbols);
  model->resolved = true;
  return MODEL(OK);
}

static int check_extents(Model *model, const Tensor &tensor, const TensorInfo &info) {
  for (int axis = 0; axis < info.rank; ++axis) {
    const DimInfo &dim = dim_table[info.first_dim + axis];
    const int64_t expected = model->values[dim.value];
    if (tensor.shape[axis] == expected) continue;
    char number[32];
    std::snprintf(number, sizeof number, "%lld", (long long)expected);
    const bool plain = !std::strcmp(number, dim.text);
    return fail(MODEL(BAD_SHAPE), "axis %d of %s has %lld elements; expected %s%s%s", axis,
                info.name, (long long)tensor.shape[axis], number, plain ? "" : " = ",
                plain ? "" : dim.text);
  }
  return MODEL(OK);
}

static int64_t bytes_of(const Model *model, const TensorInfo &info) {
  wide bytes = dtypes[info.dtype].bytes;
  for (int axis = 0; axis < info.rank; ++axis) {
    bytes *= model->values[dim_table[info.first_dim + axis].value];
    if (bytes > kMostBytes) return -1;
  }
  return int64_t(bytes);
}

static int resolve(Model *model, const Tensor *inputs, int32_t n_inputs, const int64_t *given,
                   Tensor *outputs, int32_t n_outputs, bool read_outputs) {
  if ((kInputs && !inputs) || (kOutputs && !outputs))
    return fail(MODEL(BAD_ARGUMENT), "the array of %s is null",
                kInputs && !inputs ? "inputs" : "outputs");
  if (n_inputs != kInputs || n_outputs != kOutputs)
    return fail(MODEL(BAD_ARGUMENT), "found %d inputs and %d outputs; expected %d and %d",
                int(n_inputs), int(n_outputs), int(kInputs), int(kOutputs));
  int64_t symbols[kSymbols + 1] = {};
  if (int status = resolve_symbols(inputs, given, read_outputs ? outputs : nullptr, symbols))
    return status;
  if (int status = evaluate_sizes(model, symbols)) return status;
  for (int i = 0; i < kInputs; ++i)
    if (int status = check_extents(model, inputs[i], input_table[i])) return status;
  return MODEL(OK);
}

static int describe_output(Model *model, int i, Tensor *output) {
  const TensorInfo &info = output_table[i];
  output->bytes = bytes_of(model, info);
  if (output->bytes < 0)
    return fail(MODEL(NO_MEMORY), "%s is larger than any memory", info.name);
  output->dtype = info.dtype;
  output->rank = info.rank;
  for (int axis = 0; axis < info.rank; ++axis)
    output->shape[axis] = model->values[dim_table[info.first_dim + axis].value];
  return MODEL(OK);
}
