// The layer table of the project: an import that no rule allows fails the lint.
const ours = '^(vmm|native|merkle|cli|images|test)/';
const outside = { dependencyTypes: ['npm', 'npm-dev', 'npm-optional', 'npm-peer', 'core'] };

module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'pure-layers-touch-nothing',
      comment: 'merkle/ and vmm/core/ have no I/O: neither Node modules nor packages',
      severity: 'error',
      from: { path: '^(merkle|vmm/core)/', pathNot: '\\.test\\.ts$' },
      to: outside,
    },
    {
      name: 'nobody-imports-tests',
      severity: 'error',
      from: { pathNot: '^test/|\\.test\\.ts$' },
      to: { path: '^test/|\\.test\\.ts$' },
    },
    {
      name: 'no-unresolvable',
      severity: 'error',
      from: { path: ours },
      to: { couldNotResolve: true },
    },
  ],
  allowedSeverity: 'error',
  allowed: [
    { from: {}, to: outside },
    { from: { path: '^merkle/' }, to: { path: '^merkle/' } },
    { from: { path: '^native/' }, to: { path: '^native/' } },
    { from: { path: '^vmm/core/' }, to: { path: '^(vmm/core|merkle)/' } },
    { from: { path: '^vmm/io/' }, to: { path: '^(vmm/io|vmm/core|merkle|native)/' } },
    { from: { path: '^vmm/transfer/' }, to: { path: '^(vmm/transfer|vmm/io|vmm/core|merkle)/' } },
    {
      from: { path: '^vmm/guest/' },
      to: { path: '^(vmm/guest|vmm/transfer|vmm/io|vmm/core|merkle|native)/' },
    },
    { from: { path: '^vmm/[^/]+$' }, to: { path: '^(vmm|merkle|native)/' } },
    { from: { path: '^images/' }, to: { path: '^images/' } },
    { from: { path: '^cli/' }, to: { path: '^(cli/|vmm/index\\.ts$|images/index\\.ts$)' } },
    { from: { path: '^test/|\\.test\\.ts$' }, to: { path: ours } },
    { from: { path: '^[^/]+$' }, to: {} },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^(dist|node_modules|native/build[^/]*|docs|coverage)/' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { extensions: ['.ts', '.js', '.mjs', '.json'] },
  },
};
