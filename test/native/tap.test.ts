import { spawnSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { addonFile, loadAddon } from './addon.ts';

loadAddon();

/** Whether this process may make network namespaces and taps; where not, the tests are skipped in sight. */
const mayMakeTaps = ((): boolean => {
  try {
    closeSync(openSync('/dev/net/tun', 'r+'));
    return spawnSync('unshare', ['--net', 'true']).status === 0;
  } catch {
    return false;
  }
})();

/**
 * Runs `code` in a network namespace that ends with it. The code has `addon`, `fs`, `ip(...args)` (the ip
 * command), `interfaces()` and `failure(call)`; gives what it returns.
 */
function inNamespace(code: string): unknown {
  const source = `
    const addon = require(${JSON.stringify(addonFile())});
    const fs = require('node:fs');
    const { execFileSync } = require('node:child_process');
    const env = { ...process.env, LD_PRELOAD: '' };
    const ip = (...args) => execFileSync('ip', args, { encoding: 'utf8', env });
    const links = (name) => JSON.parse(ip('-json', '-details', 'link', 'show', 'dev', name))[0];
    const interfaces = () => JSON.parse(ip('-json', 'link')).map((link) => link.ifname).sort();
    const failure = (call) => {
      try { call(); } catch (error) { return [error.code, error.syscall]; }
      return 'no failure';
    };
    console.log(JSON.stringify((() => { ${code} })()));`;
  const ended = spawnSync('unshare', ['--net', process.execPath, '-e', source], { encoding: 'utf8' });
  if (ended.status !== 0) throw new Error(`The namespace's process failed: ${ended.stderr}`);
  return JSON.parse(ended.stdout);
}

describe.runIf(mayMakeTaps)('a tap device', () => {
  it('is there while its descriptor is open, and vanishes with it', () => {
    expect(
      inNamespace(`
        const before = interfaces();
        const fd = addon.tapOpen('gaia-tap-123456', { vnetHeader: false });
        const during = interfaces();
        fs.closeSync(fd);
        return [before.includes('gaia-tap-123456'), during.includes('gaia-tap-123456'),
          interfaces().includes('gaia-tap-123456')];`),
    ).toEqual([false, true, false]);
  });

  it('is a tap without packet information, with virtio-net headers as asked for', () => {
    expect(
      inNamespace(`
        return [false, true].map((vnetHeader) => {
          const fd = addon.tapOpen('gaia0', { vnetHeader });
          const { info_data } = links('gaia0').linkinfo;
          fs.closeSync(fd);
          return [info_data.type, info_data.pi, info_data.vnet_hdr, info_data.persist];
        });`),
    ).toEqual([
      ['tap', false, false, false],
      ['tap', false, true, false],
    ]);
  });

  it('carries frames without blocking', () => {
    expect(
      inNamespace(`
        const fd = addon.tapOpen('gaia0', { vnetHeader: false });
        ip('link', 'set', 'gaia0', 'up');
        const frame = Buffer.alloc(60, 0xff);
        const written = fs.writeSync(fd, frame);
        const content = Buffer.alloc(2048);
        let error = '';
        for (let i = 0; i < 100 && error === ''; i += 1)
          try { fs.readSync(fd, content); } catch (reason) { error = reason.code; }
        return [written, error];`),
    ).toEqual([60, 'EAGAIN']);
  });

  it('loses and regains its carrier', () => {
    expect(
      inNamespace(`
        const fd = addon.tapOpen('gaia0', { vnetHeader: false });
        ip('link', 'set', 'gaia0', 'up');
        const carrier = () => fs.readFileSync('/sys/class/net/gaia0/carrier', 'utf8').trim();
        const show = () => !links('gaia0').flags.includes('NO-CARRIER');
        const seen = [show()];
        addon.tapCarrier(fd, false);
        seen.push(show());
        addon.tapCarrier(fd, true);
        seen.push(show());
        return seen;`),
    ).toEqual([true, false, true]);
  });

  it('is not joined when it is there already, also when nobody has it open', () => {
    expect(
      inNamespace(`
        const fd = addon.tapOpen('gaia0', { vnetHeader: true });
        const open = failure(() => addon.tapOpen('gaia0', { vnetHeader: true }));
        ip('tuntap', 'add', 'dev', 'gaia1', 'mode', 'tap');
        return [open, failure(() => addon.tapOpen('gaia1', { vnetHeader: true })),
          fs.readdirSync('/proc/self/fd').filter((entry) => {
            try { return fs.readlinkSync('/proc/self/fd/' + entry) === '/dev/net/tun'; } catch { return false; }
          }).length];`),
    ).toEqual([['EBUSY', 'ioctl'], ['EBUSY', 'ioctl'], 1]);
  });

  it('is needed to set a carrier', () => {
    expect(
      inNamespace(`
        const fd = addon.memoryCreate('gaia-no-tap', 4096);
        return [failure(() => addon.tapCarrier(fd, true)), failure(() => addon.tapCarrier(1 << 30, true))];`),
    ).toEqual([
      ['ENOTTY', 'ioctl'],
      ['EBADF', 'ioctl'],
    ]);
  });
});
