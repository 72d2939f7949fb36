import { createConnection, createServer, type AddressInfo } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { GaiaError } from '../../core/errors.ts';
import { toReplicaId, type ReplicaId } from '../../core/ids.ts';
import { PeerMeeting, type MeetingFace, type MeetingSettings, type PeerAddress } from './meeting.ts';
import { askPeer } from './peer-question.ts';
import type { PeerCard, TransportError } from './transport.ts';

const host = '127.0.0.1';
let nextPort = 20_000 + (process.pid % 20_000);

function addressesOf(...ids: readonly number[]): Map<ReplicaId, PeerAddress> {
  return new Map(ids.map((id) => [toReplicaId(id), { host, port: nextPort++ }]));
}

/** A replica's side of the meeting, and what it was told, in order. */
class Side {
  readonly meeting: PeerMeeting;
  readonly told: string[] = [];
  readonly refusals: TransportError[] = [];
  #invitations = 0;
  #onTold: () => void = () => undefined;

  constructor(self: number, settings: Omit<MeetingSettings, 'self'>, face: Partial<MeetingFace> = {}) {
    const tell = (what: string) => {
      this.told.push(what);
      this.#onTold();
    };
    this.meeting = new PeerMeeting(
      { ...settings, self: toReplicaId(self) },
      {
        invite: (peer): Promise<PeerCard> =>
          Promise.resolve({ from: self, to: peer, number: ++this.#invitations }),
        connect: (peer, card) => {
          tell(`connect ${peer} ${JSON.stringify(card)}`);
        },
        lost: (peer) => {
          tell(`lost ${peer}`);
        },
        refused: (error) => {
          this.refusals.push(error);
          tell(error.code);
        },
        ...face,
      },
    );
    onTestFinished(() => {
      this.meeting.close();
    });
  }

  async until(count: number): Promise<readonly string[]> {
    while (this.told.length < count)
      await new Promise<void>((resolve) => {
        this.#onTold = resolve;
      });
    return this.told;
  }
}

describe('the meeting of two replicas', () => {
  it('gives each the other’s card, tells of the end, and makes a new session when one comes back', async () => {
    const settings = { clusterId: '7', addresses: addressesOf(1, 2) };
    const one = new Side(1, settings);
    await one.meeting.open();
    const two = new Side(2, settings);
    await two.meeting.open();
    expect(await one.until(1)).toEqual(['connect 2 {"from":2,"to":1,"number":1}']);
    expect(await two.until(1)).toEqual(['connect 1 {"from":1,"to":2,"number":1}']);
    two.meeting.close();
    expect((await one.until(2))[1]).toBe('lost 2');
    const again = new Side(2, settings);
    await again.meeting.open();
    expect((await one.until(3))[2]).toBe('connect 2 {"from":2,"to":1,"number":1}');
    expect(await again.until(1)).toEqual(['connect 1 {"from":1,"to":2,"number":2}']);
  });

  it('begins anew where one side gives the session up', async () => {
    const settings = { clusterId: '7', addresses: addressesOf(1, 2) };
    const one = new Side(1, settings);
    const two = new Side(2, settings);
    await Promise.all([one.meeting.open(), two.meeting.open()]);
    await Promise.all([one.until(1), two.until(1)]);
    one.meeting.drop(toReplicaId(2));
    expect((await one.until(3)).map((said) => said.split(' ')[0])).toEqual(['connect', 'lost', 'connect']);
    expect((await two.until(3)).map((said) => said.split(' ')[0])).toEqual(['connect', 'lost', 'connect']);
  });

  it('refuses a replica of another cluster, on both sides, with both numbers', async () => {
    const addresses = addressesOf(1, 2);
    const one = new Side(1, { clusterId: '7', addresses });
    const two = new Side(2, { clusterId: '8', addresses });
    await Promise.all([one.meeting.open(), two.meeting.open()]);
    expect((await one.until(1))[0]).toBe('GAIA_PEER_CLUSTER');
    expect((await two.until(1))[0]).toBe('GAIA_PEER_CLUSTER');
    expect(two.refusals[0]?.message).toContain('Replica 2 belongs to cluster 8, replica 1 to 7');
  });

  it('refuses what a peer says of itself, on both sides, before a card is taken', async () => {
    const addresses = addressesOf(1, 2);
    const judge: MeetingFace['judge'] = (_peer, about) =>
      about['qemu'] === 'old' ? undefined : { code: 'GAIA_PEER_QEMU', text: `build ${about['qemu'] ?? ''}` };
    const one = new Side(1, { clusterId: '7', addresses, about: { qemu: 'old' } }, { judge });
    const two = new Side(2, { clusterId: '7', addresses, about: { qemu: 'new' } });
    await Promise.all([one.meeting.open(), two.meeting.open()]);
    expect(await one.until(1)).toEqual(['GAIA_PEER_QEMU']);
    expect(await two.until(1)).toEqual(['GAIA_PEER_QEMU']);
    expect(two.refusals[0]?.message).toBe('build new');
  });

  it('refuses a second process with the same id', async () => {
    const addresses = addressesOf(1, 2);
    const one = new Side(1, { clusterId: '7', addresses });
    await one.meeting.open();
    const two = new Side(2, { clusterId: '7', addresses });
    const other = new Side(2, {
      clusterId: '7',
      addresses: new Map([...addresses, [toReplicaId(2), { host, port: nextPort++ }]]),
      takenPatienceMs: 300,
    });
    await two.meeting.open();
    await two.until(1);
    await other.meeting.open();
    expect((await other.until(1))[0]).toBe('GAIA_REPLICA_ID_TAKEN');
    expect(other.refusals[0]?.message).toContain('two processes run with the id 2');
    expect(one.told).toHaveLength(1);
  });

  it.each([
    ['GAIA_PEER_PROTOCOL', { protocol: 1 }],
    ['GAIA_REPLICA_ID', { from: 1 }],
    ['GAIA_REPLICA_ID', { to: 3 }],
    ['GAIA_REPLICA_ID', { from: 9 }],
  ])('answers with %s to a hello with %o', async (code, change) => {
    const addresses = addressesOf(1, 2);
    const one = new Side(1, { clusterId: '7', addresses });
    await one.meeting.open();
    const port = addresses.get(toReplicaId(1))?.port ?? 0;
    const hello = { gaia: 'peer', protocol: 2, clusterId: '7', from: 2, to: 1, card: {}, ...change };
    expect(JSON.parse(await said(port, `${JSON.stringify(hello)}\n`))).toMatchObject({ code });
    expect(await one.until(1)).toEqual([code]);
  });

  it('refuses a hello of another version with both numbers, whatever else is in it', async () => {
    const addresses = addressesOf(1, 2);
    const one = new Side(1, { clusterId: '7', addresses });
    await one.meeting.open();
    const port = addresses.get(toReplicaId(1))?.port ?? 0;
    const text = await said(port, '{"gaia":"peer","protocol":3,"replica":{"id":2}}\n');
    const expected =
      'A peer speaks protocol 3, replica 1 speaks 2: run the same version of gaia-vm on all hosts';
    expect(JSON.parse(text)).toEqual({ code: 'GAIA_PEER_PROTOCOL', text: expected });
    expect(await one.until(1)).toEqual(['GAIA_PEER_PROTOCOL']);
  });

  it.each(['\n', 'hello\n', 'null\n', '{"gaia":"peer"}\n', 'x'.repeat(70_000)])(
    'hangs up on what is no hello',
    async (text) => {
      const addresses = addressesOf(1, 2);
      const one = new Side(1, { clusterId: '7', addresses });
      await one.meeting.open();
      expect(await said(addresses.get(toReplicaId(1))?.port ?? 0, text)).toBe('');
      expect(one.told).toEqual([]);
    },
  );

  describe('asked from outside', () => {
    const ask = async (question: Partial<Parameters<typeof askPeer>[1]>) => {
      const addresses = addressesOf(1, 2);
      const answer: MeetingFace['answer'] = ({ ask: what, words }) => {
        if (what !== 'status') throw new GaiaError('GAIA_PEER_QUESTION', `does not know ${what}`);
        return Promise.resolve({ words });
      };
      await new Side(1, { clusterId: '7', addresses }, { answer }).meeting.open();
      const address = addresses.get(toReplicaId(1)) ?? { host, port: 0 };
      return askPeer(address, { vm: 'web1', clusterId: '7', ask: 'status', words: {}, ...question }, 1000);
    };

    it('answers one question a connection', async () => {
      expect(await ask({ words: { to: '2' } })).toEqual({ words: { to: '2' } });
      expect(await ask({ clusterId: null })).toEqual({ words: {} });
    });

    it('refuses with a code and a reason', async () => {
      await expect(ask({ ask: 'secrets' })).rejects.toMatchObject({ code: 'GAIA_PEER_QUESTION' });
      await expect(ask({ clusterId: '8' })).rejects.toMatchObject({ code: 'GAIA_PEER_CLUSTER' });
    });

    it('is said to be unreachable where nobody listens, or nobody answers in time', async () => {
      const question = { vm: 'web1', clusterId: null, ask: 'status', words: {} };
      const nobody = { host, port: nextPort++ };
      await expect(askPeer(nobody, question, 1000)).rejects.toMatchObject({ code: 'GAIA_PEER_UNREACHABLE' });
      const silent = createServer();
      onTestFinished(() => void silent.close());
      await new Promise<void>((resolve) => silent.listen(nextPort++, host, resolve));
      const { port } = silent.address() as AddressInfo;
      await expect(askPeer({ host, port }, question, 100)).rejects.toMatchObject({
        code: 'GAIA_PEER_UNREACHABLE',
      });
    });
  });

  it('says so when its address is taken', async () => {
    const settings = { clusterId: '7', addresses: addressesOf(1, 2) };
    await new Side(1, settings).meeting.open();
    await expect(new Side(1, settings).meeting.open()).rejects.toMatchObject({ code: 'GAIA_PEER_LISTEN' });
  });
});

/** What the other end says to `text` until it hangs up. */
function said(port: number, text: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = createConnection({ host, port });
    let answer = '';
    socket.on('data', (data) => (answer += data.toString()));
    socket.on('close', () => {
      resolve(answer);
    });
    socket.on('error', () => undefined);
    socket.write(text);
  });
}
