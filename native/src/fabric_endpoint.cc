#include "fabric_endpoint.h"

#include <dirent.h>
#include <netinet/in.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>

#include "fabric_error.h"
#include "fabric_library.h"

namespace gaia {

namespace {

constexpr size_t kPutsMax = 256;
// A peer whose connection takes nothing must leave room for the others.
constexpr size_t kPutsPerPeerMax = 64;
// Less than the blocks of state that follow data would be no order at all.
constexpr size_t kOrderedBytesLeast = 4096;
// An empty message needs no room, but a receive needs a buffer.
constexpr size_t kDoorbellsPosted = 32;
constexpr size_t kDoorbellBytes = 64;
constexpr size_t kBatch = 32;

void check(int status, const char* call, const std::string& what) {
  if (status != 0) throw FabricError(status < 0 ? -status : status, call, what);
}

// This process's connections between the two endpoints, in either direction. On one machine all peers have
// one address, and no connection ever stands still for its link.
void shut_down_connections(const sockaddr_in& own, const sockaddr_in& peer) {
  if (own.sin_addr.s_addr == peer.sin_addr.s_addr) return;
  DIR* const descriptors = opendir("/proc/self/fd");
  if (descriptors == nullptr) return;
  while (const dirent* const entry = readdir(descriptors)) {
    const int fd = std::atoi(entry->d_name);
    sockaddr_in local = {}, remote = {};
    socklen_t local_bytes = sizeof local, remote_bytes = sizeof remote;
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&remote), &remote_bytes) != 0 ||
        getsockname(fd, reinterpret_cast<sockaddr*>(&local), &local_bytes) != 0 ||
        remote.sin_family != AF_INET || remote.sin_addr.s_addr != peer.sin_addr.s_addr) {
      continue;
    }
    if (remote.sin_port == peer.sin_port || local.sin_port == own.sin_port) shutdown(fd, SHUT_RDWR);
  }
  closedir(descriptors);
}

}  // namespace

FabricEndpoint::FabricEndpoint(const std::string& provider, const std::string& node) {
  load_fabric_library();
  try {
    open_domain(provider, node);
    open_endpoint();
  } catch (...) {
    close_all();
    throw;
  }
}

FabricEndpoint::~FabricEndpoint() { close_all(); }

void FabricEndpoint::open_domain(const std::string& provider, const std::string& node) {
  const std::unique_ptr<fi_info, decltype(&fi_freeinfo)> hints(fi_allocinfo(), fi_freeinfo);
  if (hints == nullptr) throw FabricError(FI_ENOMEM, "fi_allocinfo", "Cannot ask for providers");
  hints->caps = FI_MSG | FI_RMA;
  hints->mode = FI_CONTEXT;
  hints->ep_attr->type = FI_EP_RDM;
  hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY;
  hints->domain_attr->threading = FI_THREAD_DOMAIN;
  hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
  hints->tx_attr->msg_order = FI_ORDER_WAW;
  hints->rx_attr->msg_order = FI_ORDER_WAW;
  hints->fabric_attr->prov_name = strdup(provider.c_str());
  check(fi_getinfo(FI_VERSION(1, 17), node.c_str(), nullptr, FI_SOURCE, hints.get(), &info_), "fi_getinfo",
        "No provider " + provider + " for the address " + node);
  put_bytes_max_ = std::min(info_->ep_attr->max_order_waw_size, info_->ep_attr->max_msg_size);
  if (put_bytes_max_ < kOrderedBytesLeast) {
    throw FabricError(FI_ENOSYS, "fi_getinfo",
                      "Provider " + provider + " keeps puts in order up to " +
                          std::to_string(put_bytes_max_) + " bytes only");
  }
  check(fi_fabric(info_->fabric_attr, &fabric_, nullptr), "fi_fabric",
        "Cannot open the fabric of " + provider);
  check(fi_domain(fabric_, info_, &domain_, nullptr), "fi_domain", "Cannot open the domain of " + provider);
}

