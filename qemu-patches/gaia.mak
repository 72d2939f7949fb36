# The devices of the patched QEMU: what the machine profiles and libvirt domains
# use, and nothing else. Each device left out is code that a guest cannot attack
# and state that two replicas cannot differ in. The build copies this file to
# configs/devices/x86_64-softmmu/ and configures with --without-default-devices.

# The three machines; each selects the chipset parts it cannot do without.
CONFIG_MICROVM=y
CONFIG_I440FX=y
CONFIG_Q35=y

# The guest's console, on which its ready marker appears.
CONFIG_SERIAL_ISA=y

# Network and disk, over PCI (pc, q35) and memory-mapped (microvm).
CONFIG_VIRTIO_PCI=y
CONFIG_VIRTIO_MMIO=y
CONFIG_VIRTIO_NET=y
CONFIG_VIRTIO_BLK=y

# libvirt gives its domains a guest-agent channel and a balloon unless told otherwise,
# and on q35 a root port for each device.
CONFIG_VIRTIO_SERIAL=y
CONFIG_VIRTIO_BALLOON=y
CONFIG_PCIE_PORT=y

# A screen for boot loaders of foreign disks that want one.
CONFIG_VGA_PCI=y

# The timer that pc and q35 guests expect to find.
CONFIG_HPET=y

# Ports by which the KVM probe and the smallest test guests report and end.
CONFIG_ISA_DEBUG=y

# The guest kernel reports its own panic.
CONFIG_PVPANIC_ISA=y
