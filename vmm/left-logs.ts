/** What the durable logs of a VM hold of which nothing runs any more. Looks only: nothing is changed. */
import { native } from '../native/binding.ts';
import { GaiaError } from './core/errors.ts';
import { crc32cWith } from './core/falcon/crc32c.ts';
import { selfCommand } from './io/project-folder.ts';
import { recoverLog } from './io/log/recovery.ts';
import { hasSegments } from './io/log/segment-files.ts';
import { replicaFiles, type VmPlan } from './vm-plan.ts';

/** Inputs that were agreed on and made durable would be given up. */
export class LogLeftError extends GaiaError {
  constructor(name: string, found: readonly string[]) {
    super(
      'GAIA_LOG_LEFT',
      `The logs of VM ${name} hold what was agreed on before it ended (${found.join('; ')}); a guest is resumed from them only with a checkpoint, and there is none: ` +
        `"${selfCommand()} start ${name} --discard-log" gives them up and boots it afresh`,
    );
  }
}

/** One line for each replica that has left a log with records, or one that cannot be read. */
export function leftLogs(plan: VmPlan): string[] {
  const crc32c = crc32cWith(native().crc32cAt);
  return plan.replicas.flatMap((replica) => {
    const { logFolder } = replicaFiles(plan.name, replica.name);
    if (!hasSegments(logFolder)) return [];
    const identity = { clusterId: BigInt(plan.clusterId), replica: replica.id };
    const visitor = { segment: () => undefined, record: () => undefined, truncated: () => undefined };
    try {
      const { lastIndex, lastTerm, segments } = recoverLog(logFolder, identity, crc32c, visitor, false);
      const first = (segments[0]?.base.index ?? 0) + 1;
      return lastIndex < first
        ? []
        : [`${replica.name}: records ${first} to ${lastIndex}, the last of term ${lastTerm}`];
    } catch (error) {
      if (!(error instanceof GaiaError)) throw error;
      return [`${replica.name}: ${error.message}`];
    }
  });
}
