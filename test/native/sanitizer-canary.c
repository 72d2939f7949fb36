/* A library that leaks as it is loaded, or writes past the end of its memory: do the sanitizers notice? */
#include <stdlib.h>

static char* volatile sink;

__attribute__((constructor)) static void misbehave(void) {
  const char* const kind = getenv("GAIA_CANARY");
  sink = malloc(100);
  if (kind != NULL && kind[0] == 'o') sink[100] = 1;
  sink = NULL;
}
