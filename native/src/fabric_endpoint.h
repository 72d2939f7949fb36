// One reliable-datagram endpoint of libfabric: puts into peers' memory, doorbells, completions. It retries
// nothing and decides nothing: "try again" is handed to the caller.
//
// Guarantees: puts to one peer are written in the order in which they were accepted, as long as the
// connection beneath lasts (FI_ORDER_WAW of any size; a provider that lacks it is refused). A completion says
// that the bytes were taken, not that they have arrived.
//
// THREAD: one thread only, the one that opened it.
#ifndef GAIA_FABRIC_ENDPOINT_H
#define GAIA_FABRIC_ENDPOINT_H

#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "fabric_memory.h"

namespace gaia {

struct FabricCompletion {
  uint32_t token;
  // 0, or a positive errno or error of libfabric.
  int error;
};

class FabricEndpoint {
 public:
  // `provider` as fi_getinfo(3) has it, "tcp;ofi_rxm"; `node` the local address to use.
  FabricEndpoint(const std::string& provider, const std::string& node);
  FabricEndpoint(const FabricEndpoint&) = delete;
  FabricEndpoint& operator=(const FabricEndpoint&) = delete;
  ~FabricEndpoint();

  // What peers need to reach this endpoint.
  std::vector<uint8_t> name() const;
  size_t put_bytes_max() const { return put_bytes_max_; }
  // Readable when there may be something to poll; only after `may_wait` said so.
  int wait_fd() const { return wait_fd_; }
  bool may_wait();

  uint32_t add_memory(size_t bytes);
  // Null when there is no such memory (any more).
  const FabricMemory* memory(uint32_t memory) const;
  // No later put of a peer lands there. Puts that read from it are finished first.
  void remove_memory(uint32_t memory);

  uint32_t add_peer(const uint8_t* name, size_t bytes);
  void remove_peer(uint32_t peer);
  // Ends the TCP connections beneath, where there are any: the provider would use them again for this peer's
  // address, though nothing has come through, and TCP tries ever more rarely. Puts under way fail.
  void disconnect_peer(uint32_t peer);

  // A peer's memory, as its FabricMemory tells it. Ends with the peer, or with remove_remote.
  uint32_t add_remote(uint32_t peer, uint64_t key, uint64_t base);
  void remove_remote(uint32_t remote) { remotes_.erase(remote); }

  // 0: accepted; FI_EAGAIN: not now; else an error of libfabric (positive). The local range must lie in
  // `memory`, and stay as it is until the put is finished.
  int put(uint32_t remote, uint64_t remote_offset, uint32_t memory, size_t offset, size_t bytes,
          uint32_t token);
  // Wakes a peer that waits: an empty message. Returns as `put` does.
  int ring(uint32_t peer);

  // Moves what has to be moved, and gives finished puts, `most` of them at most.
  size_t poll(FabricCompletion* completions, size_t most);

 private:
  struct Operation {
    fi_context context;  // First, so that the provider's pointer is the operation's.
    uint32_t token;
    // Whom a put is for.
    uint32_t peer;
    bool doorbell;
    std::shared_ptr<FabricMemory> memory;
  };

  struct Remote {
    uint32_t peer;
    fi_addr_t to;
    uint64_t key;
    uint64_t base;
  };

  void open_domain(const std::string& provider, const std::string& node);
  void open_endpoint();
  void post_doorbell(Operation* operation);
  void close_all();
  bool finish(Operation* operation, int error, FabricCompletion* completion);
  Operation* take_operation();

  fi_info* info_ = nullptr;
  fid_fabric* fabric_ = nullptr;
  fid_domain* domain_ = nullptr;
  fid_av* av_ = nullptr;
  fid_cq* cq_ = nullptr;
  fid_ep* endpoint_ = nullptr;
  int wait_fd_ = -1;
  size_t put_bytes_max_ = 0;
  uint32_t last_number_ = 0;
  std::unordered_map<uint32_t, std::shared_ptr<FabricMemory>> memories_;
  std::unordered_map<uint32_t, fi_addr_t> peers_;
  std::unordered_map<uint32_t, Remote> remotes_;
  std::shared_ptr<FabricMemory> doorbell_memory_;
  // LIFETIME: never moved; the provider holds pointers into it.
  std::unique_ptr<Operation[]> operations_;
  std::vector<Operation*> free_;
  // Receives that the provider did not take: the next poll offers them again.
  std::vector<Operation*> unposted_;
  // Puts under way, by peer; those of a peer that was removed count until they are finished.
  std::unordered_map<uint32_t, size_t> under_way_;
};

}  // namespace gaia

#endif
