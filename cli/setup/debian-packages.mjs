/** The Debian packages that building, running and testing gaia-vm needs, each with its reason. */

/** @type {readonly { readonly name: string; readonly why: string }[]} */
export const debianPackages = [
  { name: 'build-essential', why: 'compilers for QEMU and the addon' },
  { name: 'cmake', why: 'builds the addon' },
  { name: 'librust-blake3-dev', why: "BLAKE3's C and assembly sources, compiled into the addon" },
  { name: 'libfabric-dev', why: 'the transport between machines, over TCP or RDMA' },
  { name: 'dpkg-dev', why: "unpacks QEMU's source package" },
  { name: 'patch', why: 'applies qemu-patches/series' },
  { name: 'ninja-build', why: 'builds QEMU' },
  { name: 'meson', why: 'configures QEMU' },
  { name: 'pkg-config', why: 'finds the libraries below' },
  { name: 'python3', why: "runs QEMU's code generators" },
  { name: 'libglib2.0-dev', why: 'QEMU is written on it' },
  { name: 'libpixman-1-dev', why: "QEMU's screens" },
  { name: 'libfdt-dev', why: "QEMU's microvm machine" },
  { name: 'libseccomp-dev', why: "QEMU's -sandbox" },
  { name: 'libaio-dev', why: "QEMU's asynchronous disk writes" },
  { name: 'zlib1g-dev', why: 'QEMU compresses with it' },
  { name: 'seabios', why: "the guests' firmware" },
  { name: 'qemu-system-data', why: 'boot ROMs for kernels given on the command line' },
  { name: 'debian-archive-keyring', why: "verifies what comes from Debian's archive" },
  { name: 'iproute2', why: 'bridges, taps, and the network namespaces of tests' },
  { name: 'redis-tools', why: 'redis-benchmark, the load of the benches' },
  { name: 'wrk', why: 'load on the nginx image' },
  { name: 'sysbench', why: 'load on the mariadb image' },
  { name: 'clang-format', why: 'checks the style of native sources' },
];
