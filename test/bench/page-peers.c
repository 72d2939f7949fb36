// What the hashing of pages is measured against, as a small addon of the merkle bench: a call of BLAKE3's own
// C interface for each page, and what a page costs when it is only read (memcmp) or copied (memcpy). Whoever
// calls gives valid arguments.
#include <node_api.h>
#include <stdint.h>
#include <string.h>

#include "blake3.h"

enum { kPageBytes = 4096, kHashBytes = 32, kArguments = 4 };

typedef struct {
  uint8_t* memory;
  uint32_t* pages;
  uint32_t count;
  uint8_t* other;
} Call;

// (memory: ArrayBuffer, pages: Uint32Array, count: number, other: ArrayBuffer)
static Call read_call(napi_env env, napi_callback_info info) {
  Call call = {0};
  size_t argument_count = kArguments;
  napi_value arguments[kArguments];
  size_t length;
  napi_get_cb_info(env, info, &argument_count, arguments, NULL, NULL);
  napi_get_arraybuffer_info(env, arguments[0], (void**)&call.memory, &length);
  napi_get_typedarray_info(env, arguments[1], NULL, &length, (void**)&call.pages, NULL, NULL);
  napi_get_value_uint32(env, arguments[2], &call.count);
  napi_get_arraybuffer_info(env, arguments[3], (void**)&call.other, &length);
  return call;
}

static napi_value hash_each(napi_env env, napi_callback_info info) {
  const Call call = read_call(env, info);
  for (uint32_t i = 0; i < call.count; ++i) {
    blake3_hasher hasher;
    blake3_hasher_init(&hasher);
    blake3_hasher_update(&hasher, call.memory + (size_t)call.pages[i] * kPageBytes, kPageBytes);
    blake3_hasher_finalize(&hasher, call.other + (size_t)i * kHashBytes, kHashBytes);
  }
  return NULL;
}

// Pages of both memories that are equal.
static napi_value compare_each(napi_env env, napi_callback_info info) {
  const Call call = read_call(env, info);
  uint32_t equal = 0;
  for (uint32_t i = 0; i < call.count; ++i) {
    const size_t at = (size_t)call.pages[i] * kPageBytes;
    equal += memcmp(call.memory + at, call.other + at, kPageBytes) == 0;
  }
  napi_value result;
  napi_create_uint32(env, equal, &result);
  return result;
}

static napi_value copy_each(napi_env env, napi_callback_info info) {
  const Call call = read_call(env, info);
  for (uint32_t i = 0; i < call.count; ++i) {
    memcpy(call.other + (size_t)i * kPageBytes, call.memory + (size_t)call.pages[i] * kPageBytes, kPageBytes);
  }
  return NULL;
}

NAPI_MODULE_INIT() {
  const struct {
    const char* name;
    napi_callback function;
  } functions[] = {{"hashEach", hash_each}, {"compareEach", compare_each}, {"copyEach", copy_each}};
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; ++i) {
    napi_value function;
    napi_create_function(env, functions[i].name, NAPI_AUTO_LENGTH, functions[i].function, NULL, &function);
    napi_set_named_property(env, exports, functions[i].name, function);
  }
  return exports;
}