void FabricEndpoint::open_endpoint() {
  fi_av_attr av_attr = {};
  av_attr.type = FI_AV_TABLE;
  check(fi_av_open(domain_, &av_attr, &av_, nullptr), "fi_av_open", "Cannot open an address vector");
  fi_cq_attr cq_attr = {};
  cq_attr.format = FI_CQ_FORMAT_CONTEXT;
  cq_attr.wait_obj = FI_WAIT_FD;
  cq_attr.size = 2 * (kPutsMax + kDoorbellsPosted);
  check(fi_cq_open(domain_, &cq_attr, &cq_, nullptr), "fi_cq_open", "Cannot open a completion queue");
  check(fi_endpoint(domain_, info_, &endpoint_, nullptr), "fi_endpoint", "Cannot open an endpoint");
  check(fi_ep_bind(endpoint_, &av_->fid, 0), "fi_ep_bind", "Cannot bind the address vector");
  check(fi_ep_bind(endpoint_, &cq_->fid, FI_TRANSMIT | FI_RECV), "fi_ep_bind", "Cannot bind the queue");
  check(fi_enable(endpoint_), "fi_enable", "Cannot enable the endpoint");
  check(fi_control(&cq_->fid, FI_GETWAIT, &wait_fd_), "fi_control", "Cannot wait for the fabric");

  doorbell_memory_ = std::make_shared<FabricMemory>(domain_, info_, kDoorbellBytes);
  operations_ = std::make_unique<Operation[]>(kPutsMax + kDoorbellsPosted);
  for (size_t i = 0; i < kPutsMax; i++) free_.push_back(&operations_[i]);
  for (size_t i = 0; i < kDoorbellsPosted; i++) post_doorbell(&operations_[kPutsMax + i]);
}

void FabricEndpoint::close_all() {
  if (endpoint_ != nullptr) fi_close(&endpoint_->fid);
  if (cq_ != nullptr) fi_close(&cq_->fid);
  if (av_ != nullptr) fi_close(&av_->fid);
  operations_.reset();
  memories_.clear();
  doorbell_memory_.reset();
  if (domain_ != nullptr) fi_close(&domain_->fid);
  if (fabric_ != nullptr) fi_close(&fabric_->fid);
  if (info_ != nullptr) fi_freeinfo(info_);
}

std::vector<uint8_t> FabricEndpoint::name() const {
  std::vector<uint8_t> name(256);
  size_t bytes = name.size();
  check(fi_getname(&endpoint_->fid, name.data(), &bytes), "fi_getname", "The endpoint has no address");
  name.resize(bytes);
  return name;
}

bool FabricEndpoint::may_wait() {
  fid* fids[] = {&cq_->fid};
  return fi_trywait(fabric_, fids, 1) == 0;
}

uint32_t FabricEndpoint::add_memory(size_t bytes) {
  memories_[++last_number_] = std::make_shared<FabricMemory>(domain_, info_, bytes);
  return last_number_;
}

const FabricMemory* FabricEndpoint::memory(uint32_t memory) const {
  const auto found = memories_.find(memory);
  return found == memories_.end() ? nullptr : found->second.get();
}

void FabricEndpoint::remove_memory(uint32_t memory) { memories_.erase(memory); }

uint32_t FabricEndpoint::add_peer(const uint8_t* name, size_t bytes) {
  // The provider reads as many bytes as its own addresses have.
  if (bytes != this->name().size()) {
    throw FabricError(FI_EINVAL, "fi_av_insert", "The peer's address is of another provider or family");
  }
  fi_addr_t address = FI_ADDR_UNSPEC;
  const int inserted = fi_av_insert(av_, name, 1, &address, 0, nullptr);
  if (inserted != 1) {
    throw FabricError(inserted < 0 ? -inserted : FI_EINVAL, "fi_av_insert",
                      "The peer's address is not usable");
  }
  peers_[++last_number_] = address;
  return last_number_;
}

void FabricEndpoint::remove_peer(uint32_t peer) {
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return;
  fi_av_remove(av_, &found->second, 1, 0);
  peers_.erase(found);
  for (auto remote = remotes_.begin(); remote != remotes_.end();) {
    remote = remote->second.peer == peer ? remotes_.erase(remote) : std::next(remote);
  }
}

