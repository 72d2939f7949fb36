/*
 * The memory and the messages that QEMU's gaia port, the native addon and the
 * TypeScript agent share. QEMU owns the memory and passes it to its agent.
 *
 * SPDX-License-Identifier: BSD-2-Clause
 *
 * The twin in TypeScript is vmm/io/qemu/layout.ts; a test holds them equal.
 *
 * One memfd, the port area, made by QEMU and passed with GAIA_MSG_HELLO:
 *
 *   0        4096          ring_offset[0..2]     bitmap_offset   apply_offset   state_offset
 *   +--------+-------------+---------------------+---------------+--------------+-----------+
 *   | header | block table | ingress deliver hold | dirty bitmap  | apply bitmap | state     |
 *   +--------+-------------+---------------------+---------------+--------------+-----------+
 *
 * A ring has one producer and one consumer. head and tail count bytes, run
 * freely and wrap at 2^32; capacity is a power of two below 2^31. An entry is
 * an 8-byte header and its payload, padded to 8 bytes, and never wraps: where
 * the rest of the ring is too short, a GAIA_ENTRY_PAD entry fills it.
 *
 *   ring:   | magic capacity | head (line 1) | tail (line 2) | data[capacity] |
 *   entry:  | u32 payload bytes | u32 kind | payload ... | 0..7 bytes of padding |
 *
 * Messages travel on a SOCK_SEQPACKET socket, one struct gaia_message each.
 * The agent asks, QEMU answers each request once, in order, with its sequence
 * number; only GAIA_MSG_HELLO comes unasked.
 */
#ifndef GAIA_LAYOUT_H
#define GAIA_LAYOUT_H

#include <stdint.h>

#define GAIA_MAGIC 0x41494147u /* "GAIA" in little-endian order */
#define GAIA_VERSION 4u

#define GAIA_PAGE_BYTES 4096u
#define GAIA_BLOCKS_MAX 64u
#define GAIA_BLOCK_NAME_BYTES 96u
#define GAIA_RING_HEADER_BYTES 192u
#define GAIA_ENTRY_HEADER_BYTES 8u
/* Largest frame: 64 KiB of segmented payload, Ethernet and virtio-net headers. */
#define GAIA_FRAME_BYTES_MAX 69632u
#define GAIA_TEXT_BYTES 192u
/* Most bytes of one serial entry, and of what waits for the guest's UART. */
#define GAIA_SERIAL_BYTES_MAX 4096u

enum gaia_ring_index {
    GAIA_RING_INGRESS = 0, /* QEMU to agent: frames read from the tap */
    GAIA_RING_DELIVER = 1, /* agent to QEMU: agreed frames and other inputs for the guest */
    GAIA_RING_HOLD = 2,    /* QEMU to agent and back: what the guest sent */
    GAIA_RING_COUNT = 3,
};

/* The low 16 bits of an entry's kind. */
enum gaia_entry_kind {
    GAIA_ENTRY_PAD = 0,
    GAIA_ENTRY_FRAME = 1,  /* bits 16..31: how many bytes of virtio-net header it begins with */
    GAIA_ENTRY_POWER = 2,  /* deliver: the power button is pressed; no payload */
    GAIA_ENTRY_RESET = 3,  /* deliver: the machine is reset; no payload */
    GAIA_ENTRY_SERIAL = 4, /* bytes to or from the serial line that the port holds */
    GAIA_ENTRY_LINK = 5,   /* deliver: one byte, 0 the cable is out, 1 it is in */
};
#define GAIA_KIND_MASK 0xffffu
#define GAIA_KIND_HEADER_SHIFT 16u

enum gaia_message_type {
    GAIA_MSG_HELLO = 1,      /* a0 area bytes, a1 blocks, a2 QEMU pid; fds: area, doorbell, one per block */
    GAIA_MSG_WELCOME = 2,    /* a0 GAIA_VERSION: the agent claims the guest; dirty logging starts */
    GAIA_MSG_RUN = 3,        /* a0 virtual ns to stop at (0: run on), a1 deliver head, a2 round, a3 flags,
                                a4 ns of real time it may last (0: any), a5 ns that count as idle (0: QEMU's) */
    GAIA_MSG_PAUSE = 4,      /* stop as vm_stop does, all device work done; answers as RUN does */
    GAIA_MSG_COLLECT = 5,    /* dirty bitmap into the area and cleared; answer: a0 dirty pages */
    GAIA_MSG_SAVE = 6,       /* device state into the area; answer: a0 bytes, a1 CRC32C */
    GAIA_MSG_LOAD = 7,       /* a0 bytes, a1 CRC32C of the device state in the area, a2 flags */
    GAIA_MSG_INVALIDATE = 8, /* drop translations of the pages set in the apply bitmap; answer: a0 pages */
    GAIA_MSG_RELEASE = 9,    /* a0 hold position up to which output leaves; answer: a0 tail, a1 frames sent,
                                a2 1 when the lease has ended */
    GAIA_MSG_DROP = 10,      /* a0 hold position up to which output is forgotten; answer: a0 tail */
    GAIA_MSG_INGRESS = 11,   /* a0: 0 discard what the tap reads, 1 divert it to the ingress ring */
    GAIA_MSG_QUIT = 12,      /* end QEMU in good order */
    GAIA_MSG_STOP = 13,      /* end the running round now, lightly; answers as RUN does */
    GAIA_MSG_RESET = 14,     /* reset the standing machine */
    GAIA_MSG_DELIVER = 15,   /* a0 deliver head: more inputs for the running round, at once; answer: a0 tail */
};

