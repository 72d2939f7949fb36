/** `gaia-vm events`: what happened to a VM, as one of its replicas saw it. */
import type { CommandModule } from 'yargs';
import { vmEvents } from '../../vmm/index.ts';
import { printDocument, renderTable, withOutputOption, type OutputFormat } from '../output.ts';

interface EventsArguments {
  readonly vm: string;
  readonly replica: string | undefined;
  readonly output: OutputFormat;
}

export const eventsCommand: CommandModule<object, EventsArguments> = {
  command: 'events [vm]',
  describe: 'What happened to a VM, as one of its replicas saw it',
  builder: (yargs) =>
    withOutputOption(yargs)
      .positional('vm', { type: 'string', default: 'web1', describe: 'Name of the VM' })
      .option('replica', { type: 'string', describe: "Whose view; the leader's unless given" })
      .example('$0 events web1 --replica beta', 'the newest events last'),
  handler: async ({ vm, replica, output }) => {
    const events = await vmEvents(vm, replica);
    printDocument(output, { events }, () =>
      renderTable(events.map((event) => [event.time, event.name, event.text])),
    );
  },
};
