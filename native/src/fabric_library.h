// libfabric itself, opened when it is first needed.
#ifndef GAIA_FABRIC_LIBRARY_H
#define GAIA_FABRIC_LIBRARY_H

namespace gaia {

// Throws FabricError when the library does not load. Before it, no function of libfabric may be called.
// THREAD: any.
void load_fabric_library();

}  // namespace gaia

#endif