/* a3 of GAIA_MSG_RUN */
#define GAIA_RUN_RELEASE 1u    /* output of this round may leave as the guest sends it */
#define GAIA_RUN_UNTIL_IDLE 2u /* end when all input is taken and the guest has gone quiet */

/* a2 of GAIA_MSG_LOAD */
#define GAIA_LOAD_KEEP_CODE 1u /* translations stay: the agent names every page it wrote with INVALIDATE */

/* Answer to GAIA_MSG_RUN and GAIA_MSG_PAUSE: a0 virtual ns, a1 deliver tail,
 * a2 hold head, a3 reason, a4 1 when every vCPU is halted, a5 the round. */
enum gaia_stop_reason {
    GAIA_STOP_DEADLINE = 1,  /* the virtual instant was reached, or the real time is over */
    GAIA_STOP_PAUSE = 2,     /* the agent asked for it */
    GAIA_STOP_SHUTDOWN = 3,  /* the guest powered itself off: RESET or QUIT comes next */
    GAIA_STOP_RESET = 4,     /* the guest reset itself: RESET comes next */
    GAIA_STOP_PANIC = 5,     /* the guest or its emulation cannot go on */
    GAIA_STOP_HOLD_FULL = 6, /* no room left to hold output: RELEASE or DROP, then RUN goes on */
    GAIA_STOP_IDLE = 7,      /* all input is taken and the guest has gone quiet */
    GAIA_STOP_IO_ERROR = 8,  /* a disk of the host failed; RUN tries again */
    GAIA_STOP_FOREIGN = 9,   /* somebody other than the agent stopped the machine */
};

enum gaia_status {
    GAIA_OK = 0,
    GAIA_REFUSED = 1,  /* the request makes no sense now or is malformed; nothing was done */
    GAIA_UNUSABLE = 2, /* the guest's state is lost: it stays stopped for good */
};

struct gaia_message {
    uint32_t magic;
    uint32_t type;
    uint32_t sequence;
    uint32_t status;
    uint64_t a[6];
    char text[GAIA_TEXT_BYTES]; /* NUL-terminated, for people */
};

struct gaia_ring {
    uint32_t magic;
    uint32_t capacity; /* bytes, a power of two */
    uint32_t reserved0[14];
    uint32_t head; /* written by the producer only */
    uint32_t reserved1[15];
    uint32_t tail; /* written by the consumer only */
    uint32_t quiet; /* ingress, by the agent: not 0 while what comes would change nothing that it does */
    uint32_t reserved2[14];
};

struct gaia_block {
    char name[GAIA_BLOCK_NAME_BYTES]; /* QEMU's idstr */
    uint64_t bytes;                   /* used length */
    uint64_t bytes_max;               /* length the bitmaps cover */
    uint64_t bitmap_bit;              /* its first bit in the bitmaps, a multiple of 64 */
    uint64_t fd_offset;
};

struct gaia_area {
    uint32_t magic;
    uint32_t version;
    uint32_t block_count;
    uint32_t reserved;
    uint64_t area_bytes;
    uint64_t ring_offset[GAIA_RING_COUNT];
    uint64_t bitmap_offset; /* dirty bitmap, one bit a page, 64-bit words */
    uint64_t bitmap_bytes;
    uint64_t apply_offset; /* bitmap of the pages the agent wrote, same size */
    uint64_t state_offset; /* device state */
    uint64_t state_bytes;
    uint64_t ingress_dropped; /* frames dropped as the ingress ring was full */
    uint64_t hold_dropped;    /* output dropped as the hold ring was full; never, unless the NIC's queue grew */
    uint64_t serial_dropped;  /* serial input that found no room */
    uint64_t lease_end_ns;    /* written by the agent: output leaves only before this CLOCK_MONOTONIC instant */
};

#define GAIA_BLOCK_TABLE_OFFSET 4096u

#ifdef __cplusplus
#define GAIA_STATIC_ASSERT static_assert
#else
#define GAIA_STATIC_ASSERT _Static_assert
#endif
GAIA_STATIC_ASSERT(sizeof(struct gaia_message) == 256, "a message is 256 bytes");
GAIA_STATIC_ASSERT(sizeof(struct gaia_ring) == GAIA_RING_HEADER_BYTES, "a ring header is three cache lines");
GAIA_STATIC_ASSERT(sizeof(struct gaia_block) == 128, "a block entry is 128 bytes");
GAIA_STATIC_ASSERT(sizeof(struct gaia_area) <= GAIA_BLOCK_TABLE_OFFSET, "the header fits its page");

#endif
