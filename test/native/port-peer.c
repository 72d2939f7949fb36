/*
 * QEMU's end of the port socket, for tests: connects to the path given first, does what the further
 * arguments say, one after the other, and exits.
 *
 *   send BYTES FDS   one message of BYTES bytes (0, 1, 2 ...) with FDS memfds, the i-th of which reads "i"
 *   eventfd KIND     one message of one byte with an eventfd: plain (blocking) or full (non-blocking)
 *   receive          one message, to standard output as hexadecimal digits
 *   await            waits until something is there to receive, and leaves it there
 *   hold             waits until standard input ends
 */
#define _GNU_SOURCE
#include <err.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FDS_MAX = 253, BYTES_MAX = 1 << 17 };

static void send_message(int port, size_t bytes, const int* fds, size_t count) {
  static uint8_t content[BYTES_MAX];
  for (size_t i = 0; i < bytes; ++i) content[i] = (uint8_t)i;
  union {
    char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    struct cmsghdr align;
  } control;
  struct iovec part = {content, bytes};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (count > 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  if (sendmsg(port, &message, 0) != (ssize_t)bytes) err(1, "sendmsg");
  for (size_t i = 0; i < count; ++i) close(fds[i]);
}

static void send_memfds(int port, size_t bytes, size_t count) {
  int fds[FDS_MAX];
  if (bytes > BYTES_MAX || count > FDS_MAX) errx(1, "too much to send");
  for (size_t i = 0; i < count; ++i) {
    char text[24];
    const int length = snprintf(text, sizeof text, "%zu", i);
    fds[i] = memfd_create("gaia-peer", 0);
    if (fds[i] < 0 || write(fds[i], text, (size_t)length) != length) err(1, "memfd");
  }
  send_message(port, bytes, fds, count);
}

static void send_eventfd(int port, const char* kind) {
  const int is_full = strcmp(kind, "full") == 0;
  const int fd = eventfd(0, is_full ? EFD_NONBLOCK : 0);
  const uint64_t rings = UINT64_MAX - 1;
  if (fd < 0 || (is_full && write(fd, &rings, sizeof rings) != sizeof rings)) err(1, "eventfd");
  send_message(port, 1, &fd, 1);
}

static void receive(int port) {
  static uint8_t content[BYTES_MAX];
  const ssize_t bytes = recv(port, content, sizeof content, 0);
  if (bytes < 0) err(1, "recv");
  for (ssize_t i = 0; i < bytes; ++i) printf("%02x", content[i]);
  printf("\n");
}

int main(int argc, char** argv) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (argc < 2 || strlen(argv[1]) >= sizeof address.sun_path) errx(2, "usage: port-peer PATH ACTION...");
  strcpy(address.sun_path, argv[1]);
  const int port = socket(AF_UNIX, SOCK_SEQPACKET, 0);
  if (port < 0 || connect(port, (const struct sockaddr*)&address, sizeof address) != 0) err(1, "connect");
  for (int i = 2; i < argc; ++i) {
    if (strcmp(argv[i], "send") == 0 && i + 2 < argc) {
      send_memfds(port, strtoul(argv[i + 1], NULL, 10), strtoul(argv[i + 2], NULL, 10));
      i += 2;
    } else if (strcmp(argv[i], "eventfd") == 0 && i + 1 < argc) {
      send_eventfd(port, argv[i + 1]);
      i += 1;
    } else if (strcmp(argv[i], "receive") == 0) {
      receive(port);
    } else if (strcmp(argv[i], "await") == 0) {
      struct pollfd entry = {port, POLLIN, 0};
      if (poll(&entry, 1, -1) != 1) err(1, "poll");
    } else if (strcmp(argv[i], "hold") == 0) {
      while (getchar() != EOF) continue;
    } else {
      errx(2, "unknown action: %s", argv[i]);
    }
  }
  return 0;
}