void FabricEndpoint::disconnect_peer(uint32_t peer) {
  const auto found = peers_.find(peer);
  if (found == peers_.end()) return;
  sockaddr_in own = {}, other = {};
  size_t own_bytes = sizeof own, other_bytes = sizeof other;
  if (fi_getname(&endpoint_->fid, &own, &own_bytes) != 0 || own.sin_family != AF_INET) return;
  if (fi_av_lookup(av_, found->second, &other, &other_bytes) != 0 || other.sin_family != AF_INET) return;
  shut_down_connections(own, other);
}

uint32_t FabricEndpoint::add_remote(uint32_t peer, uint64_t key, uint64_t base) {
  const auto found = peers_.find(peer);
  if (found == peers_.end()) throw FabricError(FI_EINVAL, "put", "There is no such peer");
  remotes_[++last_number_] = {peer, found->second, key, base};
  return last_number_;
}

FabricEndpoint::Operation* FabricEndpoint::take_operation() {
  if (free_.empty()) return nullptr;
  Operation* const operation = free_.back();
  free_.pop_back();
  return operation;
}

int FabricEndpoint::put(uint32_t remote, uint64_t remote_offset, uint32_t memory, size_t offset, size_t bytes,
                        uint32_t token) {
  const auto to = remotes_.find(remote);
  const auto from = memories_.find(memory);
  if (to == remotes_.end() || from == memories_.end()) return FI_EINVAL;
  const uint32_t peer = to->second.peer;
  if (under_way_[peer] >= kPutsPerPeerMax) return FI_EAGAIN;
  Operation* const operation = take_operation();
  if (operation == nullptr) return FI_EAGAIN;
  operation->token = token;
  operation->peer = peer;
  operation->doorbell = false;
  const ssize_t status =
      fi_write(endpoint_, from->second->pages()->base() + offset, bytes, from->second->descriptor(),
               to->second.to, to->second.base + remote_offset, to->second.key, &operation->context);
  if (status != 0) {
    free_.push_back(operation);
    return static_cast<int>(-status);
  }
  operation->memory = from->second;
  under_way_[peer]++;
  return 0;
}

int FabricEndpoint::ring(uint32_t peer) {
  const auto to = peers_.find(peer);
  if (to == peers_.end()) return FI_EINVAL;
  return static_cast<int>(-fi_inject(endpoint_, doorbell_memory_->pages()->base(), 0, to->second));
}

void FabricEndpoint::post_doorbell(Operation* operation) {
  operation->doorbell = true;
  const ssize_t status = fi_recv(endpoint_, doorbell_memory_->pages()->base(), kDoorbellBytes,
                                 doorbell_memory_->descriptor(), FI_ADDR_UNSPEC, &operation->context);
  if (status == -FI_EAGAIN) {
    unposted_.push_back(operation);
  } else if (status != 0) {
    throw FabricError(static_cast<int>(-status), "fi_recv", "Cannot listen for doorbells");
  }
}

bool FabricEndpoint::finish(Operation* operation, int error, FabricCompletion* completion) {
  if (operation == nullptr) return false;
  if (operation->doorbell) {
    post_doorbell(operation);
    return false;
  }
  const auto count = under_way_.find(operation->peer);
  if (--count->second == 0) under_way_.erase(count);
  *completion = {operation->token, error};
  operation->memory.reset();
  free_.push_back(operation);
  return true;
}

size_t FabricEndpoint::poll(FabricCompletion* completions, size_t most) {
  size_t count = 0;
  if (!unposted_.empty()) {
    std::vector<Operation*> again;
    again.swap(unposted_);
    for (Operation* operation : again) post_doorbell(operation);
  }
  while (count < most) {
    fi_cq_entry entries[kBatch];
    const size_t room = most - count < kBatch ? most - count : kBatch;
    const ssize_t got = fi_cq_read(cq_, entries, room);
    if (got == -FI_EAVAIL) {
      fi_cq_err_entry error = {};
      if (fi_cq_readerr(cq_, &error, 0) != 1) break;
      const int number = error.err != 0 ? error.err : FI_EIO;
      if (finish(static_cast<Operation*>(error.op_context), number, &completions[count])) count++;
      continue;
    }
    if (got <= 0) break;
    for (ssize_t i = 0; i < got; i++) {
      if (finish(static_cast<Operation*>(entries[i].op_context), 0, &completions[count])) count++;
    }
  }
  return count;
}

}  // namespace gaia
