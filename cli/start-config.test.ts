import { expect, it } from 'vitest';
import { checkStartConfig } from './start-config.ts';

const check = (text: string) => checkStartConfig(text, 'vm.yaml');

it('takes every key that the flags have, and an empty file', () => {
  expect(check('name: db1\nimage: redis\nmemory: 512M\nreplicas: 3\ntimeout: 60\n')).toEqual({
    name: 'db1',
    image: 'redis',
    memory: '512M',
    replicas: 3,
    timeout: 60,
  });
  expect(check('kernel: /boot/vmlinuz\ninitrd: /boot/initrd.img\nappend: quiet\n')).toMatchObject({
    append: 'quiet',
  });
  expect(check('# nothing yet\n')).toEqual({});
});

it.each([
  [
    'an unknown key, by name and line',
    'name: db1\nmemmory: 1G\n',
    /^vm.yaml:2 unknown key "memmory": the keys are name, image,/,
  ],
  [
    'memory that is no size',
    'memory: lots\n',
    /^vm.yaml:1 "memory" must match pattern .*: Guest memory, such as 256M/,
  ],
  [
    'two replicas',
    'image: redis\n\nreplicas: 2\n',
    /^vm.yaml:3 "replicas" must be equal to one of the allowed values \(3\)/,
  ],
  ['a list', '- name: db1\n', /^vm.yaml:1 the file must be object/],
  ['an image and a kernel', 'image: redis\nkernel: /boot/vmlinuz\n', /names an image and a kernel/],
  ['an initrd alone', 'initrd: /boot/initrd.img\n', /gives "initrd" without "kernel"/],
  ['what is no YAML', 'name: db1\n  image: redis\n', /^vm.yaml:\d is no YAML: /],
  ['a key twice', 'name: a\nname: b\n', /^vm.yaml:2 is no YAML: Map keys must be unique/],
])('refuses %s', (_what, text, message) => {
  expect(() => check(text)).toThrow(message);
});

const hosts = (...replicas: string[]) =>
  `name: db1\nbridge: br0\naddress: 192.0.2.10/24\nreplicas:\n${replicas.map((replica) => `  - ${replica}\n`).join('')}`;
const [alpha, beta, gamma] = [1, 2, 3].map((n) => {
  return `{name: ${['', 'alpha', 'beta', 'gamma'][n] ?? ''}, address: "192.0.2.${n}:7700"}`;
}) as [string, string, string];

it('takes what carries the words between hosts, and no other than there is', () => {
  expect(check(`${hosts(alpha, beta, gamma)}provider: verbs\n`)).toMatchObject({ provider: 'verbs' });
  expect(() => check('provider: infiniband\n')).toThrow(/^vm.yaml:1 "provider" must be .* \(tcp, verbs\)/);
});

it('takes three replicas on hosts of their own', () => {
  const value = check(
    hosts(alpha, beta, '{name: gamma, address: "192.0.2.3:7700", stateDir: /srv/web1, bridge: br1}'),
  );
  expect(value['replicas']).toEqual([
    { name: 'alpha', address: '192.0.2.1:7700' },
    { name: 'beta', address: '192.0.2.2:7700' },
    { name: 'gamma', address: '192.0.2.3:7700', stateDir: '/srv/web1', bridge: 'br1' },
  ]);
});

it.each([
  ['two of them', hosts(alpha, beta), /^vm.yaml:4 "replicas" must NOT have fewer than 3 items/],
  ['four', hosts(alpha, beta, gamma, gamma), /^vm.yaml:4 "replicas" must NOT have more than 3 items/],
  [
    'two with one name',
    hosts(alpha, beta, gamma.replace('gamma', 'beta')),
    /^vm.yaml:7 two replicas have the name beta/,
  ],
  [
    'two with one address',
    hosts(alpha, beta, gamma.replace('.3:', '.1:')),
    /^vm.yaml:7 two replicas have the address 192.0.2.1:7700/,
  ],
  [
    'one without an address',
    hosts(alpha, '{name: beta}', gamma),
    /^vm.yaml:6 lacks "address": Where its host listens/,
  ],
  [
    'an address without a port',
    hosts(alpha, beta.replace(':7700', ''), gamma),
    /^vm.yaml:6 "replicas.address" must match pattern .*: Where its host listens/,
  ],
  [
    'an unknown key in one',
    hosts(alpha, beta, gamma.replace('{', '{colour: red, ')),
    /^vm.yaml:7 unknown key "colour": the keys are name, address, bridge, stateDir/,
  ],
])('refuses a list of replicas with %s', (_what, text, message) => {
  expect(() => check(text)).toThrow(message);
});

it('names all that is wrong at once', () => {
  expect(() => check('memory: lots\ncolour: red\n')).toThrow(/"memory"[^]*"colour"|"colour"[^]*"memory"/);
});
