import { describe, expect, it } from 'vitest';
import { UsageError } from '../../cli/usage-error.ts';
import { commandOf, parseArguments } from './arguments.ts';

const names = ['boot', 'merkle'];

describe('arguments of a bench', () => {
  it('are its name and what shall be done with the result', () => {
    const parsed = parseArguments(['boot', '--quick', '--json', '/tmp/a.json', '--svg=/tmp/a.svg'], names);
    expect(parsed).toEqual({
      name: 'boot',
      quick: true,
      cold: false,
      docs: false,
      images: [],
      jsonFile: '/tmp/a.json',
      svgFile: '/tmp/a.svg',
    });
  });

  it('name the command that runs it again, without files of this machine', () => {
    expect(commandOf(parseArguments(['boot', '--cold', '--json', '/tmp/a.json'], names))).toBe(
      'npm run bench -- boot --cold',
    );
    expect(commandOf(parseArguments(['boot', '--image', 'redis', '--image=nginx'], names))).toBe(
      'npm run bench -- boot --image redis --image nginx',
    );
  });

  it.each<[string, string[], RegExp]>([
    ['no name', [], /^Which bench\? Please choose one of boot, merkle$/],
    ['an unknown name', ['bogus'], /^There is no bench "bogus": choose one of boot, merkle$/],
    ['two names', ['boot', 'merkle'], /^One bench at a time/],
    ['an unknown option', ['boot', '--bogus'], /--bogus/],
    ['a file without its name', ['boot', '--json'], /--json/],
    ['a file in no folder', ['boot', '--json', '/nonexistent/a.json'], /its folder does not exist$/],
    ['a quick run for the docs', ['boot', '--quick', '--docs'], /full runs only/],
  ])('%s is refused', (_what, words, message) => {
    expect(() => parseArguments(words, names)).toThrow(UsageError);
    expect(() => parseArguments(words, names)).toThrow(message);
  });
});
