/**
 * Opens a fabric over RDMA as a user who may not pin memory, and prints how it is refused:
 * `ulimit -l 64; node dist/test/framework/transport/memlock-main.js ADDRESS`, as root.
 */
import { toReplicaId } from '../../../vmm/core/ids.ts';
import { FabricTransport } from '../../../vmm/io/transport/fabric.ts';

const nobody = 65_534;
const [address = ''] = process.argv.slice(2);

// Root may pin whatever it likes.
process.setgid?.(nobody);
process.setuid?.(nobody);
try {
  const transport = new FabricTransport(toReplicaId(1), { provider: 'verbs;ofi_rxm', address });
  transport.invite(toReplicaId(2));
  process.stdout.write('MEMLOCK was not refused\n');
} catch (error) {
  const { code, message } = error as NodeJS.ErrnoException;
  process.stdout.write(`MEMLOCK ${code ?? 'no code'} ${message}\n`);
}
