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

it('names all that is wrong at once', () => {
  expect(() => check('memory: lots\ncolour: red\n')).toThrow(/"memory"[^]*"colour"|"colour"[^]*"memory"/);
});
