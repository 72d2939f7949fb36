/**
 * How a QEMU is kept from everything that is not its own. Guarantees, from its first instruction on: it runs under a
 * user id that nothing else on this machine has, without any capability and without a way to one; it sees a file
 * system of its own, with /usr (read only), a few devices and the files it was given; no network but the tap that was
 * passed to it; after its own start few system calls are left (seccomp).
 */

export interface Confinement {
  /** User and group. */
  readonly uid: number;
  /** An empty folder that becomes its root. */
  readonly rootFolder: string;
  /** Files it may read, and the program itself. */
  readonly readable: readonly string[];
  /** Files and sockets it may write; they must be there. */
  readonly writable: readonly string[];
  /** Devices beside null and urandom that it may use, if they are there. */
  readonly devices: readonly string[];
}

/** Above the ranges of people, services and containers; the VM's number is added. */
const firstUid = 1_706_000_000;

/** The user id of the VM with this bridge number. */
export function vmUid(number: number): number {
  return firstUid + number;
}

/** For QEMU itself: what it gives up once it has begun. */
export const sandboxArguments: readonly string[] = [
  '-sandbox',
  'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
];

/** Builds the root, enters it, drops all rights and becomes the program: the process id stays the same. */
const script = `
set -eu
umask 022
root=$1 uid=$2
shift 2
mount -t tmpfs -o size=256k,mode=0755,nosuid,noexec gaia "$root"
mkdir -p "$root/usr" "$root/dev" "$root/old" "$root/proc"
mount --bind -o ro /usr "$root/usr"
mount --bind /proc "$root/proc"
for link in bin sbin lib lib32 lib64; do
  if [ -L "/$link" ]; then cp -P "/$link" "$root/$link"
  elif [ -d "/$link" ]; then mkdir "$root/$link"; mount --bind -o ro "/$link" "$root/$link"; fi
done
while [ "$1" != -- ]; do
  kind=\${1%%:*} path=\${1#*:}
  shift
  case "$kind $path" in 'ro /usr/'*) continue ;; esac
  [ -e "$path" ] || continue
  mkdir -p "$root/\${path%/*}"
  : > "$root/$path"
  case $kind in
    ro) mount --bind -o ro "$path" "$root/$path" ;;
    rw) chown "$uid:$uid" "$path"; mount --bind "$path" "$root/$path" ;;
    dev) rm "$root/$path"; cp -R "$path" "$root/$path"; chown "$uid:$uid" "$root/$path" ;;
  esac
done
shift
cd "$root"
pivot_root . old
cd /
umount -l /old
umount -l /proc
rmdir /old /proc
exec setpriv --reuid "$uid" --regid "$uid" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
`;

/** The command and its arguments that run `program` confined; descriptors are passed on. */
export function confinedCommand(
  { uid, rootFolder, readable, writable, devices }: Confinement,
  program: string,
  args: readonly string[],
): [string, string[]] {
  const files = [
    ...['/dev/null', '/dev/urandom', ...devices].map((path) => `dev:${path}`),
    ...[program, ...readable].map((path) => `ro:${path}`),
    ...writable.map((path) => `rw:${path}`),
  ];
  return [
    'unshare',
    [
      ...['--mount', '--net', '--ipc', '--uts', '--propagation', 'private', '--'],
      ...['sh', '-c', script, 'gaia-confined', rootFolder, String(uid), ...files, '--', program, ...args],
    ],
  ];
}
