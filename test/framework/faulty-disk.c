/* Preloaded into a process under test: makes fdatasync and pread of files below GAIA_FAULTY_FOLDER slow or fail,
 * and their pwrite short or fail. How often each went well is kept, so that a test can see what was never tried
 * again.
 *
 *   GAIA_FDATASYNC_US     every fdatasync takes so many microseconds more
 *   GAIA_SLOW_FOLDERS     a file of lines "microseconds folder", read anew each time: every fdatasync below one of those
 *                         folders takes so many microseconds more
 *   GAIA_FDATASYNC_FAILS  the so-manieth fdatasync (from 1) fails with EIO, and only that one
 *   GAIA_PWRITE_FAILS     the same for pwrite, with ENOSPC
 *   GAIA_PWRITE_SHORT     no pwrite takes more bytes at once than this
 *   GAIA_PREAD_US         every pread and preadv begins so many microseconds late
 *   GAIA_PREAD_FAILS      the so-manieth of them (from 1) then fails with EIO, and only that one
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long syncs;
static atomic_long writes;
static atomic_long reads;

static long setting(const char* name) {
  const char* text = getenv(name);
  return text == NULL ? 0 : atol(text);
}

#define PATH_BYTES 4096

static int is_below(const char* path, const char* folder) {
  return strncmp(path, folder, strlen(folder)) == 0;
}

static int path_of_ours(int fd, char path[PATH_BYTES]) {
  char link[64];
  const char* folder = getenv("GAIA_FAULTY_FOLDER");
  if (folder == NULL) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t bytes = readlink(link, path, PATH_BYTES - 1);
  if (bytes <= 0) return 0;
  path[bytes] = 0;
  return is_below(path, folder);
}

static int is_ours(int fd) {
  char path[PATH_BYTES];
  return path_of_ours(fd, path);
}

static long slowness_us(const char* path) {
  long us = setting("GAIA_FDATASYNC_US");
  const char* list = getenv("GAIA_SLOW_FOLDERS");
  FILE* lines = list == NULL || *list == 0 ? NULL : fopen(list, "re");
  if (lines == NULL) return us;
  long more;
  char folder[PATH_BYTES];
  while (fscanf(lines, "%ld %4095s", &more, folder) == 2)
    if (is_below(path, folder)) us += more;
  fclose(lines);
  return us;
}

int fdatasync(int fd) {
  static int (*next)(int);
  if (next == NULL) next = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  char path[PATH_BYTES];
  if (!path_of_ours(fd, path)) return next(fd);
  const long us = slowness_us(path);
  if (us > 0) usleep((useconds_t)us);
  if (atomic_fetch_add(&syncs, 1) + 1 == setting("GAIA_FDATASYNC_FAILS")) {
    errno = EIO;
    return -1;
  }
  return next(fd);
}

ssize_t pwrite(int fd, const void* bytes, size_t length, off_t offset) {
  static ssize_t (*next)(int, const void*, size_t, off_t);
  if (next == NULL) next = (ssize_t(*)(int, const void*, size_t, off_t))dlsym(RTLD_NEXT, "pwrite");
  if (!is_ours(fd)) return next(fd, bytes, length, offset);
  if (atomic_fetch_add(&writes, 1) + 1 == setting("GAIA_PWRITE_FAILS")) {
    errno = ENOSPC;
    return -1;
  }
  const long most = setting("GAIA_PWRITE_SHORT");
  return next(fd, bytes, most > 0 && length > (size_t)most ? (size_t)most : length, offset);
}

ssize_t pwrite64(int fd, const void* bytes, size_t length, off_t offset) {
  return pwrite(fd, bytes, length, offset);
}

static int read_fails(void) {
  if (setting("GAIA_PREAD_US") > 0) usleep((useconds_t)setting("GAIA_PREAD_US"));
  if (atomic_fetch_add(&reads, 1) + 1 != setting("GAIA_PREAD_FAILS")) return 0;
  errno = EIO;
  return 1;
}

ssize_t pread(int fd, void* bytes, size_t length, off_t offset) {
  static ssize_t (*next)(int, void*, size_t, off_t);
  if (next == NULL) next = (ssize_t(*)(int, void*, size_t, off_t))dlsym(RTLD_NEXT, "pread");
  return is_ours(fd) && read_fails() ? -1 : next(fd, bytes, length, offset);
}

ssize_t pread64(int fd, void* bytes, size_t length, off_t offset) {
  return pread(fd, bytes, length, offset);
}

ssize_t preadv(int fd, const struct iovec* parts, int count, off_t offset) {
  static ssize_t (*next)(int, const struct iovec*, int, off_t);
  if (next == NULL) next = (ssize_t(*)(int, const struct iovec*, int, off_t))dlsym(RTLD_NEXT, "preadv");
  return is_ours(fd) && read_fails() ? -1 : next(fd, parts, count, offset);
}

ssize_t preadv64(int fd, const struct iovec* parts, int count, off_t offset) {
  return preadv(fd, parts, count, offset);
}
